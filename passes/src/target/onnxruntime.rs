//! ONNX Runtime on CPUs, and whatever understands the same form (tract with `vitq-tract` does).

use super::{BiasForm, Codes, Costs, LinearForm, Quantiser, Target, Values};

/// int8 over float products at the shapes of ViTs on AVX512-VNNI: 3.3 to 4.1 measured. An element's cost is fitted: with all
/// Linears quantised the model gives 2.0, 2.4 and 2.9 for DeiT-T, S and B, where 1.87, 2.44 and 2.90 were measured on one core.
const COSTS: Costs = Costs {
    float: 36,
    quantised: 10,
    element: 22 * 36,
};

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
    bias: BiasForm::Int32,
    codes: Codes::Unsigned,
    quantiser: Quantiser::Operator,
    values: Values::Read,
    costs: Some(COSTS),
    standard_only: false,
    measured: true,
};
