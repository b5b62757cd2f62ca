//! Element types.

use vitq_onnx::DataType;

use super::Call;

/// Element type of output `slot`.
pub(super) fn dtype(call: &Call, slot: usize) -> Option<DataType> {
    let op = call.op;
    let of = |i: usize| call.inputs.get(i).and_then(|f| f.dtype);
    if !matches!(op.message.domain(), "" | "ai.onnx") {
        return contrib(op.op_type()).then(|| of(0)).flatten();
    }
    match op.op_type() {
        "MatMulInteger" => Some(DataType::Int32),
        "Cast" => DataType::try_from(i32::try_from(op.int("to")?).ok()?).ok(),
        "Shape" | "Size" | "ArgMax" | "ArgMin" | "NonZero" => Some(DataType::Int64),
        "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or" | "Xor"
        | "Not" | "IsNaN" | "IsInf" => Some(DataType::Bool),
        "Where" => of(1).or_else(|| of(2)),
        "CastLike" => of(1),
        "DequantizeLinear" => of(1),
        "QuantizeLinear" => match call.inputs.len() {
            0..=2 => Some(DataType::Uint8),
            _ => of(2),
        },
        "Constant" => match op.attribute("value") {
            Some(_) => op.tensor("value").map(|t| t.dtype),
            None => constant(op),
        },
        "ConstantOfShape" => match op.attribute("value") {
            Some(_) => op.tensor("value").map(|t| t.dtype),
            None => Some(DataType::Float),
        },
        "Dropout" if slot == 1 => Some(DataType::Bool),
        "TopK" | "MaxPool" if slot == 1 => Some(DataType::Int64),
        // Their bodies or attributes decide; a declared type tells.
        "If" | "Loop" | "Scan" | "EyeLike" | "RandomNormal" | "RandomUniform" | "Bernoulli"
        | "Multinomial" => None,
        _ => of(0).or_else(|| of(1)),
    }
}

fn constant(op: &crate::ir::Op) -> Option<DataType> {
    let ints = op
        .attribute("value_int")
        .or_else(|| op.attribute("value_ints"))
        .map(|_| DataType::Int64);
    let floats = op
        .attribute("value_float")
        .or_else(|| op.attribute("value_floats"));
    ints.or_else(|| floats.map(|_| DataType::Float))
}

/// Operators of ONNX Runtime whose results are of their first input's type and shape.
pub(super) fn contrib(op_type: &str) -> bool {
    matches!(op_type, "Gelu" | "FastGelu" | "QuickGelu" | "BiasGelu")
}
