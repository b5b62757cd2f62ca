//! ONNX Runtime on CPUs, and whatever understands the same form (tract with `vitq-tract` does).

use super::{LinearForm, Target};

/// The form that becomes `MatMulIntegerToFloat` (dynamic shapes) or `QGemm` (static ones).
pub const ONNX_RUNTIME: Target = Target {
    name: "onnxruntime",
    about: "ONNX Runtime on CPUs, and tract with the crate vitq-tract: QDQ that they fuse to integer products",
    reasons: &[
        "uint8 activations, int8 weights with a scale per channel: int8 activations run five times slower than float",
        "int32 biases: behind static shapes a float one makes a float Gemm that dequantises its weights at every run",
        "no quantiser on results, none inside Softmax, GELU and LayerNorm: they cost speed or are wrong there",
        "4-bit codebooks as UINT4 (operator set 21), unpacked when the model is loaded",
    ],
    opset: 17,
    newest_opset: Some(26),
    packed_opset: Some(21),
    linear: LinearForm::Dequantised,
    standard_only: false,
};
