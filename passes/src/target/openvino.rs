//! OpenVINO on CPUs.

use super::{BiasForm, Blocks, Codes, LinearForm, Quantiser, Target, Values};

/// The same form as [`super::PORTABLE`]: with 2026.4 every Linear of a DeiT-S so written ran as an int8 product, 2.4 to 2.7 times as
/// fast as float on one thread; int8 activations or a float bias changed nothing.
pub const OPENVINO: Target = Target {
    name: "openvino",
    about: "OpenVINO on CPUs: QDQ, which becomes int8 products",
    reasons: &[
        "uint8 activations, int8 weights with a scale per channel: 2.4 to 2.7 times as fast as float (DeiT-S, one thread)",
        "int32 biases, folded when the model is loaded",
        "attention products are multiplied in float even where they are quantised: --scope linear is faster",
        "codes of weights of at most 4 or 2 bits, two or four a byte, which it unpacks when it loads the model",
        "a scale a block (--block) where blocks divide the inputs: 2026.4 refuses a shorter last one",
        "operators of other domains are refused: OpenVINO has few of them",
        "neighbouring products of codes fit into 16 bits: x86-64 processors without VNNI add them so, and saturate",
    ],
    opset: 17,
    newest_opset: Some(26),
    folds_codes: true,
    blocks: Blocks::Whole,
    linear: LinearForm::Dequantised,
    least_outputs: 0,
    weight_only_advice: None,
    bias: BiasForm::Int32,
    codes: Codes::Unsigned,
    narrow_sums: true,
    quantiser: Quantiser::Operator,
    values: Values::Read,
    costs: None,
    attention: false,
    standard_only: true,
    measured: true,
};
