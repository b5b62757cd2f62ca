#![doc = include_str!("../README.md")]

mod constant;
mod linear;
mod qdq;
mod widen;

use tract_onnx::model::OnnxOpRegister;

pub use linear::{Kernels, fuse, fuse_with};
pub use widen::{PackedLength, widen};

/// Makes tract read QuantizeLinear and DequantizeLinear as this crate's operators.
pub fn register(operators: &mut OnnxOpRegister) {
    operators.insert("QuantizeLinear", qdq::parse_quantize);
    operators.insert("DequantizeLinear", qdq::parse_dequantize);
}
