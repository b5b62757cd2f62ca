//! The graph with what recognisers ask of it: shapes, constant operands, walks over operators that only move data.

use std::collections::{BTreeSet, HashSet};

use crate::infer::{Dim, Shapes, infer};
use crate::ir::{Graph, NodeId, Op, Outlet, Slot};

/// A graph and its inferred shapes.
pub(super) struct View<'g> {
    pub graph: &'g Graph,
    shapes: Shapes,
    /// Nodes whose results depend on the network's input.
    variable: HashSet<NodeId>,
}

impl<'g> View<'g> {
    pub fn new(graph: &'g Graph) -> Self {
        View {
            graph,
            shapes: infer(graph),
            variable: variable(graph),
        }
    }

    /// Whether a node computes the same on every image.
    pub fn is_fixed(&self, node: NodeId) -> bool {
        !self.variable.contains(&node)
    }

    /// Known and unknown dimensions of a value; `None` if not even the rank is known.
    pub fn dims(&self, value: Outlet) -> Option<Vec<Option<usize>>> {
        Some(self.shapes.of(value)?.iter().map(Dim::known).collect())
    }

    pub fn rank(&self, value: Outlet) -> Option<usize> {
        self.shapes.rank(value)
    }

    pub fn is_constant(&self, value: Outlet) -> bool {
        self.graph.initializer(value).is_some()
    }

    /// The integers of attribute `name`, or of the constant at input `i` where later operator sets moved them.
    pub fn integers(&self, node: NodeId, name: &str, i: usize) -> Option<Vec<i64>> {
        if let Some(values) = self.graph.op(node)?.ints(name) {
            return Some(values.to_vec());
        }
        self.graph.tensor(self.graph.input(node, i)?)?.to_i64().ok()
    }

    /// Whether `axis` of `value` is its last one; `None` if the rank is unknown and the axis counts from the front.
    pub fn is_last_axis(&self, value: Outlet, axis: i64) -> Option<bool> {
        if axis < 0 {
            return Some(axis == -1);
        }
        let rank = self.rank(value)?;
        Some(usize::try_from(axis).is_ok_and(|a| a + 1 == rank))
    }

    /// The results of an operator that something may read.
    pub fn outputs(&self, node: NodeId) -> impl Iterator<Item = Outlet> + use<> {
        let count = self.graph.op(node).map_or(0, |op| op.outputs.len());
        (0..count).map(move |slot| Outlet { node, slot })
    }

    /// The first values among `goals` met on the way back from `value`, through operators of `through`.
    pub fn behind(
        &self,
        value: Outlet,
        goal: impl Fn(Outlet) -> bool,
        through: impl Fn(&Op) -> Through,
    ) -> BTreeSet<Outlet> {
        let mut found = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut stack = vec![value];
        while let Some(value) = stack.pop() {
            if !seen.insert(value) {
                continue;
            }
            if goal(value) {
                found.insert(value);
                continue;
            }
            let Some(op) = self.graph.op(value.node) else {
                continue;
            };
            let inputs = self.graph.node_inputs(value.node);
            match through(op) {
                Through::No => {}
                Through::First => stack.extend(inputs.first().copied().flatten()),
                Through::All => stack.extend(inputs.into_iter().flatten()),
            }
        }
        found
    }

    /// The operators met first on the way on from `value` that are `goal`s, through operators of `through`; each
    /// with the input by which it was met.
    pub fn ahead(
        &self,
        value: Outlet,
        goal: impl Fn(NodeId, usize) -> bool,
        through: impl Fn(&Op) -> Through,
    ) -> BTreeSet<(NodeId, usize)> {
        let mut found = BTreeSet::new();
        let mut seen = HashSet::new();
        let mut stack = vec![value];
        while let Some(value) = stack.pop() {
            if !seen.insert(value) {
                continue;
            }
            for reader in self.graph.readers(value) {
                let Slot::Input(slot) = reader.slot else {
                    continue;
                };
                if goal(reader.node, slot) {
                    found.insert((reader.node, slot));
                    continue;
                }
                let Some(op) = self.graph.op(reader.node) else {
                    continue;
                };
                let follow = match through(op) {
                    Through::No => false,
                    Through::First => slot == 0,
                    Through::All => true,
                };
                if follow {
                    stack.extend(self.outputs(reader.node));
                }
            }
        }
        found
    }
}

fn variable(graph: &Graph) -> HashSet<NodeId> {
    let mut variable: HashSet<NodeId> = graph.inputs().map(|input| input.node).collect();
    let mut stack: Vec<NodeId> = variable.iter().copied().collect();
    while let Some(node) = stack.pop() {
        let slots = graph.op(node).map_or(1, |op| op.outputs.len());
        for slot in 0..slots {
            for reader in graph.readers(Outlet { node, slot }) {
                // What is made of a shape alone, like a token repeated for the batch, is the same for every image.
                let shape = graph.is(reader.node, "Shape") || graph.is(reader.node, "Size");
                if !shape && variable.insert(reader.node) {
                    stack.push(reader.node);
                }
            }
        }
    }
    variable
}

/// Which inputs of an operator a walk follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Through {
    No,
    First,
    All,
}

/// Operators that move values about and compute nothing.
pub(super) fn layout(op: &Op) -> Through {
    const LAYOUT: [&str; 12] = [
        "Cast",
        "Dropout",
        "Expand",
        "Flatten",
        "Gather",
        "Identity",
        "Reshape",
        "Slice",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
    ];
    if LAYOUT.iter().any(|l| op.is(l)) {
        Through::First
    } else {
        Through::No
    }
}

/// [`layout`], and what stands between a projection and an attention product: scales, rotary position embedding,
/// normalisation of queries and keys.
pub(super) fn projection(op: &Op) -> Through {
    const ELEMENTWISE: [&str; 6] = ["Add", "Concat", "Div", "Mul", "Neg", "Sub"];
    const NORM: [&str; 2] = ["LayerNormalization", "RMSNormalization"];
    if ELEMENTWISE.iter().any(|e| op.is(e)) {
        Through::All
    } else if NORM.iter().any(|n| op.is(n)) {
        Through::First
    } else {
        layout(op)
    }
}
