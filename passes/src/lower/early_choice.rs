//! A choice of tokens taken where it costs least: tokens that nobody reads are not computed.
//!
//! ```text
//! Q·Kᵀ ─ Softmax ─ attention·V ─ proj ─ Add ─ LayerNormalization ─ MLP ─ Add ─ LayerNormalization ─ Gather(class token) ─ head
//!   →  Slice(Q)·Kᵀ ─ … the same on one token … ─ Gather ─ head          (and a Slice on the residual)
//! ```
//! A classifier that reads its class token computes all other tokens of the last block for nothing, but for their keys and values:
//! about a fifteenth of a ViT of 12 blocks. Exact, as rows are independent ([`View::needed`]).
//!
//! Values that lose tokens get the ending `/chosen`, so that nobody takes them for the float model's.
//! Declined: where all tokens are read (means over them, dense outputs) or those behind a half of them, at operators not known to
//! keep rows apart, and where no product becomes smaller.

use std::collections::HashMap;

use vitq_onnx::Tensor;

use super::rows::{Rows, View};
use crate::infer::infer;
use crate::ir::{Graph, NodeId, Op, Outlet};

/// What the names of values with fewer tokens end with.
const CHOSEN: &str = "/chosen";

/// Moves choices of tokens towards the inputs; returns how many products became smaller.
pub fn choose_early(graph: &mut Graph) -> usize {
    // Softmax works on one axis alone since operator set 13.
    if graph.opset() < 13 {
        return 0;
    }
    let shapes = infer(graph);
    let narrowed = narrowed(&View {
        graph,
        shapes: &shapes,
    });
    let products = narrowed
        .iter()
        .filter(|it| graph.is(it.node, "MatMul") || graph.is(it.node, "MatMulInteger"))
        .count();
    if products > 0 {
        let results = narrowed.iter().map(|it| (it.result(), it.rows)).collect();
        let mut cuts = Cuts {
            graph,
            results,
            made: HashMap::new(),
        };
        narrowed.iter().for_each(|it| cuts.narrow(it));
        narrowed.iter().for_each(|it| rename(graph, it.result()));
    }
    products
}

/// An operator of whose result only some rows are read.
struct Narrowed {
    node: NodeId,
    rows: Rows,
    /// For each input the axis of the rows, if it has them.
    axes: Vec<Option<usize>>,
}

impl Narrowed {
    fn result(&self) -> Outlet {
        Outlet {
            node: self.node,
            slot: 0,
        }
    }
}

/// All operators that can do with fewer rows, readers before what they read.
fn narrowed(view: &View) -> Vec<Narrowed> {
    let graph = view.graph;
    let mut reads = Reads::default();
    let mut found = Vec::new();
    for node in graph.topological().unwrap_or_default().into_iter().rev() {
        let Some(op) = graph.op(node) else { continue };
        let inputs = graph.node_inputs(node).into_iter().flatten();
        if let Some(rows) = view.chosen(node) {
            reads.add(view, graph.input(node, 0), Some(rows));
            continue;
        }
        let rows = reads.of(graph, op, node);
        let axes = rows.and_then(|rows| view.needed(node, rows.axis));
        let (Some(rows), Some(axes)) = (rows, axes) else {
            inputs.for_each(|value| reads.add(view, Some(value), None));
            continue;
        };
        for (input, axis) in axes.iter().enumerate() {
            let rows = axis.map(|axis| Rows { axis, ..rows });
            reads.add(view, graph.input(node, input), rows);
        }
        found.push(Narrowed { node, rows, axes });
    }
    found
}

/// What is read of each value: `None` is all of it.
#[derive(Default)]
struct Reads(HashMap<Outlet, Option<Rows>>);

