//! Which operators leave every channel (the last axis) what it was, so that a scale per channel passes through.

use super::view::View;
use crate::ir::{NodeId, Outlet};

/// What becomes of the channels behind an operator.
pub(super) enum Keep {
    /// These results have the same channels.
    Values(Vec<Outlet>),
    /// Only the shape is looked at.
    OnlyShape,
    /// The operator mixes, drops or computes with them.
    No(&'static str),
}

const CHANGES: &str = "which is neither a Linear nor a choice of tokens";
const SELECTS: &str = "which selects or moves channels";
const UNKNOWN: &str = "whose effect on the channels is unknown, as its shape is";

/// What operator `node` does to the channels of its input `slot`.
pub(super) fn kept(view: &View, node: NodeId, slot: usize) -> Keep {
    let (Some(op), Some(x)) = (view.graph.op(node), view.graph.input(node, 0)) else {
        return Keep::No(CHANGES);
    };
    let result = Outlet { node, slot: 0 };
    let last = match op.op_type() {
        "Shape" | "Size" => return Keep::OnlyShape,
        _ if slot != 0 => return Keep::No(CHANGES),
        "Identity" => Some(false),
        "Gather" => view.is_last_axis(x, op.int("axis").unwrap_or(0)),
        "Split" => view.is_last_axis(x, op.int("axis").unwrap_or(0)),
        "Slice" => slice(view, node, x),
        "Squeeze" => any_last(view, x, view.integers(node, "axes", 1)),
        "Unsqueeze" => any_last(view, result, view.integers(node, "axes", 1)),
        // A mean over tokens is as good as one token: its weights sum to one, so shifts pass through too.
        "ReduceMean" => any_last(view, x, view.integers(node, "axes", 1)),
        "Transpose" => op
            .ints("perm")
            .map(|p| p.last() != Some(&(p.len() as i64 - 1))),
        "Flatten" | "Reshape" => same_last(view, x, node).map(|same| !same),
        _ => return Keep::No(CHANGES),
    };
    match last {
        Some(false) => Keep::Values(view.outputs(node).collect()),
        Some(true) => Keep::No(SELECTS),
        None => Keep::No(UNKNOWN),
    }
}

/// Whether one of the axes is the last one of `value`.
fn any_last(view: &View, value: Outlet, axes: Option<Vec<i64>>) -> Option<bool> {
    axes?.into_iter().try_fold(false, |any, axis| {
        Some(any | view.is_last_axis(value, axis)?)
    })
}

/// Whether a Slice cuts the last axis.
fn slice(view: &View, node: NodeId, x: Outlet) -> Option<bool> {
    let axes = match view.integers(node, "axes", 3) {
        Some(axes) => axes,
        None if view.graph.input(node, 3).is_none() => {
            (0..view.integers(node, "starts", 1)?.len() as i64).collect()
        }
        None => return None,
    };
    any_last(view, x, Some(axes))
}

/// Whether a Reshape keeps the last axis: an element's channel is its flat index modulo the size of that axis.
fn same_last(view: &View, x: Outlet, node: NodeId) -> Option<bool> {
    let stated = view
        .integers(node, "shape", 1)
        .and_then(|shape| usize::try_from(*shape.last()?).ok())
        .filter(|&size| size > 0);
    let after = stated.or_else(|| view.last_dim(Outlet { node, slot: 0 }))?;
    Some(view.last_dim(x)? == after)
}
