//! ONNX operators by candle's.

use candle_core::{Result, Tensor, bail};
use vitq_passes::ir::Op;

use super::call::{Call, axis};
use super::constants::floats_on;
use super::{Value, conv, einsum, layer_norm, normalise, one, resize, scatter, shaping, windows};
use crate::learn::backend::Backend;

/// Results of an operator.
pub fn evaluate(op: &Op, operands: &[Option<&Value>], backend: &Backend) -> Result<Vec<Value>> {
    let call = Call {
        op,
        operands,
        backend,
    };
    let x = || call.float(0);
    let tensor = match op.op_type() {
        "Add" => binary(&call, Tensor::add, Tensor::broadcast_add)?,
        "Sub" => binary(&call, Tensor::sub, Tensor::broadcast_sub)?,
        "Mul" => binary(&call, Tensor::mul, Tensor::broadcast_mul)?,
        "Div" => binary(&call, Tensor::div, Tensor::broadcast_div)?,
        "Max" => binary(&call, |a, b| a.maximum(b), Tensor::broadcast_maximum)?,
        "Min" => binary(&call, |a, b| a.minimum(b), Tensor::broadcast_minimum)?,
        "Pow" => x()?.powf(f64::from(call.scalar(1)?))?,
        "Sqrt" => x()?.sqrt()?,
        "Neg" => x()?.neg()?,
        "Abs" => x()?.abs()?,
        "Exp" => x()?.exp()?,
        "Log" => x()?.log()?,
        "Reciprocal" => x()?.recip()?,
        "Erf" => x()?.erf()?,
        "Tanh" => x()?.tanh()?,
        "Sin" => x()?.sin()?,
        "Cos" => x()?.cos()?,
        "Relu" => x()?.relu()?,
        "Sigmoid" => sigmoid(x()?)?,
        "QuickGelu" => {
            let x = x()?;
            let slope = f64::from(op.float("alpha").unwrap_or(1.702));
            (x * sigmoid(&(x * slope)?)?)?
        }
        "HardSigmoid" => hard_sigmoid(
            x()?,
            op.float("alpha").unwrap_or(0.2),
            op.float("beta").unwrap_or(0.5),
        )?,
        "HardSwish" => (x()? * hard_sigmoid(x()?, 1.0 / 6.0, 0.5)?)?,
        "Clip" => clip(&call)?,
        "Gelu" if op.string("approximate") != Some("tanh") => backend.kernels.gelu(x()?)?,
        "Gelu" => x()?.gelu()?,
        "Identity" | "Dropout" => x()?.clone(),
        "Cast" => return cast(&call),
        "MatMul" => matmul(x()?, call.float(1)?)?,
        "Softmax" => softmax(&call)?,
        "LayerNormalization" | "RMSNormalization" => {
            layer_norm(backend.kernels, op, x()?, &call.norm()?)?
        }
        "ReduceMean" => reduce(&call, |x, axes| x.mean_keepdim(axes))?,
        "ReduceSum" => reduce(&call, |x, axes| x.sum_keepdim(axes))?,
        "ReduceL2" => reduce(&call, |x, axes| x.sqr()?.sum_keepdim(axes)?.sqrt())?,
        "ReduceMax" => reduce(&call, |x, axes| {
            fold(x, axes, |x, axis| x.max_keepdim(axis))
        })?,
        "GlobalAveragePool" => x()?.mean_keepdim((2..x()?.rank()).collect::<Vec<_>>())?,
        "Conv" => conv::conv(&call)?,
        "ConvTranspose" => conv::conv_transpose(&call)?,
        "AveragePool" => windows::average_pool(&call)?,
        "MaxPool" => windows::max_pool(&call)?,
        "BatchNormalization" => normalise::batch(&call)?,
        "InstanceNormalization" => normalise::instance(&call)?,
        "Resize" => resize::resize(&call)?,
        "Einsum" => einsum::einsum(&call)?,
        "ScatterND" => scatter::scatter_nd(&call)?,
        "Where" => select(&call)?,
        _ => return shaping::evaluate(&call),
    };
    Ok(one(tensor))
}

fn binary(
    call: &Call<'_>,
    same: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
    broadcast: impl Fn(&Tensor, &Tensor) -> Result<Tensor>,
) -> Result<Tensor> {
    let (a, b) = (call.float(0)?, call.float(1)?);
    if a.dims() == b.dims() {
        return same(a, b);
    }
    broadcast(a, b)
}

fn sigmoid(x: &Tensor) -> Result<Tensor> {
    (x.neg()?.exp()? + 1.0)?.recip()
}

