//! Mean and deviation over the last axis, however an exporter writes them.

use super::super::{axes, scalar};
use super::operands;
use crate::infer::Shapes;
use crate::ir::{Graph, Outlet};

/// Whether `mean` is the mean of `x`.
pub(super) fn mean_of(graph: &Graph, shapes: &Shapes, mean: Outlet, x: Outlet) -> Option<()> {
    (averaged(graph, shapes, mean)? == x).then_some(())
}

/// The ε of `√(variance(x) + ε)`.
pub(super) fn deviation_of(
    graph: &Graph,
    shapes: &Shapes,
    deviation: Outlet,
    x: Outlet,
) -> Option<f32> {
    let (variance, epsilon) = with_epsilon(graph, deviation)?;
    let variance = not_negative(graph, variance);
    centred(graph, shapes, variance, x).or_else(|| raw(graph, shapes, variance, x))?;
    Some(epsilon)
}

/// The operand of a mean over the last axis that keeps it.
fn averaged(graph: &Graph, shapes: &Shapes, value: Outlet) -> Option<Outlet> {
    let op = graph.op(value.node)?;
    let x = graph.input(value.node, 0)?;
    let last = match op.op_type() {
        "ReduceMean" => op.int("keepdims") != Some(0) && axes::last_only(graph, shapes, value.node),
        // Over all axes behind the second: tf2onnx writes means of [batch, tokens, width] so.
        "GlobalAveragePool" => shapes.rank(x) == Some(3),
        _ => false,
    };
    (last && op.is(op.op_type())).then_some(x)
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

/// The variance of `Max(variance, 0)`, which only rounding can make negative.
fn not_negative(graph: &Graph, value: Outlet) -> Outlet {
    let floored = || {
        let (a, b) = operands(graph, value, "Max")?;
        let zero = |v: Outlet| scalar(graph, v).is_some_and(|(floor, _)| floor == 0.0);
        match (zero(a), zero(b)) {
            (false, true) => Some(a),
            (true, false) => Some(b),
            _ => None,
        }
    };
    floored().unwrap_or(value)
}

/// Whether `variance` is `mean((x - mean(x))²)`; the difference may be computed a second time.
fn centred(graph: &Graph, shapes: &Shapes, variance: Outlet, x: Outlet) -> Option<()> {
    let difference = squared(graph, averaged(graph, shapes, variance)?)?;
    let (minuend, mean) = operands(graph, difference, "Sub")?;
    (minuend == x).then(|| mean_of(graph, shapes, mean, x))?
}

/// Whether `variance` is `mean(x²) - mean(x)²`.
fn raw(graph: &Graph, shapes: &Shapes, variance: Outlet, x: Outlet) -> Option<()> {
    let (second, first) = operands(graph, variance, "Sub")?;
    let of_x = squared(graph, averaged(graph, shapes, second)?)? == x;
    of_x.then(|| mean_of(graph, shapes, squared(graph, first)?, x))?
}

/// The operand of a square.
fn squared(graph: &Graph, value: Outlet) -> Option<Outlet> {
    match (operands(graph, value, "Pow"), operands(graph, value, "Mul")) {
        (Some((base, power)), _) if scalar(graph, power)?.0 == 2.0 => Some(base),
        (_, Some((a, b))) if a == b => Some(a),
        _ => None,
    }
}
