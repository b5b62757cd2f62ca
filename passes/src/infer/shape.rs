//! Shapes, operator by operator.

use super::size::{broadcast, product, quotient};
use super::{Call, Dim, Entry, axes, axis, dtype};

type Dims = Option<Vec<Dim>>;

/// Shape of output `slot`.
pub(super) fn shape(call: &Call, slot: usize) -> Dims {
    let op = call.op;
    if !matches!(op.message.domain(), "" | "ai.onnx") {
        return dtype::contrib(op.op_type())
            .then(|| call.dims(0).map(<[Dim]>::to_vec))
            .flatten();
    }
    match op.op_type() {
        "LayerNormalization" | "BatchNormalization" | "MaxPool" if slot > 0 => None,
        "Abs"
        | "BatchNormalization"
        | "Cast"
        | "CastLike"
        | "Ceil"
        | "Celu"
        | "Clip"
        | "CumSum"
        | "DequantizeLinear"
        | "Dropout"
        | "Elu"
        | "Erf"
        | "Exp"
        | "Floor"
        | "Gelu"
        | "GroupNormalization"
        | "HardSigmoid"
        | "HardSwish"
        | "Identity"
        | "InstanceNormalization"
        | "LayerNormalization"
        | "LeakyRelu"
        | "Log"
        | "LogSoftmax"
        | "LpNormalization"
        | "Mish"
        | "Neg"
        | "Not"
        | "PRelu"
        | "QuantizeLinear"
        | "Reciprocal"
        | "Relu"
        | "RMSNormalization"
        | "Round"
        | "Selu"
        | "Sigmoid"
        | "Sign"
        | "Sin"
        | "Cos"
        | "Softmax"
        | "Softplus"
        | "Softsign"
        | "Sqrt"
        | "Swish"
        | "Tanh"
        | "ScatterElements"
        | "ScatterND"
        | "ThresholdedRelu"
        | "Trilu" => call.dims(0).map(<[Dim]>::to_vec),
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Mod" | "Min" | "Max" | "Sum" | "Mean"
        | "Equal" | "Greater" | "GreaterOrEqual" | "Less" | "LessOrEqual" | "And" | "Or"
        | "Xor" | "Where" => broadcast_all(call),
        "Constant" => constant(call),
        "ConstantOfShape" => Some(call.value(0)?.iter().map(Entry::to_dim).collect()),
        "Shape" => shape_of_shape(call),
        "Size" => Some(Vec::new()),
        "MatMul" | "MatMulInteger" => matmul(call.dims(0)?, call.dims(1)?),
        "Gemm" => gemm(call),
        "Conv" => conv(call),
        "AveragePool" | "MaxPool" => pool(call),
        "GlobalAveragePool" | "GlobalMaxPool" => {
            let dims = call.dims(0)?;
            Some(
                dims.iter()
                    .enumerate()
                    .map(|(i, d)| if i < 2 { d.clone() } else { Dim::Known(1) })
                    .collect(),
            )
        }
        "Transpose" => transpose(call),
        "Reshape" => reshape(call),
        "Flatten" => flatten(call),
        "Squeeze" => squeeze(call),
        "Unsqueeze" => unsqueeze(call),
        "Concat" => concat(call),
        "Split" => split(call, slot),
        "Slice" => slice(call),
        "Gather" => gather(call),
        "GatherElements" => call.dims(1).map(<[Dim]>::to_vec),
        "Expand" => {
            let target: Vec<Dim> = call.value(1)?.iter().map(Entry::to_dim).collect();
            Some(broadcast(call.dims(0)?, &target))
        }
        "Tile" => {
            let repeats = call.value(1)?;
            let dims = call.dims(0)?;
            let tiled = |(d, r): (&Dim, &Entry)| product([d, &r.to_dim()]);
            (repeats.len() == dims.len()).then(|| dims.iter().zip(repeats).map(tiled).collect())
        }
        "Pad" => pad(call),
        "Range" => Some(vec![
            super::values::value(call, 0).map_or(Dim::Unknown, |v| Dim::Known(v.len())),
        ]),
        "Attention" if slot == 0 => attention(call),
        name if name.starts_with("Reduce") => reduce(call),
        "ArgMax" | "ArgMin" => {
            let dims = call.dims(0)?;
            let axis = axis(call.op.int("axis").unwrap_or(0), dims.len())?;
            Some(reduced(dims, &[axis], call.op.int("keepdims") != Some(0)))
        }
        _ => None,
    }
}

fn broadcast_all(call: &Call) -> Dims {
    let mut dims = Vec::new();
    for i in 0..call.inputs.len() {
        dims = broadcast(&dims, call.dims(i)?);
    }
    Some(dims)
}

