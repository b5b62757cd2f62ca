//! Operators that move values and compute none.

use candle_core::{Device, Result, Tensor, bail};

use super::call::{Call, axis};
use super::{Integers, Value, one};

pub fn evaluate(call: &Call<'_>) -> Result<Vec<Value>> {
    if let Some(Value::Integers(x)) = call.operands.first().copied().flatten() {
        return integers(call, x);
    }
    let op = call.op;
    let x = call.float(0);
    let tensor = match op.op_type() {
        "Shape" => {
            let dims = x?.dims().iter().map(|&d| d as i64).collect();
            return Ok(vec![Value::Integers(Integers::list(dims))]);
        }
        "Transpose" => transpose(call, x?)?,
        "Reshape" => reshape(call, x?)?,
        "Flatten" => flatten(call, x?)?,
        "Squeeze" => squeeze(call, x?)?,
        "Unsqueeze" => unsqueeze(call, x?)?,
        "Expand" => expand(call, x?)?,
        "Concat" => concat(call)?,
        "Tile" => tile(call, x?)?,
        "Gather" => gather(call, x?)?,
        "Slice" => slice(call, x?)?,
        "Split" => return split(call, x?),
        "Pad" => pad(call, x?)?,
        other => bail!("learning knows no gradient of {other}"),
    };
    Ok(one(tensor))
}

fn transpose(call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    let turned = || (0..x.rank()).rev().collect();
    let perm = call.op.ints("perm");
    let perm = perm.map_or_else(turned, |p| {
        p.iter()
            .map(|&a| usize::try_from(a).unwrap_or(usize::MAX))
            .collect::<Vec<_>>()
    });
    x.permute(perm)?.contiguous()
}

fn reshape(call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    let Some(shape) = call.integers(1)? else {
        bail!("Reshape without a shape")
    };
    let keeps_zero = call.op.int("allowzero") == Some(1);
    let mut dims = Vec::with_capacity(shape.values.len());
    for (i, &d) in shape.values.iter().enumerate() {
        dims.push(match d {
            0 if !keeps_zero => x.dims().get(i).copied().unwrap_or(0),
            d => usize::try_from(d).unwrap_or(0),
        });
    }
    if let Some(open) = shape.values.iter().position(|&d| d == -1) {
        dims[open] = 1;
        let others: usize = dims.iter().product();
        dims[open] = x.elem_count() / others.max(1);
    }
    x.contiguous()?.reshape(dims)
}

fn flatten(call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    let at = axis(call.op.int("axis").unwrap_or(1), x.rank() + 1)?;
    let before: usize = x.dims()[..at].iter().product();
    x.contiguous()?
        .reshape((before, x.elem_count() / before.max(1)))
}

fn squeeze(call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    let ones = || {
        let all = x.dims().iter().enumerate();
        all.filter(|(_, d)| **d == 1)
            .map(|(i, _)| i as i64)
            .collect()
    };
    let axes = call.list("axes", 1)?.unwrap_or_else(ones);
    let mut axes = axes
        .into_iter()
        .map(|a| axis(a, x.rank()))
        .collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    axes.into_iter()
        .rev()
        .try_fold(x.clone(), |x, axis| x.squeeze(axis))
}

fn unsqueeze(call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    let axes = call.list("axes", 1)?.unwrap_or_default();
    let rank = x.rank() + axes.len();
    let mut axes = axes
        .into_iter()
        .map(|a| axis(a, rank))
        .collect::<Result<Vec<_>>>()?;
    axes.sort_unstable();
    axes.into_iter()
        .try_fold(x.clone(), |x, axis| x.unsqueeze(axis))
}

fn expand(call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    let Some(shape) = call.integers(1)? else {
        bail!("Expand without a shape")
    };
    let wanted: Vec<usize> = shape
        .values
        .iter()
        .map(|&d| usize::try_from(d).unwrap_or(1))
        .collect();
    let shape = x
        .shape()
        .broadcast_shape_binary_op(&wanted.into(), "expand")?;
    x.broadcast_as(shape)?.contiguous()
}

