//! Residual streams: what the blocks add to and the LayerNormalizations read, as far as it can be written in other channels.
//!
//! ```text
//! patch embedding ─┐                ┌── LayerNormalization ── Linears …
//! class token ─────┴─ Concat ─ Add ─┼─────────────────────────────────── Add ─┬─ …
//! positions ───────────────────┘    └── LayerNormalization ── Linears … Linear┘
//! ```
//! A change of channels `x → x·Q` passes through sums, joins and choices of tokens; constants, the Linears that write into the
//! stream and those behind its norms take it over. Declines a stream that anything else writes or reads, naming it.

use std::collections::{HashMap, HashSet};

use super::channels::{self, FromEnd, Keep};
use super::roles::Index;
use super::view::View;
use super::{Norm, Site, SiteKind};
use crate::ir::{NodeId, Outlet, Slot};

/// A residual stream.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Its channels.
    pub channels: usize,
    /// Linears and patch embeddings whose results go into it (indices into [`super::Structure::sites`]), in order.
    pub writers: Vec<usize>,
    /// Linears that read it with no norm between, in order.
    pub readers: Vec<usize>,
    /// Norms that read it (indices into [`super::Structure::norms`]), in order.
    pub norms: Vec<usize>,
    /// Constants that go into it.
    pub constants: Vec<Constant>,
    /// All its values.
    pub values: Vec<Outlet>,
    /// Why its channels cannot be changed, if they cannot.
    pub declined: Option<String>,
}

/// A constant in a stream: input `input` of `node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Constant {
    /// Its reader.
    pub node: NodeId,
    /// Which input of it.
    pub input: usize,
    /// Axis of its channels, counted from the end: 0 is the last.
    pub axis: usize,
}

/// The streams that norms read, in the order of their first norms.
pub(super) fn find_all(view: &View, sites: &[Site], norms: &[Norm], index: &Index) -> Vec<Stream> {
    let mut found: Vec<Stream> = Vec::new();
    for (n, norm) in norms.iter().enumerate() {
        if found.iter().any(|stream| stream.norms.contains(&n)) {
            continue;
        }
        let Some(input) = view.graph.input(norm.node, 0) else {
            continue;
        };
        found.push(Walk::new(view, sites, norms, index).run(input));
    }
    found
}

struct Walk<'w, 'g> {
    view: &'w View<'g>,
    sites: &'w [Site],
    norms: &'w [Norm],
    index: &'w Index,
    by_node: HashMap<NodeId, usize>,
    stream: Stream,
    seen: HashSet<Outlet>,
    stack: Vec<(Outlet, FromEnd)>,
}

impl<'w, 'g> Walk<'w, 'g> {
    fn new(
        view: &'w View<'g>,
        sites: &'w [Site],
        norms: &'w [Norm],
        index: &'w Index,
    ) -> Walk<'w, 'g> {
        Walk {
            view,
            sites,
            norms,
            index,
            by_node: norms
                .iter()
                .enumerate()
                .map(|(n, norm)| (norm.node, n))
                .collect(),
            stream: Stream::default(),
            seen: HashSet::new(),
            stack: Vec::new(),
        }
    }

    /// The stream around a value whose channels are its last axis. Goes on where something declines, so that all norms of
    /// the stream are known.
    fn run(mut self, start: Outlet) -> Stream {
        let channels = self.view.dims(start).and_then(|d| *d.last()?);
        self.stream.channels = channels.unwrap_or(0);
        if channels.is_none() {
            self.decline(format!(
                "the width of {} is unknown",
                self.view.graph.name(start)
            ));
        }
        self.push(start, 0);
        while let Some((value, axis)) = self.stack.pop() {
            self.stream.values.push(value);
            if !self.is_wide(value, axis) {
                self.decline(format!(
                    "{} has other channels",
                    self.view.graph.name(value)
                ));
            }
            if let Err(reason) = self.written(value, axis) {
                self.decline(reason);
            }
            self.read(value, axis);
        }
        let Stream {
            writers,
            readers,
            norms,
            ..
        } = &mut self.stream;
        for indices in [writers, readers, norms] {
            indices.sort_unstable();
            indices.dedup();
        }
        self.stream
    }

    fn decline(&mut self, reason: String) {
        self.stream.declined.get_or_insert(reason);
    }

    fn push(&mut self, value: Outlet, axis: FromEnd) {
        if self.seen.insert(value) {
            self.stack.push((value, axis));
        }
    }

    fn is_wide(&self, value: Outlet, axis: FromEnd) -> bool {
        let dims = self.view.dims(value);
        dims.is_some_and(|d| d.iter().rev().nth(axis) == Some(&Some(self.stream.channels)))
    }

    /// Goes back to what a value is made from.
    fn written(&mut self, value: Outlet, axis: FromEnd) -> Result<(), String> {
        let written = self.sites.iter().position(|site| site.output == value);
        if let Some((index, site)) = written.map(|i| (i, &self.sites[i])) {
            return match (site.kind, axis) {
                (SiteKind::Linear, 0) | (SiteKind::PatchEmbed, 2) => {
                    self.stream.writers.push(index);
                    Ok(())
                }
                _ => Err(self.other("is written by", value.node)),
            };
        }
        let view = self.view;
        let Some(op) = view.graph.op(value.node) else {
            return Err(format!("it begins at the input {}", view.graph.name(value)));
        };
        let operands = match op.op_type() {
            "Add" | "Concat" => 0..view.graph.node_inputs(value.node).len(),
            "Expand" => 0..1,
            _ => {
                let before = before(view, value, axis);
                let before = before.ok_or_else(|| self.other("is written by", value.node))?;
                self.operand(value.node, 0, before);
                return Ok(());
            }
        };
        for i in operands {
            self.operand(value.node, i, axis);
        }
        Ok(())
    }