fn constant(call: &Call) -> Dims {
    let op = call.op;
    if let Some(tensor) = op.tensor("value") {
        return Some(tensor.dims.into_iter().map(Dim::Known).collect());
    }
    if op.attribute("value_int").is_some() || op.attribute("value_float").is_some() {
        return Some(Vec::new());
    }
    let floats = op.attribute("value_floats").map(|a| a.floats.len());
    Some(vec![Dim::Known(
        floats.or_else(|| op.ints("value_ints").map(<[i64]>::len))?,
    )])
}

/// `start..end` of `Shape`, clamped as the operator says.
pub(super) fn shape_range(call: &Call, rank: usize) -> Option<std::ops::Range<usize>> {
    let limit = i64::try_from(rank).ok()?;
    let clamp = |v: i64| (if v < 0 { v.saturating_add(limit) } else { v }).clamp(0, limit) as usize;
    let start = clamp(call.op.int("start").unwrap_or(0));
    Some(start..clamp(call.op.int("end").unwrap_or(limit)).max(start))
}

fn shape_of_shape(call: &Call) -> Dims {
    let range = shape_range(call, call.dims(0)?.len())?;
    Some(vec![Dim::Known(range.len())])
}

fn matmul(a: &[Dim], b: &[Dim]) -> Dims {
    let (rows, batch_a) = match a {
        [] => return None,
        [_] => (None, &a[..0]),
        [batch @ .., rows, _] => (Some(rows), batch),
    };
    let (columns, batch_b) = match b {
        [] => return None,
        [_] => (None, &b[..0]),
        [batch @ .., _, columns] => (Some(columns), batch),
    };
    let mut dims = broadcast(batch_a, batch_b);
    dims.extend(rows.cloned());
    dims.extend(columns.cloned());
    Some(dims)
}

fn gemm(call: &Call) -> Dims {
    let [a0, a1] = call.dims(0)? else { return None };
    let [b0, b1] = call.dims(1)? else { return None };
    let on = |name| call.op.int(name).unwrap_or(0) != 0;
    Some(vec![
        if on("transA") { a1 } else { a0 }.clone(),
        if on("transB") { b0 } else { b1 }.clone(),
    ])
}

/// `(in + pads - dilation·(kernel - 1) - 1) / stride + 1`, for each spatial axis.
fn windows(call: &Call, dims: &[Dim], kernel: &[i64]) -> Dims {
    let op = call.op;
    let get = |name: &str, i: usize, default: i64| match op.ints(name) {
        Some(list) if !list.is_empty() => list.get(i).copied(),
        _ => Some(default),
    };
    let n = kernel.len();
    let same = op
        .string("auto_pad")
        .unwrap_or("NOTSET")
        .starts_with("SAME");
    let ceil = op.int("ceil_mode").unwrap_or(0) != 0;
    let out = |i: usize| {
        let size = i64::try_from(dims.get(i)?.known()?).ok()?;
        let stride = get("strides", i, 1)?;
        if stride <= 0 {
            return None;
        }
        if same {
            return usize::try_from(size.checked_add(stride - 1)? / stride).ok();
        }
        let pads = get("pads", i, 0)?.checked_add(get("pads", i + n, 0)?)?;
        let extent = get("dilations", i, 1)?
            .checked_mul(kernel[i].checked_sub(1)?)?
            .checked_add(1)?;
        let free = size.checked_add(pads)?.checked_sub(extent)?;
        let steps = if ceil {
            free.checked_add(stride - 1)? / stride
        } else {
            free / stride
        };
        if free < 0 {
            None
        } else {
            usize::try_from(steps + 1).ok()
        }
    };
    Some(
        (0..n)
            .map(|i| out(i).map_or(Dim::Unknown, Dim::Known))
            .collect(),
    )
}

fn conv(call: &Call) -> Dims {
    let (dims, weight) = (call.dims(0)?, call.dims(1)?);
    if dims.len() != weight.len() || dims.len() < 3 {
        return None;
    }
    let kernel: Option<Vec<i64>> = weight[2..]
        .iter()
        .map(|d| i64::try_from(d.known()?).ok())
        .collect();
    let spatial = match kernel {
        Some(kernel) => windows(call, &dims[2..], &kernel)?,
        None => vec![Dim::Unknown; dims.len() - 2],
    };
    Some(
        [dims[0].clone(), weight[0].clone()]
            .into_iter()
            .chain(spatial)
            .collect(),
    )
}

fn pool(call: &Call) -> Dims {
    let dims = call.dims(0)?;
    let kernel = call.op.ints("kernel_shape")?;
    if dims.len() != kernel.len() + 2 {
        return None;
    }
    let spatial = windows(call, &dims[2..], kernel)?;
    Some(dims[..2].iter().cloned().chain(spatial).collect())
}

