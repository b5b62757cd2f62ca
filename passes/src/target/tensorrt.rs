//! NVIDIA TensorRT, from version 10 on, which builds an engine with the quantisers that stand in the graph ("explicit quantisation").

use super::{BiasForm, Blocks, Codes, LinearForm, Quantiser, Target, Values};

/// The rules of its documentation (Working with Quantized Types; the operator table of ONNX-TensorRT). No TensorRT has run it here.
pub const TENSORRT: Target = Target {
    name: "tensorrt",
    about: "TensorRT 10 and newer: symmetric int8 QDQ as its documentation asks for",
    reasons: &[
        "int8 activations with zero point 0, one scale a tensor: the parser refuses uint8 and other zero points",
        "8 bits for activations: there are no integer operators that could limit the codes further",
        "int8 weights with a scale per channel, dequantised in front of the product: that becomes an int8 product",
        "float biases: the parser refuses an int32 DequantizeLinear, and a bias is added in float anyway",
        "every input of a quantised product has its quantiser, no result has one: the documentation's default",
        "4-bit codes stored as int8",
    ],
    opset: 17,
    newest_opset: Some(22),
    folds_codes: false,
    blocks: Blocks::None,
    linear: LinearForm::Dequantised,
    least_outputs: 0,
    weight_only_advice: None,
    bias: BiasForm::Float,
    codes: Codes::Symmetric,
    narrow_sums: false,
    quantiser: Quantiser::Operator,
    values: Values::Read,
    costs: None,
    attention: false,
    standard_only: true,
    measured: false,
};
