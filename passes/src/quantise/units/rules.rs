//! Operators that a unit can be made of, and how their inputs and results are quantised.
//!
//! The list is that of the node units which ONNX Runtime's QNN provider forms (`qdq_selectors`), less what exported vision
//! transformers do not have.

use crate::ir::Op;

/// How an operator is quantised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Rule {
    /// Which inputs are values; others (bounds, paddings, axes) stay as they are.
    pub inputs: Inputs,
    /// Its results.
    pub result: Outcome,
}

/// Inputs that are quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Inputs {
    /// The first.
    First,
    /// All that are floats.
    All,
}

/// How a result is quantised.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Outcome {
    /// As the first input, whose values it only moves.
    Shared,
    /// By the range that was seen.
    Seen,
    /// By a step and a zero point of 16 bits that the runtime asks for.
    Fixed(f32, u16),
    /// Not: it is no float.
    Free,
}

/// What a constant input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Constant {
    /// A value like any other.
    Value,
    /// A weight with its outputs on this axis.
    Weight(usize),
    /// Added to the sums of products with the weight, or behind the scale of a norm.
    Bias,
    /// The scale of a norm.
    Scale,
}

/// Operators that move values.
const MOVES: [&str; 13] = [
    "DepthToSpace",
    "Expand",
    "Flatten",
    "Gather",
    "Identity",
    "MaxPool",
    "Reshape",
    "Slice",
    "SpaceToDepth",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
];
/// Of one value.
const UNARY: [&str; 30] = [
    "Abs",
    "AveragePool",
    "Ceil",
    "Clip",
    "Cos",
    "Elu",
    "Exp",
    "Floor",
    "Gelu",
    "GlobalAveragePool",
    "GlobalMaxPool",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "LpNormalization",
    "Neg",
    "Pad",
    "ReduceMax",
    "ReduceMean",
    "ReduceMin",
    "ReduceSum",
    "Relu",
    "Resize",
    "Round",
    "Sign",
    "Sin",
    "Sqrt",
    "Tile",
];
/// Of several.
const MANY: [&str; 13] = [
    "Add",
    "Concat",
    "Conv",
    "Div",
    "Einsum",
    "Gemm",
    "LayerNormalization",
    "MatMul",
    "Mul",
    "Pow",
    "PRelu",
    "Sub",
    "Where",
];
/// Of two, without a float result.
const COMPARES: [&str; 5] = ["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"];

/// The rule of an operator; `None` where the runtime forms no unit of it.
pub(super) fn rule(op: &Op) -> Option<Rule> {
    let among = |ops: &[&str]| ops.iter().any(|it| op.is(it));
    let (inputs, result) = if among(&MOVES) {
        (Inputs::First, Outcome::Shared)
    } else if among(&["Softmax", "Sigmoid"]) {
        // 1.0 becomes 65535/65536, as with the provider's own tool.
        (Inputs::First, Outcome::Fixed(1.0 / 65536.0, 0))
    } else if among(&["Tanh"]) {
        (Inputs::First, Outcome::Fixed(1.0 / 32768.0, 32768))
    } else if among(&UNARY) {
        (Inputs::First, Outcome::Seen)
    } else if among(&MANY) && !scaled(op) {
        (Inputs::All, Outcome::Seen)
    } else if among(&COMPARES) {
        (Inputs::All, Outcome::Free)
    } else {
        return None;
    };
    Some(Rule { inputs, result })
}

/// A Gemm with factors, or of a transposed input, is no product with its bias.
fn scaled(op: &Op) -> bool {
    let factor = |name| op.float(name).is_some_and(|it| it != 1.0);
    op.is("Gemm") && (factor("alpha") || factor("beta") || op.int("transA").unwrap_or(0) != 0)
}

/// What the constant input `i` with so many dimensions is.
pub(super) fn constant(op: &Op, i: usize, rank: usize) -> Constant {
    match i {
        1 if op.is("Conv") => Constant::Weight(0),
        1 if op.is("Gemm") => Constant::Weight(usize::from(op.int("transB").unwrap_or(0) == 0)),
        1 if op.is("MatMul") && rank == 2 => Constant::Weight(1),
        1 if op.is("LayerNormalization") => Constant::Scale,
        2 if ["Conv", "Gemm", "LayerNormalization"]
            .iter()
            .any(|it| op.is(it)) =>
        {
            Constant::Bias
        }
        _ => Constant::Value,
    }
}