fn transpose(call: &Call) -> Dims {
    let dims = call.dims(0)?;
    match call.op.ints("perm") {
        None => Some(dims.iter().rev().cloned().collect()),
        Some(perm) if perm.len() == dims.len() => axes(perm, dims.len())?
            .into_iter()
            .map(|p| dims.get(p).cloned())
            .collect(),
        Some(_) => None,
    }
}

fn reshape(call: &Call) -> Dims {
    let Some(target) = call.value(1) else {
        // The number of dimensions is known even where no entry is.
        return match call.dims(1)? {
            [Dim::Known(n)] if *n <= 8 => Some(vec![Dim::Unknown; *n]),
            _ => None,
        };
    };
    let source = call.dims(0);
    let zero_copies = call.op.int("allowzero").unwrap_or(0) == 0;
    let mut dims: Vec<Dim> = Vec::with_capacity(target.len());
    let mut open = None;
    for (i, entry) in target.iter().enumerate() {
        dims.push(match entry {
            Entry::Known(0) if zero_copies => source
                .and_then(|s| s.get(i))
                .cloned()
                .unwrap_or(Dim::Unknown),
            Entry::Known(-1) if open.is_none() => {
                open = Some(i);
                Dim::Known(1)
            }
            entry => entry.to_dim(),
        });
    }
    // One unknown entry is as good as -1: the number of elements decides it.
    let unknown: Vec<usize> = (0..dims.len())
        .filter(|&i| dims[i] == Dim::Unknown)
        .collect();
    let open = match (open, &unknown[..]) {
        (Some(i), []) | (None, &[i]) => Some(i),
        (Some(i), _) => {
            dims[i] = Dim::Unknown;
            None
        }
        _ => None,
    };
    if let Some(i) = open {
        dims[i] = Dim::Known(1);
        dims[i] = source.map_or(Dim::Unknown, |s| quotient(s, &dims));
    }
    Some(dims)
}

fn flatten(call: &Call) -> Dims {
    let dims = call.dims(0)?;
    let at = call.op.int("axis").unwrap_or(1);
    let at = if usize::try_from(at) == Ok(dims.len()) {
        dims.len()
    } else {
        axis(at, dims.len())?
    };
    Some(vec![product(&dims[..at]), product(&dims[at..])])
}

fn squeeze(call: &Call) -> Dims {
    let dims = call.dims(0)?;
    let keep: Vec<bool> = match call.list("axes", 1)? {
        Some(list) => {
            let axes = axes(&list, dims.len())?;
            (0..dims.len()).map(|i| !axes.contains(&i)).collect()
        }
        None => dims
            .iter()
            .map(|d| Some(d.known()? != 1))
            .collect::<Option<_>>()?,
    };
    Some(
        dims.iter()
            .zip(keep)
            .filter(|(_, keep)| *keep)
            .map(|(d, _)| d.clone())
            .collect(),
    )
}

fn unsqueeze(call: &Call) -> Dims {
    let dims = call.dims(0)?;
    let list = call.list("axes", 1)??;
    let rank = dims.len() + list.len();
    let axes = axes(&list, rank)?;
    let mut rest = dims.iter();
    let one = |i: usize| {
        if axes.contains(&i) {
            Some(Dim::Known(1))
        } else {
            rest.next().cloned()
        }
    };
    (0..rank).map(one).collect()
}

fn concat(call: &Call) -> Dims {
    let first = call.dims(0)?;
    let axis = axis(call.op.int("axis")?, first.len())?;
    let mut dims = first.to_vec();
    for i in 1..call.inputs.len() {
        let other = call.dims(i)?;
        if other.len() != dims.len() {
            return None;
        }
        for (a, (dim, other)) in dims.iter_mut().zip(other).enumerate() {
            match (&dim, other) {
                (Dim::Known(x), Dim::Known(y)) if a == axis => {
                    *dim = x.checked_add(*y).map_or(Dim::Unknown, Dim::Known)
                }
                _ if a == axis => *dim = Dim::Unknown,
                (Dim::Unknown, _) | (Dim::Symbol(_), Dim::Known(_)) => *dim = other.clone(),
                _ => {}
            }
        }
    }
    Some(dims)
}

fn split(call: &Call, slot: usize) -> Dims {
    let mut dims = call.dims(0)?.to_vec();
    let axis = axis(call.op.int("axis").unwrap_or(0), dims.len())?;
    let parts = call.op.outputs.len();
    dims[axis] = match call.list("split", 1) {
        Some(Some(sizes)) => usize::try_from(*sizes.get(slot)?).map_or(Dim::Unknown, Dim::Known),
        Some(None) => match dims[axis] {
            Dim::Known(size) => {
                let chunk = size.div_ceil(parts);
                Dim::Known(chunk.min(size.saturating_sub(chunk * slot)))
            }
            _ => Dim::Unknown,
        },
        None => Dim::Unknown,
    };
    Some(dims)
}

