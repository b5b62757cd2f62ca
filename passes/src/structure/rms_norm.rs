//! RMSNorm, in one operator or in parts: a LayerNormalization without mean and shift.
//!
//! ```text
//! RMSNormalization<axis = -1>(x, γ) ── Linear(W)                          γ/r ── Linear(W·diag(r))
//! Mul(Div(x, Sqrt(Add(ReduceMean(Pow(x, 2)), ε))), γ) ── Linear(W)   →   the same
//!
//! y = x / √(mean(x²) + ε) · γ
//! ```
//! In parts the Mul by γ stands for the norm; `x·x` for the power, a reciprocal for the division, and factors in either
//! order are the same. The parts stay as they are: one operator for them came only with operator set 23.
//!
//! A fold can scale the channels, not shift them: there is no β to take a shift.
//! Declines γ that is no float32 constant `[channels]` and means over other axes than the last; without a γ there is
//! nothing that a scale could go into, so no norm is seen.

use vitq_onnx::DataType;

use super::view::View;
use crate::ir::{NodeId, Outlet};

/// Which input of the node is γ, if the node is an RMSNorm, or its last part.
pub(super) fn scale(view: &View, node: NodeId) -> Option<usize> {
    if view.graph.is(node, "RMSNormalization") {
        return Some(1);
    }
    if !view.graph.is(node, "Mul") {
        return None;
    }
    let is_last_part = |&i: &usize| {
        let parts = (view.graph.input(node, i), view.graph.input(node, 1 - i));
        matches!(parts, (Some(gamma), Some(x)) if row(view, gamma) && normalised(view, x))
    };
    [0, 1].into_iter().find(is_last_part)
}

/// Whether a value is a float32 constant over the last axis alone.
fn row(view: &View, value: Outlet) -> bool {
    let float = |t: &vitq_onnx::TensorMsg| t.data_type() == DataType::Float as i32;
    let dims = view.graph.constant_dims(value).unwrap_or_default();
    let last = dims
        .last()
        .is_some_and(|&d| d > 1 && d == dims.iter().product::<usize>());
    last && view.graph.initializer(value).is_some_and(float)
}

/// Whether a value is `x / √(mean(x²) + ε)`.
fn normalised(view: &View, value: Outlet) -> bool {
    let found = || {
        if let Some((x, root)) = operands(view, value, "Div") {
            return Some(x == root_mean_square(view, root)?);
        }
        let (a, b) = operands(view, value, "Mul")?;
        let by = |x: Outlet, inverse: Outlet| {
            inverted(view, inverse).and_then(|root| root_mean_square(view, root)) == Some(x)
        };
        Some(by(a, b) || by(b, a))
    };
    found().unwrap_or(false)
}

/// The divisor of `1 / s`.
fn inverted(view: &View, value: Outlet) -> Option<Outlet> {
    if view.graph.is(value.node, "Reciprocal") {
        return view.graph.input(value.node, 0);
    }
    let (one, divisor) = operands(view, value, "Div")?;
    (view.graph.scalar(one)? == 1.0).then_some(divisor)
}

/// The `x` of `√(mean(x²) + ε)`.
fn root_mean_square(view: &View, value: Outlet) -> Option<Outlet> {
    let sum = match operands(view, value, "Pow") {
        Some((base, power)) if view.graph.scalar(power)? == 0.5 => base,
        _ if view.graph.is(value.node, "Sqrt") => view.graph.input(value.node, 0)?,
        _ => return None,
    };
    let (a, b) = operands(view, sum, "Add")?;
    let mean = if view.graph.scalar(b).is_some() {
        a
    } else {
        view.graph.scalar(a).map(|_| b)?
    };
    squared(view, averaged(view, mean)?)
}

/// The operand of a mean over the last axis that keeps it.
fn averaged(view: &View, value: Outlet) -> Option<Outlet> {
    let op = view.graph.op(value.node).filter(|op| op.is("ReduceMean"))?;
    let [axis] = view.integers(value.node, "axes", 1)?[..] else {
        return None;
    };
    let x = view.graph.input(value.node, 0)?;
    let kept = op.int("keepdims") != Some(0);
    (kept && view.is_last_axis(x, axis) == Some(true)).then_some(x)
}

/// The operand of a square.
fn squared(view: &View, value: Outlet) -> Option<Outlet> {
    match operands(view, value, "Mul") {
        Some((a, b)) => (a == b).then_some(a),
        None => {
            let (x, power) = operands(view, value, "Pow")?;
            (view.graph.scalar(power)? == 2.0).then_some(x)
        }
    }
}

fn operands(view: &View, value: Outlet, op_type: &str) -> Option<(Outlet, Outlet)> {
    let graph = view.graph;
    let operands = || Some((graph.input(value.node, 0)?, graph.input(value.node, 1)?));
    graph.is(value.node, op_type).then(operands)?
}
