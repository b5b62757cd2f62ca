//! ```text
//! Identity(x), Dropout(x), Cast(x) to its own type        →  x
//! x·1, x/1, x+0, x-0                                      →  x
//! Reshape, Transpose, Expand, Slice … that change nothing →  x
//! ```
//!
//! Declines Dropout whose mask is read or that trains, and constants that would widen `x`.

use vitq_onnx::DataType;

use super::{Report, bypass};
use crate::infer::{Dim, Shapes};
use crate::ir::{Graph, NodeId, Op, Outlet};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let mut fired = 0;
    for id in graph.topological().unwrap_or_default() {
        let Some(source) = graph.op(id).and_then(|op| source(graph, shapes, id, op)) else {
            continue;
        };
        fired += usize::from(bypass(graph, Outlet { node: id, slot: 0 }, source));
    }
    fired
}

/// The value that the operator passes on unchanged.
fn source(graph: &Graph, shapes: &Shapes, id: NodeId, op: &Op) -> Option<Outlet> {
    if !matches!(op.message.domain(), "" | "ai.onnx") {
        return None;
    }
    let x = graph.input(id, 0)?;
    let value = Outlet { node: id, slot: 0 };
    let unchanged = match op.op_type() {
        "Identity" => true,
        "Dropout" => dropout(graph, shapes, id, op),
        "Cast" => {
            let to = op
                .int("to")
                .and_then(|t| i32::try_from(t).ok())
                .and_then(|t| DataType::try_from(t).ok());
            to.is_some() && to == shapes.dtype(x)
        }
        "Mul" => return neutral(graph, shapes, id, 1.0, true),
        "Add" => return neutral(graph, shapes, id, 0.0, true),
        "Div" => return neutral(graph, shapes, id, 1.0, false),
        "Sub" => return neutral(graph, shapes, id, 0.0, false),
        "Transpose" => op
            .ints("perm")
            .is_some_and(|p| p.iter().enumerate().all(|(i, &p)| p == i as i64)),
        "Concat" => graph.node_inputs(id).len() == 1,
        "Split" => op.outputs.len() == 1,
        // No element moves or vanishes: equal shapes mean equal values.
        "Reshape" | "Flatten" | "Expand" | "Tile" | "Pad" | "Squeeze" | "Unsqueeze" => {
            same_shape(shapes, x, value)
        }
        "Slice" => same_shape(shapes, x, value) && forwards(graph, shapes, id),
        _ => false,
    };
    unchanged.then_some(x)
}

/// In inference, its mask unread.
fn dropout(graph: &Graph, shapes: &Shapes, id: NodeId, op: &Op) -> bool {
    let mask = Outlet { node: id, slot: 1 };
    let read = op.outputs.len() > 1 && (!graph.readers(mask).is_empty() || graph.is_output(mask));
    let trains = graph
        .input(id, 2)
        .is_some_and(|mode| shapes.ints(mode).as_deref() != Some(&[0]));
    !read && !trains
}

/// The other operand, if one is the neutral element and does not widen it.
fn neutral(
    graph: &Graph,
    shapes: &Shapes,
    id: NodeId,
    element: f32,
    commutes: bool,
) -> Option<Outlet> {
    let (a, b) = (graph.input(id, 0)?, graph.input(id, 1)?);
    let value = Outlet { node: id, slot: 0 };
    let passes = |x: Outlet, constant: Outlet| {
        let elements = graph.constant_dims(constant)?.iter().product::<usize>();
        // Only scalars and vectors of a layer are looked into, no weights.
        let tensor = graph
            .tensor(constant)
            .filter(|t| elements <= 65536 && t.dtype.is_float())?;
        let all = tensor.to_f32().ok()?.iter().all(|&v| v == element);
        (all && (tensor.dims.is_empty() || same_shape(shapes, x, value))).then_some(x)
    };
    passes(a, b).or_else(|| if commutes { passes(b, a) } else { None })
}

fn same_shape(shapes: &Shapes, a: Outlet, b: Outlet) -> bool {
    match (shapes.of(a), shapes.of(b)) {
        (Some(a), Some(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b): (&Dim, &Dim)| a.same(b))
        }
        _ => false,
    }
}

/// Whether all steps of a Slice are one.
fn forwards(graph: &Graph, shapes: &Shapes, id: NodeId) -> bool {
    graph.input(id, 4).is_none_or(|steps| {
        shapes
            .ints(steps)
            .is_some_and(|s| s.iter().all(|&s| s == 1))
    })
}
