//! Which operators leave every channel what it was, so that a scale and a shift per channel pass through: where the
//! axis of the channels goes.
//!
//! ```text
//! [batch, tokens, C] ── Transpose<perm = [0, 2, 1]> ── Reshape ──► [batch, C, h, w] ── GlobalAveragePool ──► …
//!                 ↑ axis 0 from the end                       ↑ axis 2 from the end
//! ```

use super::view::View;
use crate::ir::{NodeId, Op, Outlet};

/// The axis of the channels, counted from the end: 0 is the last.
pub(super) type FromEnd = usize;

/// What becomes of the channels behind an operator.
pub(super) enum Keep {
    /// These results have the same channels, there.
    Values(Vec<Outlet>, FromEnd),
    /// The result has the same channels there, if all its inputs have.
    Joined(Outlet, FromEnd),
    /// Only the shape is looked at.
    OnlyShape,
    /// The operator mixes, drops or computes with them.
    No(&'static str),
}

/// A Concat whose other inputs are something else.
pub(super) const JOINS: &str = "which joins it with other values";
const CHANGES: &str = "which is neither a Linear nor a choice of tokens";
const SELECTS: &str = "which selects or moves channels";
const UNKNOWN: &str = "whose effect on the channels is unknown, as its shape is";

/// What operator `node` does to the channels on `axis` of its input `slot`.
pub(super) fn kept(view: &View, node: NodeId, slot: usize, axis: FromEnd) -> Keep {
    let (Some(op), Some(x)) = (view.graph.op(node), view.graph.input(node, 0)) else {
        return Keep::No(CHANGES);
    };
    let result = Outlet { node, slot: 0 };
    let place = Place { view, axis };
    let after = match op.op_type() {
        "Shape" | "Size" => return Keep::OnlyShape,
        "Concat" => {
            return match place.beside(x, op.int("axis")) {
                Some(true) => Keep::Joined(result, axis),
                Some(false) => Keep::No(SELECTS),
                None => Keep::No(UNKNOWN),
            };
        }
        _ if slot != 0 => return Keep::No(CHANGES),
        "Identity" => Some(Some(axis)),
        "Gather" => place.gather(node, op, x),
        "Split" => place
            .beside(x, Some(op.int("axis").unwrap_or(0)))
            .map(|beside| beside.then_some(axis)),
        "Slice" => place.slice(node, x),
        "Squeeze" => place.without(x, view.integers(node, "axes", 1)),
        "Unsqueeze" => place.widened(result, view.integers(node, "axes", 1)),
        // Shifts pass through a mean, whose weights sum to one, and through an extremum, as r is positive.
        "ReduceMean" | "ReduceMax" | "ReduceMin" => place.reduced(node, op, x),
        "GlobalAveragePool" | "GlobalMaxPool" => place
            .beside(x, Some(1))
            .map(|beside| (!beside).then_some(axis)),
        "Transpose" => place.transposed(op),
        "Flatten" | "Reshape" => place.reshaped(x, node),
        _ => return Keep::No(CHANGES),
    };
    match after {
        Some(Some(axis)) => Keep::Values(view.outputs(node).collect(), axis),
        Some(None) => Keep::No(SELECTS),
        None => Keep::No(UNKNOWN),
    }
}

/// Where the channels are. Its functions give the axis behind an operator; `Some(None)` where the operator works on
/// the channels themselves, `None` where that cannot be known.
struct Place<'v, 'g> {
    view: &'v View<'g>,
    axis: FromEnd,
}

type After = Option<Option<FromEnd>>;

impl Place<'_, '_> {
    /// An axis of a value, counted from the end.
    fn counted(&self, value: Outlet, axis: i64) -> Option<FromEnd> {
        if axis < 0 {
            return usize::try_from(-1 - axis).ok();
        }
        let rank = self.view.rank(value)?;
        rank.checked_sub(1 + usize::try_from(axis).ok()?)
    }

    fn counted_all(&self, value: Outlet, axes: &[i64]) -> Option<Vec<FromEnd>> {
        axes.iter().map(|&a| self.counted(value, a)).collect()
    }

    /// Whether an axis of a value is another than the channels'.
    fn beside(&self, value: Outlet, axis: Option<i64>) -> Option<bool> {
        Some(self.counted(value, axis?)? != self.axis)
    }

    fn gather(&self, node: NodeId, op: &Op, x: Outlet) -> After {
        let from = self.counted(x, op.int("axis").unwrap_or(0))?;
        if from == self.axis {
            return Some(None);
        }
        if from > self.axis {
            return Some(Some(self.axis));
        }
        let indices = self.view.rank(self.view.graph.input(node, 1)?)?;
        Some(Some(self.axis - 1 + indices))
    }

    fn slice(&self, node: NodeId, x: Outlet) -> After {
        let axes = match self.view.integers(node, "axes", 3) {
            Some(axes) => axes,
            None if self.view.graph.input(node, 3).is_none() => {
                (0..self.view.integers(node, "starts", 1)?.len() as i64).collect()
            }
            None => return None,
        };
        let cut = self.counted_all(x, &axes)?;
        Some((!cut.contains(&self.axis)).then_some(self.axis))
    }

    /// Without these axes of `x`.
    fn without(&self, x: Outlet, axes: Option<Vec<i64>>) -> After {
        let gone = self.counted_all(x, &axes?)?;
        if gone.contains(&self.axis) {
            return Some(None);
        }
        let behind = gone.iter().filter(|&&a| a < self.axis).count();
        Some(Some(self.axis - behind))
    }

    fn reduced(&self, node: NodeId, op: &Op, x: Outlet) -> After {
        let after = self.without(x, self.view.integers(node, "axes", 1))?;
        let keeps = op.int("keepdims") != Some(0);
        Some(after.map(|gone| if keeps { self.axis } else { gone }))
    }

    /// With these new axes of `result`.
    fn widened(&self, result: Outlet, axes: Option<Vec<i64>>) -> After {
        let new = self.counted_all(result, &axes?)?;
        let old = (0..=self.axis + new.len()).filter(|a| !new.contains(a));
        Some(Some(old.take(self.axis + 1).last()?))
    }

    fn transposed(&self, op: &Op) -> After {
        let perm = op.ints("perm")?;
        let front = perm.len().checked_sub(1 + self.axis)? as i64;
        let at = perm.iter().rposition(|&p| p == front)?;
        Some(Some(perm.len() - 1 - at))
    }

    /// Elements keep their order, so the channels stay an axis if one of that size has as many elements behind it.
    fn reshaped(&self, x: Outlet, node: NodeId) -> After {
        let before = self.view.dims(x);
        let dim = |from_end: usize| before.as_ref()?.iter().rev().nth(from_end).copied()?;
        let channels = dim(self.axis)?;
        let behind = (0..self.axis).map(dim).product::<Option<usize>>()?;
        let after = self
            .view
            .dims(Outlet { node, slot: 0 })
            .or_else(|| self.stated(node))?;
        let mut elements = 1;
        for (from_end, dim) in after.iter().rev().enumerate() {
            let size = (*dim)?;
            if elements == behind && size == channels {
                return Some(Some(from_end));
            }
            elements *= size;
            if elements > behind {
                break;
            }
        }
        Some(None)
    }

    /// The shape that a Reshape asks for, where it is a constant.
    fn stated(&self, node: NodeId) -> Option<Vec<Option<usize>>> {
        let shape = self.view.integers(node, "shape", 1)?;
        let size = |s: i64| usize::try_from(s).ok().filter(|&s| s > 0);
        Some(shape.into_iter().map(size).collect())
    }
}
