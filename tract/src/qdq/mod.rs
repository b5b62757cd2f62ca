//! QuantizeLinear and DequantizeLinear for tract, with the meaning that ONNX gives them.
//!
//! tract 0.23.9 multiplies by the reciprocal of the scale where ONNX divides, folds `DequantizeLinear →
//! Softmax → QuantizeLinear` into a table as if it were elementwise, wraps large quotients, and
//! refuses several types and forms. The operators here replace its own: every integer type, per
//! tensor, per axis and blocked, with scales and zero points that may be computed.

mod arithmetic;
mod attributes;
mod code_type;
mod dequantize;
mod layout;
mod quantize;
mod staircase;

use tract_core::internal::{TractResult, TypedModel};

pub use code_type::CodeType;
pub use dequantize::Dequantize;
pub use dequantize::parse as parse_dequantize;
pub use layout::Layout;
pub use quantize::parse as parse_quantize;

/// Makes one operator of each quantiser that is written in several.
pub fn join(model: &mut TypedModel) -> TractResult<()> {
    arithmetic::join(model)?;
    staircase::join(model)?;
    Ok(())
}
