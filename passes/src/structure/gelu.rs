//! GELU, in the forms that exporters give it.
//!
//! ```text
//! erf    x·½·(1 + erf(x/√2))                                   Hendrycks & Gimpel 2016
//! tanh   x·½·(1 + tanh(√(2/π)·(x + 0.044715·x³)))              its approximation
//! quick  x·sigmoid(1.702·x)                                    its approximation, as in CLIP
//! op     Gelu, or com.microsoft's Gelu, FastGelu and QuickGelu
//! ```

use std::f32::consts::{FRAC_2_PI, SQRT_2};

use crate::ir::{Graph, NodeId, Outlet};
use crate::pattern::{Pattern, either, number, op, op_in, var};

const MICROSOFT: &str = "com.microsoft";

/// A GELU in the graph.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gelu {
    /// What it is applied to.
    pub input: Outlet,
    /// Its result.
    pub output: Outlet,
    /// The operators that make it up.
    pub nodes: Vec<NodeId>,
}

/// Every GELU of the graph, in the order of its operators.
pub fn find_all(graph: &Graph) -> Vec<Gelu> {
    let pattern = pattern();
    graph
        .ops()
        .filter(|(_, op)| {
            matches!(
                op.op_type(),
                "Mul" | "Div" | "Gelu" | "FastGelu" | "QuickGelu"
            )
        })
        .filter_map(|(node, _)| find(graph, Outlet { node, slot: 0 }, &pattern))
        .collect()
}

fn find(graph: &Graph, output: Outlet, pattern: &Pattern) -> Option<Gelu> {
    let found = pattern.find(graph, output)?;
    Some(Gelu {
        input: found.get("x")?,
        output,
        nodes: found.nodes().collect(),
    })
}

fn pattern() -> Pattern {
    let x = || var("x");
    let erf = x() * 0.5 * (op("Erf", [x() / SQRT_2]) + 1.0);
    let cube = || [op("Pow", [x(), number(3.0)]), x() * x() * x()];
    let tanh = cube().map(|cube| x() * 0.5 * (op("Tanh", [inner(cube)]) + 1.0));
    let factored = op(
        "Tanh",
        [x() * FRAC_2_PI.sqrt() * (x() * x() * 0.044_715 + 1.0)],
    );
    let [tanh_pow, tanh_mul] = tanh;
    either([
        erf,
        tanh_pow,
        tanh_mul,
        x() * 0.5 * (factored + 1.0),
        x() * op("Sigmoid", [x() * 1.702]),
        op("Gelu", [x()]),
        op_in(MICROSOFT, "Gelu", [x()]),
        op_in(MICROSOFT, "FastGelu", [x()]),
        op_in(MICROSOFT, "QuickGelu", [x()]),
    ])
}

/// `√(2/π)·(x + 0.044715·x³)`
fn inner(cube: Pattern) -> Pattern {
    (var("x") + cube * 0.044_715) * FRAC_2_PI.sqrt()
}
