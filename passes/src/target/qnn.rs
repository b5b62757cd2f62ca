//! Qualcomm's NPUs (HTP), through ONNX Runtime's QNN execution provider.

use super::{BiasForm, Blocks, Codes, LinearForm, Quantiser, Target, Values};

/// The rules of its documentation and of its selectors of node units (`qdq_selectors.cc`; `quant_config.py` of
/// onnxruntime.quantization). No such hardware has run it here; ONNX Runtime's CPU provider has, for its values.
pub const QNN: Target = Target {
    name: "qnn",
    about: "Qualcomm NPUs (HTP), ONNX Runtime's QNN provider: every operator in QDQ, 16 bits between the products",
    reasons: &[
        "inputs and results of every operator quantised: what stands in no such unit (DQ, operator, Q) runs on the CPU",
        "all in uint16, which LayerNormalization and GELU need; with --bits w8a8 quantised products uint8 in and out, as one unit has one type",
        "a Linear that stays float for the plan has uint16 and int8 weights: --keep-float names those that lose too much",
        "operators that only move values keep the scale and zero point of their input",
        "Softmax and Sigmoid have the scale 1/65536, Tanh 1/32768: the provider asks for these",
        "Linears as Gemm with an int32 bias (FullyConnected): an Add between two types is no unit",
        "int8 weights with a scale per channel, zero points 0; gamma uint8, beta int32",
        "GELU as one operator, as there is no Erf; other such operators stay float, and are named",
        "8 bits for activations of products, evenly spaced: no integer operators that could limit the codes further",
        "operator set 21 and newer: uint16 in QuantizeLinear",
        "fixed shapes: fix a symbolic batch in the session (free_dimension_overrides)",
    ],
    opset: 21,
    newest_opset: Some(26),
    folds_codes: false,
    blocks: Blocks::None,
    linear: LinearForm::Gemm,
    least_outputs: 0,
    weight_only_advice: None,
    bias: BiasForm::Int32,
    codes: Codes::Even,
    // Not for the NPU: so that the model's values can be checked on any processor.
    narrow_sums: true,
    quantiser: Quantiser::Operator,
    values: Values::All,
    costs: None,
    attention: false,
    standard_only: true,
    measured: false,
};