    fn operand(&mut self, node: NodeId, input: usize, axis: FromEnd) {
        let Some(value) = self.view.graph.input(node, input) else {
            return;
        };
        if self.view.is_constant(value) {
            self.stream.constants.push(Constant { node, input, axis });
        } else {
            self.push(value, axis);
        }
    }

    /// Goes on to everyone who reads a value.
    fn read(&mut self, value: Outlet, axis: FromEnd) {
        let (view, graph) = (self.view, self.view.graph);
        if graph.is_output(value) {
            self.decline(format!("it is the graph's output {}", graph.name(value)));
        }
        for reader in graph.readers(value) {
            let node = reader.node;
            let Slot::Input(slot) = reader.slot else {
                self.decline(self.other("is read in a sub-graph by", node));
                continue;
            };
            let result = Outlet { node, slot: 0 };
            if let (Some(&norm), 0, 0) = (self.by_node.get(&node), slot, axis) {
                self.meet_norm(norm);
            } else if let (Some(&site), 0, 0) = (self.index.linears.get(&node), slot, axis) {
                self.stream.readers.push(site);
            } else if graph.is(node, "Add") || (graph.is(node, "Expand") && slot == 0) {
                self.push(result, axis);
            } else {
                match linear(view, node, slot, axis) {
                    Keep::Values(values, axis) => {
                        values.into_iter().for_each(|v| self.push(v, axis))
                    }
                    Keep::Joined(joined, axis) => self.push(joined, axis),
                    Keep::OnlyShape => {}
                    Keep::No(_) => self.decline(self.other("is read by", node)),
                }
            }
        }
    }

    /// A norm can be read in other channels if its affine part can move into the Linears behind it.
    fn meet_norm(&mut self, index: usize) {
        self.stream.norms.push(index);
        let norm = &self.norms[index];
        let label = self.view.graph.label(norm.node);
        if let Some(reason) = &norm.declined {
            self.decline(format!("of {label}: {reason}"));
        } else if !self.fits(norm) {
            self.decline(format!("{label} has other channels"));
        } else if !norm.split.is_empty() {
            self.decline(format!("others than Linears read {label}"));
        } else if !mixes(self.view, norm.node) {
            self.decline(format!("an extremum is taken behind {label}"));
        }
    }

    /// Whether a norm's scale and shift have a value for each channel.
    fn fits(&self, norm: &Norm) -> bool {
        let graph = self.view.graph;
        let inputs = [Some(norm.scale), norm.shift].into_iter().flatten();
        let mut given = inputs.filter_map(|i| graph.input(norm.node, i));
        given.all(|value| graph.constant_dims(value) == Some(vec![self.stream.channels]))
    }

    fn other(&self, what: &str, node: NodeId) -> String {
        let op_type = self.view.graph.op(node).map_or("", |op| op.op_type());
        format!("it {what} {} ({op_type})", self.view.graph.label(node))
    }
}

/// As [`channels::kept`], where sums over channels pass through as well.
fn linear(view: &View, node: NodeId, slot: usize, axis: FromEnd) -> Keep {
    const EXTREMA: [&str; 3] = ["ReduceMax", "ReduceMin", "GlobalMaxPool"];
    if EXTREMA.iter().any(|op_type| view.graph.is(node, op_type)) {
        return Keep::No("which takes an extremum");
    }
    channels::kept(view, node, slot, axis)
}

/// The axis of the channels before the operator that gives `value`, if it leaves them what they were.
fn before(view: &View, value: Outlet, axis: FromEnd) -> Option<FromEnd> {
    let rank = view.rank(view.graph.input(value.node, 0)?)?;
    (0..rank).find(|&from| {
        matches!(linear(view, value.node, 0, from),
            Keep::Values(values, to) if to == axis && values.contains(&value))
    })
}

/// Whether everything between a norm and the Linears behind it is linear in the channels.
fn mixes(view: &View, norm: NodeId) -> bool {
    let mut seen = HashSet::new();
    let mut stack = vec![(
        Outlet {
            node: norm,
            slot: 0,
        },
        0,
    )];
    while let Some((value, axis)) = stack.pop() {
        if !seen.insert(value) {
            continue;
        }
        for reader in view.graph.readers(value) {
            let Slot::Input(slot) = reader.slot else {
                return false;
            };
            if view.graph.is(reader.node, "MatMul") {
                continue;
            }
            match linear(view, reader.node, slot, axis) {
                Keep::Values(values, axis) => stack.extend(values.into_iter().map(|v| (v, axis))),
                Keep::Joined(joined, axis) => stack.push((joined, axis)),
                Keep::OnlyShape => {}
                Keep::No(_) => return false,
            }
        }
    }
    true
}
