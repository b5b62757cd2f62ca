//! ONNX Runtime on CPUs, and whatever understands the same form (tract does).

use super::Target;

/// uint8 activations with zero points, int8 weights with one scale an output channel, int32 biases, no quantiser on results:
/// the form that becomes `MatMulIntegerToFloat` (dynamic shapes) or `QGemm` (static ones).
///
/// - Operator set 17 has LayerNormalization, 21 the 4-bit types.
/// - int8 activations run five times slower than float and may not load; uint8 always works.
/// - Zero points of 8-bit weights cost about 5 %; below 8 bits they are worth it.
/// - A float bias behind static shapes turns the product into a float Gemm that dequantises its weights at every run.
pub const ONNX_RUNTIME: Target = Target {
    name: "onnxruntime",
    opset: 17,
    packed_opset: 21,
    symmetric_weights: true,
};