fn concat(call: &Call<'_>) -> Result<Tensor> {
    let parts = (0..call.operands.len())
        .map(|i| call.float(i))
        .collect::<Result<Vec<_>>>()?;
    let rank = parts.first().map_or(0, |t| t.rank());
    Tensor::cat(&parts, axis(call.op.int("axis").unwrap_or(0), rank)?)
}

fn tile(call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    let Some(repeats) = call.integers(1)? else {
        bail!("Tile without repeats")
    };
    let repeats: Vec<usize> = repeats
        .values
        .iter()
        .map(|&r| usize::try_from(r).unwrap_or(0))
        .collect();
    x.repeat(repeats)
}

fn gather(call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    let at = axis(call.op.int("axis").unwrap_or(0), x.rank())?;
    let Some(places) = call.integers(1)? else {
        bail!("Gather without indices")
    };
    let size = x.dim(at)? as i64;
    let counted = places
        .values
        .iter()
        .map(|&i| if i < 0 { i + size } else { i });
    let counted = counted
        .map(|i| u32::try_from(i).ok().filter(|&i| i64::from(i) < size))
        .collect::<Option<Vec<_>>>();
    let Some(counted) = counted else {
        bail!("Gather beyond the end")
    };
    let taken = match counted[..] {
        [place] => x.narrow(at, place as usize, 1)?,
        _ => x
            .contiguous()?
            .index_select(&Tensor::new(&counted[..], x.device())?, at)?,
    };
    let mut dims = x.dims()[..at].to_vec();
    dims.extend(&places.dims);
    dims.extend(&x.dims()[at + 1..]);
    taken.contiguous()?.reshape(dims)
}

fn slice(call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    let (starts, ends) = (call.list("starts", 1)?, call.list("ends", 2)?);
    let (Some(starts), Some(ends)) = (starts, ends) else {
        bail!("Slice without bounds")
    };
    let axes = call
        .list("axes", 3)?
        .unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = call.integers(4)?.map(|it| it.values.clone());
    let mut x = x.clone();
    for (i, (&start, &end)) in starts.iter().zip(&ends).enumerate() {
        let at = axis(axes.get(i).copied().unwrap_or(i as i64), x.rank())?;
        let step = steps.as_ref().and_then(|s| s.get(i).copied()).unwrap_or(1);
        x = cut(&x, at, (start, end, step))?;
    }
    Ok(x)
}

fn pad(call: &Call<'_>, x: &Tensor) -> Result<Tensor> {
    let Some(pads) = call.list("pads", 1)? else {
        bail!("Pad without pads")
    };
    let axes = call.integers(3)?.map(|it| it.values.clone());
    let axes = axes.unwrap_or_else(|| (0..x.rank() as i64).collect());
    let value = call.optional_floats(2)?.and_then(|v| v.first().copied());
    let value = value.or(call.op.float("value")).unwrap_or(0.0);
    let mode = call.op.string("mode").unwrap_or("constant");
    let mut x = x.clone();
    for (i, &a) in axes.iter().enumerate() {
        let at = axis(a, x.rank())?;
        let (Some(&before), Some(&after)) = (pads.get(i), pads.get(i + axes.len())) else {
            bail!("Pad has {} pads for {} axes", pads.len(), axes.len())
        };
        x = match mode {
            "constant" => pad_with(&x, at, (before, after), value)?,
            _ => mirrored(
                &cut_off(&x, at, (before, after))?,
                at,
                (before, after),
                mode,
            )?,
        };
    }
    Ok(x)
}

/// With so many of a value before and behind an axis; less than nothing is cut off.
pub fn pad_with(x: &Tensor, at: usize, (before, after): (i64, i64), value: f32) -> Result<Tensor> {
    let x = cut_off(x, at, (before, after))?;
    let some = |count: i64| {
        let mut dims = x.dims().to_vec();
        dims[at] = count as usize;
        Tensor::full(value, dims, x.device())
    };
    let mut parts = Vec::new();
    if before > 0 {
        parts.push(some(before)?);
    }
    parts.push(x.clone());
    if after > 0 {
        parts.push(some(after)?);
    }
    match parts.len() {
        1 => Ok(x),
        _ => Tensor::cat(&parts, at),
    }
}