fn hard_sigmoid(x: &Tensor, slope: f32, offset: f32) -> Result<Tensor> {
    x.affine(f64::from(slope), f64::from(offset))?
        .clamp(0f32, 1f32)
}

fn clip(call: &Call<'_>) -> Result<Tensor> {
    let bound = |name: &str, i: usize, none: f32| match call.op.float(name) {
        Some(value) => Result::Ok(value),
        None => Ok(call
            .optional_floats(i)?
            .and_then(|v| v.first().copied())
            .unwrap_or(none)),
    };
    let (low, high) = (bound("min", 1, f32::MIN)?, bound("max", 2, f32::MAX)?);
    call.float(0)?.clamp(low, high)
}

fn cast(call: &Call<'_>) -> Result<Vec<Value>> {
    use vitq_onnx::DataType;
    let to = call
        .op
        .int("to")
        .and_then(|to| DataType::try_from(i32::try_from(to).ok()?).ok());
    match (call.operands.first().copied().flatten(), to) {
        (Some(Value::Float(x)), Some(DataType::Float)) => Ok(one(x.clone())),
        (Some(Value::Integers(x)), Some(DataType::Float)) => {
            let values: Vec<f32> = x.values.iter().map(|&v| v as f32).collect();
            Ok(one(floats_on(values, &x.dims, call.backend)?))
        }
        (Some(Value::Integers(x)), Some(_)) => Ok(vec![Value::Integers(x.clone())]),
        _ => bail!("Cast from float to integers has no gradient"),
    }
}

/// With leading axes broadcast; they are one axis to candle, which takes no more than four in all.
pub fn matmul(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    if a.rank() <= 3 && b.rank() <= 3 {
        return a.contiguous()?.broadcast_matmul(&b.contiguous()?);
    }
    let leading = |x: &Tensor| candle_core::Shape::from(&x.dims()[..x.rank().saturating_sub(2)]);
    let shared = leading(a).broadcast_shape_binary_op(&leading(b), "matmul")?;
    let flat = |x: &Tensor| {
        let (rows, columns) = (
            x.dim(candle_core::D::Minus2)?,
            x.dim(candle_core::D::Minus1)?,
        );
        let mut dims = shared.dims().to_vec();
        dims.extend([rows, columns]);
        x.broadcast_as(dims)?
            .contiguous()?
            .reshape(((), rows, columns))
    };
    let y = flat(a)?.matmul(&flat(b)?)?;
    let mut dims = shared.into_dims();
    dims.extend(&y.dims()[1..]);
    y.reshape(dims)
}

fn softmax(call: &Call<'_>) -> Result<Tensor> {
    let x = call.float(0)?;
    let over = axis(call.op.int("axis").unwrap_or(-1), x.rank())?;
    let last = x.rank() - 1;
    if over == last {
        return call.backend.kernels.softmax(x);
    }
    let turned = call.backend.kernels.softmax(&x.transpose(over, last)?)?;
    turned.transpose(over, last)
}

fn reduce(call: &Call<'_>, by: impl Fn(&Tensor, Vec<usize>) -> Result<Tensor>) -> Result<Tensor> {
    let x = call.float(0)?;
    let axes = call
        .list("axes", 1)?
        .unwrap_or_else(|| (0..x.rank() as i64).collect());
    let mut axes = axes
        .into_iter()
        .map(|a| axis(a, x.rank()))
        .collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    let mut reduced = by(x, axes.clone())?;
    if call.op.int("keepdims") == Some(0) {
        for &axis in axes.iter().rev() {
            reduced = reduced.squeeze(axis)?;
        }
    }
    Ok(reduced)
}

fn fold(
    x: &Tensor,
    axes: Vec<usize>,
    by: impl Fn(&Tensor, usize) -> Result<Tensor>,
) -> Result<Tensor> {
    axes.into_iter().try_fold(x.clone(), |x, axis| by(&x, axis))
}

fn select(call: &Call<'_>) -> Result<Tensor> {
    let Some(condition) = call.integers(0)? else {
        bail!("Where without a condition")
    };
    let values: Vec<u8> = condition.values.iter().map(|&v| u8::from(v != 0)).collect();
    let condition = Tensor::from_vec(values, condition.dims.clone(), &call.backend.device)?;
    let (a, b) = (call.float(1)?, call.float(2)?);
    let shape = condition
        .shape()
        .broadcast_shape_binary_op(a.shape(), "where")?
        .broadcast_shape_binary_op(b.shape(), "where")?;
    condition.broadcast_as(&shape)?.contiguous()?.where_cond(
        &a.broadcast_as(&shape)?.contiguous()?,
        &b.broadcast_as(&shape)?.contiguous()?,
    )
}
