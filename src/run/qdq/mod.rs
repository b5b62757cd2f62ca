//! QuantizeLinear and DequantizeLinear for tract, with the meaning that ONNX gives them.
//!
//! tract 0.23.9 multiplies by the reciprocal of the scale where ONNX divides, folds `DequantizeLinear →
//! Softmax → QuantizeLinear` into a table as if it were elementwise, wraps large quotients, and
//! refuses several types and forms. The operators here replace its own: every integer type, per
//! tensor, per axis and blocked, with scales and zero points that may be computed.

mod attributes;
mod code_type;
mod dequantize;
mod layout;
mod quantize;

pub use code_type::CodeType;

/// Makes tract read both operators as this module's.
pub fn register(operators: &mut tract_onnx::model::OnnxOpRegister) {
    operators.insert("QuantizeLinear", quantize::parse);
    operators.insert("DequantizeLinear", dequantize::parse);
}
