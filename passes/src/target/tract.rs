//! tract as it is, without `vitq-tract`.

use super::{BiasForm, Blocks, Codes, LinearForm, Quantiser, Scales, Target, Values};

/// With all Linears in integers, DeiT-T (192 channels) runs at 0.91 times float's speed and DeiT-S (384) at 1.17; with the
/// inputs of `proj` and `fc2` float, at 1.03 and 1.16.
const LEAST_OUTPUTS: usize = 384;

/// Integer products that stand in the graph: tract fuses none.
pub const TRACT: Target = Target {
    name: "tract",
    about: "tract without further crates: Linears as MatMulInteger; ONNX Runtime runs it too",
    reasons: &[
        "MatMulInteger, Cast, Mul, Add: tract multiplies QDQ in float, with weights dequantised when it is loaded",
        "quantisers as Div, Clip, Add, Sub, Cast: its QuantizeLinear takes one element after the other",
        "weights alone where fewer than 384 channels are made of a value: quantising it takes longer than that saves",
        "float biases: they are added behind the scale",
        "patch embedding and attention products as QDQ: ConvInteger and integer attention are slower than float",
        "codes of weights of at most 4 or 2 bits, two or four a byte, which it unpacks when it loads the model; it loads no 4-bit tensors",
    ],
    opset: 17,
    newest_opset: None,
    folds_codes: true,
    blocks: Blocks::None,
    linear: LinearForm::Integer(Scales::Constant),
    least_outputs: LEAST_OUTPUTS,
    weight_only_advice: None,
    bias: BiasForm::Float,
    codes: Codes::Unsigned,
    narrow_sums: false,
    quantiser: Quantiser::Arithmetic,
    values: Values::Read,
    costs: None,
    attention: false,
    standard_only: true,
    measured: true,
};