/// Without what lies before and behind, where a pad is less than nothing.
fn cut_off(x: &Tensor, at: usize, (before, after): (i64, i64)) -> Result<Tensor> {
    let size = x.dim(at)? as i64;
    cut(x, at, (0.max(-before), size + after.min(0), 1))
}

/// With values of its own around it.
fn mirrored(x: &Tensor, at: usize, (before, after): (i64, i64), mode: &str) -> Result<Tensor> {
    let (before, after) = (before.max(0), after.max(0));
    if before == 0 && after == 0 {
        return Ok(x.clone());
    }
    let size = x.dim(at)? as i64;
    let place = |i: i64| match mode {
        "edge" => Ok(i.clamp(0, size - 1)),
        "wrap" => Ok(i.rem_euclid(size)),
        "reflect" => {
            let turn = (2 * (size - 1)).max(1);
            let there = i.rem_euclid(turn);
            Ok(there.min(turn - there).min(size - 1))
        }
        other => bail!("Pad knows no mode {other}"),
    };
    let places = (-before..size + after).map(|i| Ok(place(i)? as u32));
    let places = places.collect::<Result<Vec<u32>>>()?;
    x.contiguous()?
        .index_select(&Tensor::new(&places[..], x.device())?, at)
}

/// A Slice along one axis.
pub fn cut(x: &Tensor, at: usize, (start, end, step): (i64, i64, i64)) -> Result<Tensor> {
    let size = x.dim(at)? as i64;
    let counted = |i: i64| if i < 0 { i.saturating_add(size) } else { i };
    if step == 1 {
        let (start, end) = (counted(start).clamp(0, size), counted(end).clamp(0, size));
        return x.narrow(at, start as usize, (end - start).max(0) as usize);
    }
    let (low, high) = if step > 0 { (0, size) } else { (-1, size - 1) };
    let end = if step < 0 && end < -size {
        -1
    } else {
        counted(end)
    };
    let (mut place, end) = (counted(start).clamp(low, high), end.clamp(low, high));
    let mut places = Vec::new();
    while step > 0 && place < end || step < 0 && place > end {
        places.push(place as u32);
        place += step;
    }
    x.contiguous()?
        .index_select(&Tensor::new(&places[..], x.device())?, at)
}

fn split(call: &Call<'_>, x: &Tensor) -> Result<Vec<Value>> {
    let at = axis(call.op.int("axis").unwrap_or(0), x.rank())?;
    let size = x.dim(at)?;
    let count = call.op.outputs.len().max(1);
    let even = || {
        let part = size.div_ceil(count);
        (0..count)
            .map(|i| part.min(size - part * i) as i64)
            .collect()
    };
    let parts = call.list("split", 1)?.unwrap_or_else(even);
    let mut start = 0;
    let mut values = Vec::with_capacity(parts.len());
    for part in parts {
        let part = usize::try_from(part).unwrap_or(0);
        values.push(Value::Float(x.narrow(at, start, part)?));
        start += part;
    }
    Ok(values)
}

/// The few operators on integers that inference leaves open.
fn integers(call: &Call<'_>, x: &Integers) -> Result<Vec<Value>> {
    let dims = match call.op.op_type() {
        "Identity" => x.dims.clone(),
        "Unsqueeze" | "Squeeze" | "Reshape" => {
            let tensor = Tensor::from_vec(x.values.clone(), x.dims.clone(), &Device::Cpu)?;
            let shaped = match call.op.op_type() {
                "Unsqueeze" => unsqueeze(call, &tensor),
                "Squeeze" => squeeze(call, &tensor),
                _ => reshape(call, &tensor),
            };
            shaped?.dims().to_vec()
        }
        other => bail!("learning does not follow {other} on integers"),
    };
    Ok(vec![Value::Integers(Integers {
        values: x.values.clone(),
        dims,
    })])
}
