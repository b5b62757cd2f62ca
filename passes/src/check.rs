//! Invariants of the graph, checked after every pass in debug builds and tests.

use std::collections::{HashMap, HashSet};

use crate::ir::{Graph, Node, Outlet, Slot};

/// Checks that the graph is acyclic, that value names are unique, that every edge starts at an output that
/// exists and no input is fed twice, and that graph outputs exist.
///
/// # Errors
/// Everything that does not hold, one line each.
pub fn check(graph: &Graph) -> Result<(), Vec<String>> {
    let mut faults = Vec::new();
    if graph.topological().is_none() {
        faults.push("the graph has a cycle".to_owned());
    }
    check_names(graph, &mut faults);
    check_edges(graph, &mut faults);
    for output in graph.outputs() {
        if !exists(graph, output.outlet) {
            faults.push(format!(
                "graph output {:?} is produced by no node",
                output.info.name()
            ));
        } else if graph.name(output.outlet) != output.info.name() {
            let name = graph.name(output.outlet);
            faults.push(format!(
                "graph output {:?} is produced under the name {name:?}",
                output.info.name()
            ));
        }
    }
    if faults.is_empty() {
        Ok(())
    } else {
        Err(faults)
    }
}

/// Panics with the faults in debug builds and tests; nothing in release builds.
///
/// # Panics
/// If a pass broke the graph, which is a mistake of the pass.
pub fn debug_check(graph: &Graph, pass: &str) {
    if cfg!(debug_assertions)
        && let Err(faults) = check(graph)
    {
        panic!("{pass} broke the graph: {}", faults.join("; "));
    }
}

fn outputs(graph: &Graph, id: crate::ir::NodeId) -> usize {
    match graph.node(id) {
        Node::Op(op) => op.outputs.len(),
        Node::Input(_) | Node::Initializer(_) => 1,
    }
}

fn exists(graph: &Graph, value: Outlet) -> bool {
    graph.contains(value.node) && value.slot < outputs(graph, value.node)
}

fn check_names(graph: &Graph, faults: &mut Vec<String>) {
    let mut seen = HashMap::new();
    for node in graph.nodes() {
        for slot in 0..outputs(graph, node) {
            let name = graph.name(Outlet { node, slot });
            if name.is_empty() {
                continue;
            }
            if let Some(other) = seen.insert(name, node) {
                let (a, b) = (graph.label(other), graph.label(node));
                faults.push(format!("{a:?} and {b:?} both produce {name:?}"));
            }
        }
    }
}

fn check_edges(graph: &Graph, faults: &mut Vec<String>) {
    let mut fed = HashSet::new();
    for (value, reader) in graph.uses() {
        let label = graph.label(reader.node);
        if !exists(graph, value) {
            faults.push(format!(
                "{label:?} reads output {} of {:?}, which it has not",
                value.slot,
                graph.label(value.node)
            ));
        } else if graph.name(value).is_empty() {
            faults.push(format!(
                "{label:?} reads a value of {:?} that has no name",
                graph.label(value.node)
            ));
        }
        if let Slot::Input(i) = reader.slot
            && !fed.insert(reader)
        {
            faults.push(format!("input {i} of {label:?} is fed twice"));
        }
    }
}
