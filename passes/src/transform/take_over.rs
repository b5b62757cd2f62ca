//! ```text
//! old → readers   →   old → … → new → readers
//! ```
//! `new` also takes `old`'s name over, so that a layer's result has the same name in the float and in the quantised model
//! and the two can be compared layer by layer.

use crate::ir::{Graph, Outlet};

/// Puts `new` in the place of `old` for every reader. The operator of `new` may read `old`.
pub(crate) fn take_over(graph: &mut Graph, old: Outlet, new: Outlet) {
    // A graph output's name is moved by the graph itself; a name read inside a sub-graph has to stay where it is.
    let keeps_name = graph.is_output(old) || graph.is_captured(old);
    graph.replace_uses(old, new);
    if !keeps_name {
        let (name, spare) = (graph.name(old).to_owned(), graph.name(new).to_owned());
        rename(graph, old, spare);
        rename(graph, new, name);
    }
}

fn rename(graph: &mut Graph, value: Outlet, name: String) {
    if let Some(output) = graph
        .op_mut(value.node)
        .and_then(|op| op.outputs.get_mut(value.slot))
    {
        *output = name;
    }
}
