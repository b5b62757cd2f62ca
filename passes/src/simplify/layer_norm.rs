//! ```text
//! c = Sub(x, ReduceMean(x))                                      LayerNormalization<axis = -1, epsilon = ε>(x, γ, β)
//! Add(Mul(Div(c, Sqrt(Add(ReduceMean(Pow(c, 2)), ε))), γ), β) →
//! ```
//!
//! Over the last axis, `c·c` for `Pow(c, 2)`, a reciprocal for the division, γ and β in either order or absent.
//! Needs operator set 17: the model is raised to it, or the rule declines with the operator that hinders.

use vitq_onnx::{DataType, Tensor};

use super::{Report, axes, scalar, sibling_name, upgrade};
use crate::infer::{Dim, Shapes};
use crate::ir::{Graph, NodeId, Op, Outlet, Slot};

/// Operator set that brought LayerNormalization.
const OPSET: i64 = 17;

/// A normalisation as it was found.
struct Found {
    x: Outlet,
    epsilon: f32,
    gamma: Option<Outlet>,
    beta: Option<Outlet>,
    channels: usize,
    /// The last value of the chain.
    end: Outlet,
}

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, report: &mut Report) -> usize {
    let ids: Vec<NodeId> = graph.topological().unwrap_or_default();
    let found: Vec<Found> = ids
        .into_iter()
        .filter_map(|id| find(graph, shapes, id))
        .collect();
    if found.is_empty() {
        return 0;
    }
    if let Err(error) = upgrade::to(graph, OPSET) {
        report.decline(format!(
            "{} LayerNormalizations stay in parts: {error}",
            found.len()
        ));
        return 0;
    }
    for norm in &found {
        replace(graph, norm);
    }
    found.len()
}

fn replace(graph: &mut Graph, norm: &Found) {
    let name = sibling_name(&graph.label(norm.end.node), "LayerNormalization");
    let mut parameter = |value: Option<Outlet>, base: &str, neutral: f32| {
        let dims = [norm.channels];
        match value {
            // A vector of that length may be shaped [1, 1, C].
            Some(value) => match graph.tensor(value).filter(|t| t.dims != dims) {
                Some(tensor) => {
                    let base = graph.name(value).to_owned();
                    graph.add_initializer(
                        &base,
                        &Tensor {
                            dims: dims.to_vec(),
                            ..tensor
                        },
                    )
                }
                None => value,
            },
            None => graph.add_initializer(
                &format!("{name}/{base}"),
                &Tensor::from_f32(&dims, &vec![neutral; norm.channels]),
            ),
        }
    };
    let (gamma, beta) = (
        parameter(norm.gamma, "scale", 1.0),
        parameter(norm.beta, "bias", 0.0),
    );
    let op = Op::new("LayerNormalization", &name)
        .with_int("axis", -1)
        .with_float("epsilon", norm.epsilon);
    let value = graph.insert_op(op, &[norm.x, gamma, beta]);
    graph.supersede(norm.end, value);
}

/// The normalisation whose quotient is node `id`.
fn find(graph: &Graph, shapes: &Shapes, id: NodeId) -> Option<Found> {
    let (centred, deviation) = quotient(graph, id)?;
    let (x, mean) = operands(graph, centred, "Sub")?;
    mean_of(graph, shapes, mean, x)?;
    let (variance, epsilon) = with_epsilon(graph, deviation)?;
    let square = reduced(graph, shapes, variance)?;
    centred_square(graph, shapes, square, x)?;
    if shapes.dtype(x) != Some(DataType::Float) {
        return None;
    }
    let Dim::Known(channels) = *shapes.of(x)?.last()? else {
        return None;
    };
    let mut norm = Found {
        x,
        epsilon,
        gamma: None,
        beta: None,
        channels,
        end: Outlet { node: id, slot: 0 },
    };
    if let Some((gamma, end)) = next_affine(graph, norm.end, "Mul", channels) {
        (norm.gamma, norm.end) = (Some(gamma), end);
    }
    if let Some((beta, end)) = next_affine(graph, norm.end, "Add", channels) {
        (norm.beta, norm.end) = (Some(beta), end);
    }
    Some(norm)
}