/// First, last (exclusive) and step of a slice over `size` elements, and how many it takes.
pub(super) fn slice_range(start: i64, end: i64, step: i64, size: usize) -> Option<(i64, usize)> {
    let size = i64::try_from(size).ok()?;
    if size == 0 {
        return Some((0, 0));
    }
    let clamp = |v: i64, low: i64, high: i64| {
        (if v < 0 { v.saturating_add(size) } else { v }).clamp(low, high)
    };
    let (start, span) = match step {
        0 => return None,
        1.. => {
            let start = clamp(start, 0, size);
            (start, clamp(end, 0, size) - start)
        }
        _ => {
            let start = clamp(start, 0, size - 1);
            (start, start - clamp(end, -1, size - 1))
        }
    };
    let step = step.unsigned_abs();
    let count = u64::try_from(span).map_or(0, |span| span.div_ceil(step));
    Some((start, usize::try_from(count).ok()?))
}

fn slice(call: &Call) -> Dims {
    let mut dims = call.dims(0)?.to_vec();
    let rank = dims.len();
    let (Some(starts), Some(ends)) = (
        call.list("starts", 1).flatten(),
        call.list("ends", 2).flatten(),
    ) else {
        return Some(vec![Dim::Unknown; rank]);
    };
    let list = call
        .list("axes", 3)?
        .unwrap_or_else(|| (0..starts.len() as i64).collect());
    let steps = if call.has(4) {
        call.ints(4)?
    } else {
        vec![1; starts.len()]
    };
    let axes = axes(&list, rank)?;
    for (k, &a) in axes.iter().enumerate() {
        let (start, end, step) = (*starts.get(k)?, *ends.get(k)?, *steps.get(k)?);
        let whole = start == 0 && end >= i64::from(i32::MAX) && step == 1;
        dims[a] = match &dims[a] {
            Dim::Known(size) => Dim::Known(slice_range(start, end, step, *size)?.1),
            dim if whole => dim.clone(),
            _ => Dim::Unknown,
        };
    }
    Some(dims)
}

fn gather(call: &Call) -> Dims {
    let (data, indices) = (call.dims(0)?, call.dims(1)?);
    let axis = axis(call.op.int("axis").unwrap_or(0), data.len())?;
    Some(
        data[..axis]
            .iter()
            .chain(indices)
            .chain(&data[axis + 1..])
            .cloned()
            .collect(),
    )
}

fn pad(call: &Call) -> Dims {
    let dims = call.dims(0)?;
    let pads = call.list("pads", 1)??;
    let list = if call.has(3) {
        call.ints(3)?
    } else {
        (0..dims.len() as i64).collect()
    };
    let axes = axes(&list, dims.len())?;
    let mut padded = dims.to_vec();
    for (k, &a) in axes.iter().enumerate() {
        let more = pads.get(k)?.checked_add(*pads.get(k + axes.len())?)?;
        padded[a] = match &dims[a] {
            dim if more == 0 => dim.clone(),
            Dim::Known(size) => Dim::Known(size.checked_add_signed(isize::try_from(more).ok()?)?),
            _ => Dim::Unknown,
        };
    }
    Some(padded)
}

fn reduced(dims: &[Dim], axes: &[usize], keep: bool) -> Vec<Dim> {
    let one = |(i, d): (usize, &Dim)| match (axes.contains(&i), keep) {
        (false, _) => Some(d.clone()),
        (true, true) => Some(Dim::Known(1)),
        (true, false) => None,
    };
    dims.iter().enumerate().filter_map(one).collect()
}

fn reduce(call: &Call) -> Dims {
    let dims = call.dims(0)?;
    let all: Vec<usize> = (0..dims.len()).collect();
    let axes = match call.list("axes", 1)? {
        Some(list) if !list.is_empty() => axes(&list, dims.len())?,
        _ if call.op.int("noop_with_empty_axes").unwrap_or(0) != 0 => return Some(dims.to_vec()),
        _ => all,
    };
    Some(reduced(dims, &axes, call.op.int("keepdims") != Some(0)))
}

/// Standard Attention (opset 23) with as many heads of keys as of queries.
fn attention(call: &Call) -> Dims {
    let (query, value) = (call.dims(0)?, call.dims(2)?);
    if call.op.int("q_num_heads") != call.op.int("kv_num_heads") || query.len() != value.len() {
        return None;
    }
    let mut dims = query.to_vec();
    *dims.last_mut()? = value.last()?.clone();
    Some(dims)
}
