//! The integers that shapes are computed with: `Shape → Gather → Concat → Reshape` chains, partly known.

use vitq_onnx::DataType;

use super::shape::{shape, shape_range, slice_range};
use super::size::product;
use super::{Call, Dim, Entry, MAX_VALUES, entries};

type Values = Option<Vec<Entry>>;

/// Elements of the output, where it is an integer or boolean scalar or vector.
pub(super) fn value(call: &Call, slot: usize) -> Values {
    let standard = matches!(call.op.message.domain(), "" | "ai.onnx");
    if slot > 0 || !standard {
        return None;
    }
    match call.op.op_type() {
        "Constant" => constant(call),
        "Shape" => {
            let dims = call.dims(0)?;
            Some(
                dims[shape_range(call, dims.len())?]
                    .iter()
                    .map(Entry::from)
                    .collect(),
            )
        }
        "Size" => Some(vec![Entry::from(&product(call.dims(0)?))]),
        "ReduceProd" if call.op.ints("axes").is_none_or(|a| a == [0]) => {
            let dims: Vec<Dim> = call.value(0)?.iter().map(Entry::to_dim).collect();
            Some(vec![Entry::from(&product(&dims))])
        }
        "Identity" | "Reshape" | "Squeeze" | "Unsqueeze" | "Flatten" | "Expand" => same(call),
        "Cast" => {
            let to = DataType::try_from(i32::try_from(call.op.int("to")?).ok()?).ok()?;
            // A negative or large number changes when it is narrowed; sizes do not.
            let kept = |e: &Entry| e.known().is_none_or(|v| i32::try_from(v).is_ok());
            let values = call.value(0)?;
            let exact = to == DataType::Int64 || to == DataType::Int32 && values.iter().all(kept);
            exact.then(|| values.to_vec())
        }
        "Gather" => gather(call),
        "Slice" => slice(call),
        "Concat" => {
            let parts: Option<Vec<_>> = (0..call.inputs.len()).map(|i| call.value(i)).collect();
            let values = parts?.concat();
            (values.len() <= MAX_VALUES).then_some(values)
        }
        "Where" => {
            let condition = call.value(0)?;
            zip(
                condition,
                &zip(call.value(1)?, call.value(2)?, |a, b| {
                    (a.clone(), b.clone())
                })?,
                choose,
            )
        }
        "ConstantOfShape" => fill(call),
        "Range" => range(call),
        "Add" => zip(call.value(0)?, call.value(1)?, |a, b| {
            arithmetic(a, b, 0, i64::checked_add)
        }),
        "Sub" => zip(call.value(0)?, call.value(1)?, |a, b| match b {
            Entry::Known(0) => a.clone(),
            _ => known(a, b, i64::checked_sub),
        }),
        "Mul" => zip(call.value(0)?, call.value(1)?, multiply),
        // Integer division cuts towards zero, as in C.
        "Div" => zip(call.value(0)?, call.value(1)?, |a, b| match b {
            Entry::Known(1) => a.clone(),
            _ => known(a, b, i64::checked_div),
        }),
        // The result has the sign of the divisor, as in Python (`fmod`: of the dividend).
        "Mod" if call.op.int("fmod").unwrap_or(0) == 0 => {
            zip(call.value(0)?, call.value(1)?, |a, b| known(a, b, modulo))
        }
        "Min" => zip(call.value(0)?, call.value(1)?, |a, b| {
            known(a, b, |x, y| Some(x.min(y)))
        }),
        "Max" => zip(call.value(0)?, call.value(1)?, |a, b| {
            known(a, b, |x, y| Some(x.max(y)))
        }),
        "Equal" => zip(call.value(0)?, call.value(1)?, equal),
        "Not" => Some(
            call.value(0)?
                .iter()
                .map(|e| map(e, |v| i64::from(v == 0)))
                .collect(),
        ),
        _ => None,
    }
}

fn constant(call: &Call) -> Values {
    let op = call.op;
    if let Some(value) = op.int("value_int") {
        return Some(vec![Entry::Known(value)]);
    }
    if op.attribute("value_ints").is_some() {
        return op
            .ints("value_ints")
            .map(|v| v.iter().copied().map(Entry::Known).collect());
    }
    let tensor = op
        .tensor("value")
        .filter(|t| t.dims.len() < 2 && t.len() <= MAX_VALUES)?;
    entries(&tensor)
}

/// The input's elements, where the output is a scalar or vector of as many.
fn same(call: &Call) -> Values {
    let values = call.value(0)?;
    let fits = match shape(call, 0)?[..] {
        [] => values.len() == 1,
        [Dim::Known(n)] => n == values.len(),
        _ => false,
    };
    fits.then(|| values.to_vec())
}

