//! LayerNorm → Linear: norms whose per-channel scale can be folded into the Linears that read them.
//!
//! ```text
//! LayerNormalization(γ, β) ──┬── Linear
//!                            └── [tokens chosen, moved, joined or averaged; channels untouched] ── Linear
//! ```
//!
//! Folding `x' = (x + shift)/r` changes the norm's result for everyone who reads it, so every reader must be a Linear that
//! takes the inverse into its weight. Where others read it too (a residual), the norm is split: a copy of it for the Linears
//! takes the fold, the others keep the norm as it was. Declines a norm without a Linear of its own to fold into, naming the
//! reader that hinders.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::channels::{self, FromEnd, Keep};
use super::view::View;
use super::{Norm, Site};
use crate::ir::{NodeId, Outlet, Reader, Slot};

/// The norm with the Linears that read it; `linears` maps a Linear's node to its index.
pub(super) fn recognise(view: &View, node: NodeId, linears: &HashMap<NodeId, usize>) -> Norm {
    let result = Outlet { node, slot: 0 };
    let direct = view.graph.readers(result);
    let mut whole = Walk::new(view, linears).run(&direct);
    if view.graph.is_output(result) {
        let output = format!("the graph's output {}", view.graph.name(result));
        whole.others.insert(0, output);
    }
    let mut norm = Norm {
        name: String::new(),
        node,
        sites: whole.sites,
        split: Vec::new(),
        declined: affine(view, node).err(),
    };
    if norm.declined.is_some() {
        return norm;
    }
    norm.declined = match (&whole.others[..], norm.sites.len()) {
        ([], 0) => Some("no Linear reads it".to_owned()),
        ([], _) => None,
        ([first, rest @ ..], _) => match split(view, &direct, linears) {
            Some((edges, sites)) => {
                (norm.split, norm.sites) = (edges, sites);
                None
            }
            None if rest.is_empty() => {
                Some(format!("its scale cannot be folded: it is read by {first}"))
            }
            None => Some(format!(
                "its scale cannot be folded: it is read by {first}; and by {} more",
                rest.len()
            )),
        },
    };
    norm
}

/// A reader and its input.
type Edge = (NodeId, usize);

/// The readers behind which there are Linears alone, with their inputs, and those Linears.
fn split(
    view: &View,
    direct: &[Reader],
    linears: &HashMap<NodeId, usize>,
) -> Option<(Vec<Edge>, Vec<usize>)> {
    let walk = || Walk::new(view, linears);
    let absorbs = |reader: &&Reader| walk().branch(**reader).others.is_empty();
    let chosen: Vec<Reader> = direct.iter().filter(absorbs).copied().collect();
    let readers = walk().run(&chosen);
    if !readers.others.is_empty() || readers.sites.is_empty() {
        return None;
    }
    let edge = |reader: &Reader| match reader.slot {
        Slot::Input(i) => Some((reader.node, i)),
        Slot::Capture => None,
    };
    Some((chosen.iter().filter_map(edge).collect(), readers.sites))
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

/// A walk from a norm to everything that reads its channels.
struct Walk<'w, 'g> {
    view: &'w View<'g>,
    linears: &'w HashMap<NodeId, usize>,
    readers: Readers,
    joins: Joins,
    seen: HashSet<Outlet>,
    stack: Vec<(Outlet, FromEnd)>,
}

impl<'w, 'g> Walk<'w, 'g> {
    fn new(view: &'w View<'g>, linears: &'w HashMap<NodeId, usize>) -> Self {
        Walk {
            view,
            linears,
            readers: Readers::default(),
            joins: Joins::default(),
            seen: HashSet::new(),
            stack: Vec::new(),
        }
    }

    /// What reads the norm through these readers of it.
    fn run(mut self, direct: &[Reader]) -> Readers {
        direct.iter().for_each(|reader| self.meet(*reader, 0));
        self.go_on();
        let view = self.view;
        let joined = self.joins.incomplete(view);
        let joined = joined.map(|node| other(view, node, channels::JOINS));
        self.readers.others.extend(joined);
        self.readers.sites.sort_unstable();
        self.readers.sites.dedup();
        self.readers
    }

    /// The same of one reader; what it is joined with may come through another.
    fn branch(mut self, reader: Reader) -> Readers {
        self.meet(reader, 0);
        self.go_on();
        self.readers
    }

    fn go_on(&mut self) {
        let graph = self.view.graph;
        while let Some((value, axis)) = self.stack.pop() {
            if graph.is_output(value) {
                let output = format!("the graph's output {}", graph.name(value));
                self.readers.others.push(output);
            }
            for reader in graph.readers(value) {
                self.meet(reader, axis);
            }
        }
    }

    fn meet(&mut self, reader: Reader, axis: FromEnd) {
        let (view, node) = (self.view, reader.node);
        let mut refuse = |why: &str| self.readers.others.push(other(view, node, why));
        let slot = match (reader.slot, self.linears.get(&node)) {
            (Slot::Input(0), Some(&site)) if axis == 0 => return self.readers.sites.push(site),
            (Slot::Capture, _) => return refuse("inside its sub-graph"),
            (Slot::Input(slot), _) => slot,
        };
        match channels::kept(view, node, slot, axis) {
            Keep::Values(values, axis) => {
                let new = values.into_iter().filter(|v| self.seen.insert(*v));
                self.stack.extend(new.map(|v| (v, axis)));
            }
            Keep::Joined(joined, axis) => {
                if self.joins.complete(view, node, slot, axis) && self.seen.insert(joined) {
                    self.stack.push((joined, axis));
                }
            }
            Keep::OnlyShape => {}
            Keep::No(why) => refuse(why),
        }
    }
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
