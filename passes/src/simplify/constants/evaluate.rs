//! Operators on constants.

use vitq_onnx::{DataType, Tensor};

use super::layout;
use crate::ir::Op;
use crate::simplify::axes::normal;

/// A result may have as many elements as its largest input, or this many.
const FREE: usize = 4096;

/// The result of an operator on constants; `dims` is its shape, where inference knows it.
pub(super) fn evaluate(op: &Op, inputs: &[Tensor], dims: Option<Vec<usize>>) -> Option<Tensor> {
    let first = inputs.first()?;
    let dims = dims?;
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    if count > inputs.iter().map(Tensor::len).max()?.max(FREE) {
        return None;
    }
    match op.op_type() {
        "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" => (count == first.len())
            .then(|| Tensor {
                dims,
                ..first.clone()
            }),
        "Transpose" => transpose(op, first, &dims),
        "Expand" => layout::expand(first, &dims),
        "Gather" => {
            let axis = normal(op.int("axis").unwrap_or(0), first.dims.len())?;
            layout::gather(first, axis, inputs.get(1)?)
        }
        "Concat" => layout::concat(inputs, normal(op.int("axis")?, first.dims.len())?),
        "Slice" => slice(op, inputs, &dims),
        "ConstantOfShape" => {
            let value = op
                .tensor("value")
                .unwrap_or_else(|| Tensor::from_f32(&[1], &[0.0]));
            layout::expand(
                &Tensor {
                    dims: Vec::new(),
                    ..value
                },
                &dims,
            )
        }
        "Cast" => cast(
            first,
            DataType::try_from(i32::try_from(op.int("to")?).ok()?).ok()?,
        ),
        name => arithmetic(name, inputs, &dims),
    }
}

fn transpose(op: &Op, tensor: &Tensor, dims: &[usize]) -> Option<Tensor> {
    let rank = tensor.dims.len();
    let perm: Vec<usize> = match op.ints("perm") {
        Some(perm) => perm
            .iter()
            .map(|&p| normal(p, rank))
            .collect::<Option<_>>()?,
        None => (0..rank).rev().collect(),
    };
    let strides = layout::strides(&tensor.dims);
    let steps: Vec<isize> = perm.into_iter().map(|p| strides[p]).collect();
    (steps.len() == dims.len()).then(|| layout::view(tensor, 0, &steps, dims))?
}

fn slice(op: &Op, inputs: &[Tensor], dims: &[usize]) -> Option<Tensor> {
    let tensor = &inputs[0];
    let list = |name: &str, i: usize| match op.ints(name) {
        Some(list) => Some(list.to_vec()),
        None => inputs.get(i)?.to_i64().ok(),
    };
    let starts = list("starts", 1)?;
    let axes = list("axes", 3).unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = list("steps", 4).unwrap_or_else(|| vec![1; starts.len()]);
    let mut strides = layout::strides(&tensor.dims);
    let mut offset = 0;
    for (k, &axis) in axes.iter().enumerate() {
        let axis = normal(axis, tensor.dims.len())?;
        let size = i64::try_from(tensor.dims[axis]).ok()?;
        let start = *starts.get(k)?;
        let start = if start < 0 {
            start.saturating_add(size)
        } else {
            start
        };
        // The number of elements is known from inference; only the first of them is looked for here.
        let first = start.clamp(
            0,
            if steps[k] < 0 {
                (size - 1).max(0)
            } else {
                size
            },
        );
        offset += isize::try_from(first).ok()? * strides[axis];
        strides[axis] = strides[axis].checked_mul(isize::try_from(*steps.get(k)?).ok()?)?;
    }
    layout::view(tensor, offset, &strides, dims)
}

fn cast(tensor: &Tensor, to: DataType) -> Option<Tensor> {
    let dims = &tensor.dims;
    if tensor.dtype == to {
        return Some(tensor.clone());
    }
    let integer = tensor.dtype.is_integer() || tensor.dtype == DataType::Bool;
    match to {
        DataType::Float => Some(Tensor::from_f32(dims, &tensor.to_f32().ok()?)),
        DataType::Int64 if integer => Some(Tensor::from_i64(dims, &tensor.to_i64().ok()?)),
        // Towards zero; what lies outside the range is undefined in ONNX.
        DataType::Int64 if tensor.dtype == DataType::Float => {
            let values: Vec<i64> = tensor
                .to_f32()
                .ok()?
                .into_iter()
                .map(|v| v as i64)
                .collect();
            Some(Tensor::from_i64(dims, &values))
        }
        DataType::Int32 if integer => {
            let values: Result<Vec<i32>, _> = tensor
                .to_i64()
                .ok()?
                .into_iter()
                .map(i32::try_from)
                .collect();
            Some(Tensor::from_i32(dims, &values.ok()?))
        }
        DataType::Bool if integer => {
            let values: Vec<bool> = tensor.to_i64().ok()?.into_iter().map(|v| v != 0).collect();
            Some(Tensor::from_bool(dims, &values))
        }
        _ => None,
    }
}

/// Elementwise operators on float.
fn arithmetic(name: &str, inputs: &[Tensor], dims: &[usize]) -> Option<Tensor> {
    if inputs.iter().any(|t| t.dtype != DataType::Float) {
        return None;
    }
    let operand = |i: usize| layout::expand(inputs.get(i)?, dims)?.to_f32().ok();
    let unary: Option<fn(f32) -> f32> = match name {
        "Sqrt" => Some(f32::sqrt),
        "Reciprocal" => Some(|v| 1.0 / v),
        "Neg" => Some(|v| -v),
        "Abs" => Some(f32::abs),
        _ => None,
    };
    if let Some(f) = unary {
        let values: Vec<f32> = operand(0)?.into_iter().map(f).collect();
        return Some(Tensor::from_f32(dims, &values));
    }
    let binary: fn(f32, f32) -> f32 = match (name, inputs.len()) {
        ("Add", 2) => |a, b| a + b,
        ("Sub", 2) => |a, b| a - b,
        ("Mul", 2) => |a, b| a * b,
        ("Div", 2) => |a, b| a / b,
        ("Pow", 2) => f32::powf,
        _ => return None,
    };
    let values: Vec<f32> = operand(0)?
        .into_iter()
        .zip(operand(1)?)
        .map(|(a, b)| binary(a, b))
        .collect();
    Some(Tensor::from_f32(dims, &values))
}
