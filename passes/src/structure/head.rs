//! Head: a Linear whose result is a graph output, directly or through a classifier's last steps.

use std::collections::HashSet;

use super::Site;
use super::view::{Through, View, layout};
use crate::ir::{Op, Outlet};

/// Whether the Linear's result leaves the graph. Two heads may be averaged (DeiT's distillation token), so an `Add`
/// of two Linears is passed; one of a Linear and a residual is not.
pub(super) fn is_head(view: &View, site: &Site, results: &HashSet<Outlet>) -> bool {
    let mut seen = HashSet::new();
    let mut stack = vec![site.output];
    while let Some(value) = stack.pop() {
        if view.graph.is_output(value) {
            return true;
        }
        for reader in view.graph.readers(value) {
            let Some(op) = view.graph.op(reader.node) else {
                continue;
            };
            let inputs = view.graph.node_inputs(reader.node);
            let plain = |v: &Outlet| view.is_constant(*v) || results.contains(v) || *v == value;
            if last_step(op) && inputs.iter().flatten().all(plain) && seen.insert(reader.node) {
                stack.push(Outlet {
                    node: reader.node,
                    slot: 0,
                });
            }
        }
    }
    false
}

fn last_step(op: &Op) -> bool {
    const STEPS: [&str; 7] = [
        "Add",
        "Div",
        "LogSoftmax",
        "Mul",
        "ReduceMean",
        "Sigmoid",
        "Softmax",
    ];
    STEPS.iter().any(|s| op.is(s)) || layout(op) != Through::No
}
