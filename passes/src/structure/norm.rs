//! LayerNorm → Linear: norms whose per-channel scale can be folded into the Linears that read them.
//!
//! ```text
//! LayerNormalization(γ, β) ──┬── Linear
//!                            └── [tokens chosen, moved, joined or averaged; channels untouched] ── Linear
//! ```
//!
//! Folding `x' = (x + shift)/r` changes the norm's result for everyone, so every reader must be a Linear that takes
//! the inverse into its weight. Declines a norm with another reader (a residual, the model's output), naming it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::channels::{self, FromEnd, Keep};
use super::view::View;
use super::{Norm, Site};
use crate::ir::{NodeId, Outlet, Slot};

/// The norm with the Linears that read it; `linears` maps a Linear's node to its index.
pub(super) fn recognise(view: &View, node: NodeId, linears: &HashMap<NodeId, usize>) -> Norm {
    let readers = readers(view, Outlet { node, slot: 0 }, linears);
    let declined =
        affine(view, node)
            .err()
            .or_else(|| match (&readers.others[..], readers.sites.len()) {
                ([], 0) => Some("no Linear reads it".to_owned()),
                ([], _) => None,
                ([other], _) => Some(format!("its scale cannot be folded: it is read by {other}")),
                ([other, rest @ ..], _) => Some(format!(
                    "its scale cannot be folded: it is read by {other}; and by {} more",
                    rest.len()
                )),
            });
    Norm {
        name: String::new(),
        node,
        sites: readers.sites,
        declined,
    }
}

/// Enters in each site the norm that it reads.
pub(super) fn link(sites: &mut [Site], norms: &[Norm]) {
    for (n, norm) in norms.iter().enumerate() {
        for &site in &norm.sites {
            sites[site].norm = Some(n);
        }
    }
}

/// Checks that γ and β are constants over the last axis.
fn affine(view: &View, node: NodeId) -> Result<(), String> {
    let result = Outlet { node, slot: 0 };
    let axis = view
        .graph
        .op(node)
        .and_then(|op| op.int("axis"))
        .unwrap_or(-1);
    if view.is_last_axis(result, axis) != Some(true) {
        return Err(format!(
            "it normalises from axis {axis} on, not the last axis alone"
        ));
    }
    for (i, what) in [(1, "scale"), (2, "shift")] {
        let Some(parameter) = view.graph.input(node, i) else {
            // A shift that was left out is zero, and the fold adds it.
            continue;
        };
        if view
            .graph
            .constant_dims(parameter)
            .is_none_or(|d| d.len() != 1)
        {
            return Err(format!("its {what} is no constant [channels]"));
        }
    }
    Ok(())
}

#[derive(Default)]
struct Readers {
    sites: Vec<usize>,
    /// The others, as a person finds them.
    others: Vec<String>,
}

fn readers(view: &View, result: Outlet, linears: &HashMap<NodeId, usize>) -> Readers {
    let mut readers = Readers::default();
    let mut joins = Joins::default();
    let mut seen = HashSet::from([result]);
    let mut stack = vec![(result, 0)];
    while let Some((value, axis)) = stack.pop() {
        if view.graph.is_output(value) {
            readers
                .others
                .push(format!("the graph's output {}", view.graph.name(value)));
        }
        for reader in view.graph.readers(value) {
            let node = reader.node;
            match (reader.slot, linears.get(&node)) {
                (Slot::Input(0), Some(&site)) if axis == 0 => readers.sites.push(site),
                (Slot::Capture, _) => {
                    readers
                        .others
                        .push(other(view, node, "inside its sub-graph"))
                }
                (Slot::Input(slot), _) => match channels::kept(view, node, slot, axis) {
                    Keep::Values(values, axis) => {
                        let new = values.into_iter().filter(|v| seen.insert(*v));
                        stack.extend(new.map(|v| (v, axis)));
                    }
                    Keep::Joined(joined, axis) => {
                        if joins.complete(view, node, slot, axis) && seen.insert(joined) {
                            stack.push((joined, axis));
                        }
                    }
                    Keep::OnlyShape => {}
                    Keep::No(why) => readers.others.push(other(view, node, why)),
                },
            }
        }
    }
    let incomplete = joins.incomplete(view);
    let joined = incomplete.map(|node| other(view, node, channels::JOINS));
    readers.others.extend(joined);
    readers.sites.sort_unstable();
    readers.sites.dedup();
    readers
}

/// A reader that cannot take a change of the channels, as a person finds it.
fn other(view: &View, node: NodeId, why: &str) -> String {
    let op_type = view.graph.op(node).map_or("", |op| op.op_type());
    format!("{} ({op_type}), {why}", view.graph.label(node))
}

/// The inputs of each Concat that were met, with the axis of their channels.
#[derive(Default)]
struct Joins(BTreeMap<NodeId, BTreeMap<usize, FromEnd>>);

impl Joins {
    /// Notes an input; whether all are there and agree.
    fn complete(&mut self, view: &View, node: NodeId, slot: usize, axis: FromEnd) -> bool {
        let met = self.0.entry(node).or_default();
        met.insert(slot, axis);
        Joins::all(view, node, met)
    }

    fn all(view: &View, node: NodeId, met: &BTreeMap<usize, FromEnd>) -> bool {
        let first = met.values().next();
        met.len() == view.graph.node_inputs(node).len() && met.values().all(|a| Some(a) == first)
    }

    /// Those with an input from elsewhere.
    fn incomplete<'j>(&'j self, view: &'j View) -> impl Iterator<Item = NodeId> + 'j {
        let missing = |(&node, met): (&NodeId, &BTreeMap<usize, FromEnd>)| {
            (!Joins::all(view, node, met)).then_some(node)
        };
        self.0.iter().filter_map(missing)
    }
}
