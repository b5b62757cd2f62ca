//! ```text
//! c = Sub(x, ReduceMean(x))                                      LayerNormalization<axis = -1, epsilon = ε>(x, γ, β)
//! Add(Mul(Div(c, Sqrt(Add(ReduceMean(Pow(c, 2)), ε))), γ), β) →
//! ```
//!
//! Over the last axis, `c·c` for `Pow(c, 2)`, a reciprocal for the division, γ and β in either order or absent; the
//! variance as mean(x²) - mean(x)² too (JAX), and the affine part inside the division ([`scaled`]: Keras).
//! Needs operator set 17: the model is raised to it, or the rule declines with the operator that hinders.

mod moments;
mod scaled;

use vitq_onnx::{DataType, Tensor};

use super::{Report, scalar, sibling_name, upgrade};
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
        .filter_map(|id| find(graph, shapes, id).or_else(|| scaled::find(graph, shapes, id)))
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
    moments::mean_of(graph, shapes, mean, x)?;
    let epsilon = moments::deviation_of(graph, shapes, deviation, x)?;
    let channels = channels(shapes, x)?;
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

/// The width of the last axis of a float32 value.
fn channels(shapes: &Shapes, x: Outlet) -> Option<usize> {
    if shapes.dtype(x) != Some(DataType::Float) {
        return None;
    }
    shapes.of(x)?.last().and_then(Dim::known)
}

/// `Div(c, s)`, `Mul(c, Reciprocal(s))` or `Mul(c, Div(1, s))` as (c, s).
fn quotient(graph: &Graph, id: NodeId) -> Option<(Outlet, Outlet)> {
    let (a, b) = (graph.input(id, 0)?, graph.input(id, 1)?);
    if graph.is(id, "Div") {
        return Some((a, b));
    }
    let first = || Some((b, inverted(graph, a)?));
    let second = || Some((a, inverted(graph, b)?));
    if graph.is(id, "Mul") {
        second().or_else(first)
    } else {
        None
    }
}

/// `Reciprocal(s)` or `Div(1, s)` as s.
fn inverted(graph: &Graph, value: Outlet) -> Option<Outlet> {
    if graph.is(value.node, "Reciprocal") {
        return graph.input(value.node, 0);
    }
    let (one, s) = operands(graph, value, "Div")?;
    (scalar(graph, one)?.0 == 1.0).then_some(s)
}

fn operands(graph: &Graph, value: Outlet, op_type: &str) -> Option<(Outlet, Outlet)> {
    let found = graph.is(value.node, op_type);
    if found {
        Some((graph.input(value.node, 0)?, graph.input(value.node, 1)?))
    } else {
        None
    }
}

/// Whether a value is a float32 constant with one element a channel.
fn is_vector(graph: &Graph, value: Outlet, channels: usize) -> bool {
    let dims = graph.constant_dims(value).unwrap_or_default();
    let vector = dims.last() == Some(&channels) && dims.iter().product::<usize>() == channels;
    let stored = graph.initializer(value).map(|t| t.data_type());
    vector && dims.len() < 4 && stored == Some(DataType::Float as i32)
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
    is_vector(graph, constant, channels).then_some((
        constant,
        Outlet {
            node: reader.node,
            slot: 0,
        },
    ))
}
