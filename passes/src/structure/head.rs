//! Heads: Linears whose results are a graph output, directly or through a classifier's last steps.
//!
//! ```text
//! Linear ── [Softmax, Sigmoid, Reshape, a constant added …] ──► output
//! Linear ──┬─ [Add, Concat and ReduceMean: several heads averaged] ──► output
//! Linear ──┘
//! ```
//! Declines a result that anything else than other heads and constants is mixed into, a residual say.

use std::collections::{BTreeSet, HashMap, HashSet};

use super::view::{Through, View, layout};
use crate::ir::{Op, Outlet};

/// The indices of the Linears that an output is made of, for each output; `results` maps a Linear's result to its index.
pub(super) fn heads(view: &View, results: &HashMap<Outlet, usize>) -> Vec<BTreeSet<usize>> {
    let outputs = view.graph.outputs().iter();
    outputs
        .filter_map(|output| behind(view, output.outlet, results))
        .collect()
}

/// The Linears that a value is made of, if it is made of nothing else but constants.
fn behind(view: &View, value: Outlet, results: &HashMap<Outlet, usize>) -> Option<BTreeSet<usize>> {
    let mut found = BTreeSet::new();
    let mut seen = HashSet::new();
    let mut stack = vec![value];
    while let Some(value) = stack.pop() {
        if !seen.insert(value) || view.is_constant(value) || view.is_fixed(value.node) {
            continue;
        }
        if let Some(&site) = results.get(&value) {
            found.insert(site);
            continue;
        }
        view.graph.op(value.node).filter(|op| last_step(op))?;
        stack.extend(view.graph.node_inputs(value.node).into_iter().flatten());
    }
    Some(found)
}

fn last_step(op: &Op) -> bool {
    const STEPS: [&str; 8] = [
        "Add",
        "Concat",
        "Div",
        "LogSoftmax",
        "Mul",
        "ReduceMean",
        "Sigmoid",
        "Softmax",
    ];
    STEPS.iter().any(|s| op.is(s)) || layout(op) != Through::No
}
