//! Axes of an operator: an attribute in older operator sets, an input in newer ones.

use crate::infer::Shapes;
use crate::ir::{Graph, NodeId};

/// The operator's axes from 0 to the rank of its first input; `None` where unknown, left out, or wrong.
pub(super) fn axes(graph: &Graph, shapes: &Shapes, id: NodeId) -> Option<Vec<usize>> {
    let rank = shapes.rank(graph.input(id, 0)?)?;
    let list = match graph.op(id)?.ints("axes") {
        Some(list) => list.to_vec(),
        None => shapes.ints(graph.input(id, 1)?)?,
    };
    list.into_iter().map(|a| normal(a, rank)).collect()
}

/// Axis from -rank..rank to 0..rank.
pub(super) fn normal(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 {
        axis.checked_add(rank)?
    } else {
        axis
    };
    (0..rank).contains(&axis).then_some(axis as usize)
}

/// Whether the operator works along the last axis alone (also where the rank is not known and the file says -1).
pub(super) fn last_only(graph: &Graph, shapes: &Shapes, id: NodeId) -> bool {
    let attribute = graph.op(id).and_then(|op| op.ints("axes"));
    let list = attribute
        .map(<[i64]>::to_vec)
        .or_else(|| shapes.ints(graph.input(id, 1)?));
    if list.is_some_and(|l| l == [-1]) {
        return true;
    }
    let rank = graph.input(id, 0).and_then(|x| shapes.rank(x));
    matches!((axes(graph, shapes, id).as_deref(), rank), (Some([a]), Some(rank)) if a + 1 == rank)
}