fn gather(call: &Call) -> Values {
    let [_] = call.dims(0)? else { return None };
    let values = call.value(0)?;
    let at = |i: i64| values.get(super::axis(i, values.len())?).cloned();
    call.ints(1)?.into_iter().map(at).collect()
}

fn slice(call: &Call) -> Values {
    let [_] = call.dims(0)? else { return None };
    let values = call.value(0)?;
    let first = |name: &str, i: usize| call.list(name, i).flatten()?.first().copied();
    let step = if call.has(4) {
        *call.ints(4)?.first()?
    } else {
        1
    };
    let (start, count) = slice_range(first("starts", 1)?, first("ends", 2)?, step, values.len())?;
    let at = |k: usize| {
        values
            .get(usize::try_from(start + step * k as i64).ok()?)
            .cloned()
    };
    (0..count).map(at).collect()
}

fn fill(call: &Call) -> Values {
    let count = match call.ints(0)?[..] {
        [] => 1,
        [n] => usize::try_from(n).ok().filter(|&n| n <= MAX_VALUES)?,
        _ => return None,
    };
    let value = entries(&call.op.tensor("value")?)?;
    Some(vec![value.first()?.clone(); count])
}

fn range(call: &Call) -> Values {
    let scalar = |i: usize| call.ints(i).filter(|v| v.len() == 1).map(|v| v[0]);
    let (start, limit, step) = (scalar(0)?, scalar(1)?, scalar(2)?);
    let span = limit.checked_sub(start)?;
    let count = match step {
        0 => return None,
        _ if (span > 0) != (step > 0) => 0,
        _ => usize::try_from(span.unsigned_abs().div_ceil(step.unsigned_abs())).ok()?,
    };
    (count <= MAX_VALUES).then(|| {
        (0..count)
            .map(|k| Entry::Known(start + step * k as i64))
            .collect()
    })
}

/// Elementwise over two vectors, one of which may be a scalar.
fn zip<A, B, C>(a: &[A], b: &[B], f: impl Fn(&A, &B) -> C) -> Option<Vec<C>> {
    match (a.len(), b.len()) {
        (1, _) => Some(b.iter().map(|b| f(&a[0], b)).collect()),
        (_, 1) => Some(a.iter().map(|a| f(a, &b[0])).collect()),
        (x, y) if x == y => Some(a.iter().zip(b).map(|(a, b)| f(a, b)).collect()),
        _ => None,
    }
}

fn modulo(a: i64, b: i64) -> Option<i64> {
    let rest = a.checked_rem(b)?;
    Some(if rest != 0 && (rest < 0) != (b < 0) {
        rest + b
    } else {
        rest
    })
}

fn map(entry: &Entry, f: impl Fn(i64) -> i64) -> Entry {
    entry.known().map_or(Entry::Unknown, |v| Entry::Known(f(v)))
}

fn known(a: &Entry, b: &Entry, f: impl Fn(i64, i64) -> Option<i64>) -> Entry {
    let result = || f(a.known()?, b.known()?);
    result().map_or(Entry::Unknown, Entry::Known)
}

fn arithmetic(a: &Entry, b: &Entry, neutral: i64, f: impl Fn(i64, i64) -> Option<i64>) -> Entry {
    match (a, b) {
        (Entry::Known(v), other) | (other, Entry::Known(v)) if *v == neutral => other.clone(),
        _ => known(a, b, f),
    }
}

fn multiply(a: &Entry, b: &Entry) -> Entry {
    match (a, b) {
        (Entry::Known(_), Entry::Known(_)) => known(a, b, i64::checked_mul),
        _ => Entry::from(&product([&a.to_dim(), &b.to_dim()])),
    }
}

fn equal(a: &Entry, b: &Entry) -> Entry {
    match (a, b) {
        // A size is never negative.
        (Entry::Symbol(_), Entry::Known(v)) | (Entry::Known(v), Entry::Symbol(_)) if *v < 0 => {
            Entry::Known(0)
        }
        (Entry::Symbol(x), Entry::Symbol(y)) if x == y => Entry::Known(1),
        _ => known(a, b, |x, y| Some(i64::from(x == y))),
    }
}

fn choose(condition: &Entry, (yes, no): &(Entry, Entry)) -> Entry {
    match condition {
        Entry::Known(0) => no.clone(),
        Entry::Known(_) => yes.clone(),
        _ if yes == no => yes.clone(),
        _ => Entry::Unknown,
    }
}