/// `Div(c, s)`, `Mul(c, Reciprocal(s))` or `Mul(c, Div(1, s))` as (c, s).
fn quotient(graph: &Graph, id: NodeId) -> Option<(Outlet, Outlet)> {
    let (a, b) = (graph.input(id, 0)?, graph.input(id, 1)?);
    if graph.is(id, "Div") {
        return Some((a, b));
    }
    let inverted = |value: Outlet| {
        if graph.is(value.node, "Reciprocal") {
            return graph.input(value.node, 0);
        }
        let (one, s) = operands(graph, value, "Div")?;
        (scalar(graph, one)?.0 == 1.0).then_some(s)
    };
    let is_mul = graph.is(id, "Mul");
    let first = || Some((b, inverted(a)?));
    let second = || Some((a, inverted(b)?));
    if is_mul {
        second().or_else(first)
    } else {
        None
    }
}

fn operands(graph: &Graph, value: Outlet, op_type: &str) -> Option<(Outlet, Outlet)> {
    let found = graph.is(value.node, op_type);
    if found {
        Some((graph.input(value.node, 0)?, graph.input(value.node, 1)?))
    } else {
        None
    }
}

/// The operand of a mean over the last axis that keeps it.
fn reduced(graph: &Graph, shapes: &Shapes, value: Outlet) -> Option<Outlet> {
    let op = graph.op(value.node).filter(|op| op.is("ReduceMean"))?;
    let kept = op.int("keepdims") != Some(0);
    (kept && axes::last_only(graph, shapes, value.node)).then(|| graph.input(value.node, 0))?
}

fn mean_of(graph: &Graph, shapes: &Shapes, mean: Outlet, x: Outlet) -> Option<()> {
    (reduced(graph, shapes, mean)? == x).then_some(())
}

/// `Sqrt(Add(variance, ε))` as (variance, ε); also `Pow(…, 0.5)`.
fn with_epsilon(graph: &Graph, deviation: Outlet) -> Option<(Outlet, f32)> {
    let sum = match operands(graph, deviation, "Pow") {
        Some((base, power)) if scalar(graph, power)?.0 == 0.5 => base,
        _ if graph.is(deviation.node, "Sqrt") => graph.input(deviation.node, 0)?,
        _ => return None,
    };
    let (a, b) = operands(graph, sum, "Add")?;
    match scalar(graph, b) {
        Some((epsilon, _)) => Some((a, epsilon)),
        None => Some((b, scalar(graph, a)?.0)),
    }
}

/// Whether `square` is `(x - mean(x))²`; the difference may be computed a second time.
fn centred_square(graph: &Graph, shapes: &Shapes, square: Outlet, x: Outlet) -> Option<()> {
    let centred = match (
        operands(graph, square, "Pow"),
        operands(graph, square, "Mul"),
    ) {
        (Some((base, power)), _) if scalar(graph, power)?.0 == 2.0 => base,
        (_, Some((a, b))) if a == b => a,
        _ => return None,
    };
    let (minuend, mean) = operands(graph, centred, "Sub")?;
    (minuend == x).then(|| mean_of(graph, shapes, mean, x))?
}

/// The operator of that type that alone reads `value`, with its constant vector: (constant, result).
fn next_affine(
    graph: &Graph,
    value: Outlet,
    op_type: &str,
    channels: usize,
) -> Option<(Outlet, Outlet)> {
    let reader = graph.only_reader(value)?;
    let Slot::Input(i) = reader.slot else {
        return None;
    };
    if !graph.is(reader.node, op_type) {
        return None;
    }
    let constant = graph.input(reader.node, 1 - i)?;
    let dims = graph.constant_dims(constant)?;
    let vector = dims.last() == Some(&channels) && dims.iter().product::<usize>() == channels;
    let float = graph.initializer(constant)?.data_type() == DataType::Float as i32;
    (vector && float && dims.len() < 4).then_some((
        constant,
        Outlet {
            node: reader.node,
            slot: 0,
        },
    ))
}
