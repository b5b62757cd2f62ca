//! Any runtime that follows the standard.

use super::{BiasForm, Blocks, Codes, LinearForm, Quantiser, Target, Values};

/// Plain QDQ of the types that every runtime has.
pub const PORTABLE: Target = Target {
    name: "portable",
    about: "any runtime: standard operators alone, the same values everywhere but for rounding",
    reasons: &[
        "operator set 17 to 20: 21 brings other forms of QuantizeLinear, which not all runtimes know",
        "uint8, int8 and int32 alone; codes of weights of at most 4 or 2 bits lie two or four a byte, and a table unpacks them",
        "codes of fewer than 8 bits are clipped as floats, since not all runtimes have the operators for uint8",
        "operators of other domains are refused: only the runtime that made them has them",
        "neighbouring products of codes fit into 16 bits: x86-64 processors without VNNI add them so, and saturate",
    ],
    opset: 17,
    newest_opset: Some(20),
    folds_codes: true,
    blocks: Blocks::None,
    linear: LinearForm::Dequantised,
    least_outputs: 0,
    weight_only_advice: None,
    bias: BiasForm::Int32,
    codes: Codes::Unsigned,
    narrow_sums: true,
    quantiser: Quantiser::Clipped,
    values: Values::Read,
    costs: None,
    attention: false,
    standard_only: true,
    measured: true,
};