impl Reads {
    /// Notes a reader; more than half of the rows are as good as all.
    fn add(&mut self, view: &View, value: Option<Outlet>, rows: Option<Rows>) {
        let Some(value) = value else { return };
        let worth = |rows: &Rows| {
            view.size(value, rows.axis)
                .is_some_and(|size| 2 * rows.count <= size)
        };
        let rows = rows.filter(worth);
        let joined = match (self.0.get(&value), rows) {
            (None, rows) => rows,
            (Some(Some(known)), Some(rows)) if known.axis == rows.axis => Some(Rows {
                count: known.count.max(rows.count),
                ..rows
            }),
            _ => None,
        };
        self.0.insert(value, joined);
    }

    /// The rows that are read of an operator's only result.
    fn of(&self, graph: &Graph, op: &Op, node: NodeId) -> Option<Rows> {
        let result = Outlet { node, slot: 0 };
        let whole = op.outputs.len() != 1 || graph.is_output(result) || graph.is_captured(result);
        *self.0.get(&result).filter(|_| !whole)?
    }
}

/// The graph while operators are narrowed.
struct Cuts<'g> {
    graph: &'g mut Graph,
    /// Results with fewer rows.
    results: HashMap<Outlet, Rows>,
    /// Slices by what they are cut from.
    made: HashMap<(Outlet, Rows), Outlet>,
}

impl Cuts<'_> {
    fn narrow(&mut self, it: &Narrowed) {
        for (input, axis) in it.axes.iter().enumerate() {
            let (Some(axis), Some(value)) = (*axis, self.graph.input(it.node, input)) else {
                continue;
            };
            let rows = Rows { axis, ..it.rows };
            if self.results.get(&value) != Some(&rows) {
                let cut = self.cut(value, rows);
                self.graph.set_input(it.node, input, cut);
            }
        }
        if self.graph.is(it.node, "Reshape") {
            self.reshape(it);
        }
    }

    /// The rows of a value; of its codes where it is dequantised, so that the product behind it still sees the quantiser.
    fn cut(&mut self, value: Outlet, rows: Rows) -> Outlet {
        if let Some(&cut) = self.made.get(&(value, rows)) {
            return cut;
        }
        let name = format!("{}{CHOSEN}", self.graph.name(value));
        let op = self.graph.op(value.node);
        let cut = match op.filter(|op| op.is("DequantizeLinear")).cloned() {
            Some(mut op) => {
                op.message.name = Some(name.clone());
                let mut inputs = self.graph.node_inputs(value.node);
                inputs[0] = inputs[0].map(|codes| self.cut(codes, rows));
                let node = self.graph.add_op(op.with_outputs(&[&name]), &inputs);
                Outlet { node, slot: 0 }
            }
            None => self.slice(value, rows, &name),
        };
        self.made.insert((value, rows), cut);
        cut
    }

    fn slice(&mut self, value: Outlet, rows: Rows, name: &str) -> Outlet {
        let integers = [0, rows.count as i64, -1 - rows.axis as i64];
        let [start, end, axis] = integers.map(|i| {
            let tensor = Tensor::from_i64(&[1], &[i]);
            self.graph
                .add_initializer(&format!("{name}/place"), &tensor)
        });
        self.graph.insert("Slice", name, &[value, start, end, axis])
    }

    /// A stated number of rows becomes the new one.
    fn reshape(&mut self, it: &Narrowed) {
        let shape = self
            .graph
            .input(it.node, 1)
            .and_then(|v| self.graph.tensor(v));
        let Some(mut shape) = shape.and_then(|t| t.to_i64().ok()) else {
            return;
        };
        let place = shape.len() - 1 - it.rows.axis;
        if shape[place] > 0 {
            shape[place] = it.rows.count as i64;
            self.graph
                .replace_constant(it.node, 1, &Tensor::from_i64(&[shape.len()], &shape));
        }
    }
}

fn rename(graph: &mut Graph, value: Outlet) {
    let name = graph.fresh(&format!("{}{CHOSEN}", graph.name(value)));
    if let Some(output) = graph
        .op_mut(value.node)
        .and_then(|op| op.outputs.get_mut(value.slot))
    {
        *output = name;
    }
}
