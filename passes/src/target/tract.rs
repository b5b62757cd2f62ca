//! tract as it is, without `vitq-tract`.

use super::{BiasForm, Codes, LinearForm, Quantiser, Target, Values};

/// Integer products that stand in the graph: tract fuses none.
pub const TRACT: Target = Target {
    name: "tract",
    about: "tract without further crates: Linears as MatMulInteger; ONNX Runtime runs it too",
    reasons: &[
        "MatMulInteger, Cast, Mul, Add: tract multiplies QDQ in float, with weights dequantised when it is loaded",
        "quantisers as Div, Clip, Add, Sub, Cast: its QuantizeLinear takes one element after the other",
        "float biases: they are added behind the scale",
        "patch embedding and attention products as QDQ: ConvInteger and integer attention are slower than float",
        "4-bit codes stored as int8: tract loads no 4-bit tensors",
    ],
    opset: 17,
    newest_opset: None,
    packed_opset: None,
    linear: LinearForm::Integer,
    bias: BiasForm::Float,
    codes: Codes::Unsigned,
    quantiser: Quantiser::Arithmetic,
    values: Values::Read,
    costs: None,
    standard_only: true,
    measured: true,
};
