//! An attention as the one operator of operator set 23.
//!
//! ```text
//! MatMul(Softmax([+ mask] [· s] MatMul(heads(q) [· s], heads(k)ᵀ [· s])), heads(v)) ─ Transpose[0, 2, 1, 3] ─ Reshape
//!   →  Attention<scale, q_num_heads, kv_num_heads>(q, k, v, [mask])
//!
//! heads(x) = Transpose[0, 2, 1, 3](Reshape(x, [batch, tokens, heads, head]))       q, k, v: [batch, tokens, channels]
//!          = Transpose[2, 0, 3, 1, 4](Reshape(x, [batch, tokens, 3, heads, head]))[i]   →  Split(x)[i]
//! ```
//! For runtimes that spare the four copies of the Transposes so. The same but for rounding. Declined: where a product is quantised, where anything between has
//! another reader, queries and keys that are changed per head (rotary positions, norms), masks that are added before a scale, have
//! more than four dimensions or one value for many pairs of tokens, and heads of unknown number or width.

use std::collections::HashMap;

use vitq_onnx::Tensor;

use crate::infer::{Dim, Shapes, infer};
use crate::ir::{Graph, NodeId, Op, Outlet, Slot};

/// The operator set that brought the operator.
pub const OPSET: i64 = 23;

/// Writes every such attention as one operator; returns how many there were.
pub fn fuse_attentions(graph: &mut Graph) -> usize {
    if graph.opset() < OPSET {
        return 0;
    }
    let shapes = infer(graph);
    let nodes: Vec<NodeId> = graph.ops().map(|(node, _)| node).collect();
    let view = View {
        graph,
        shapes: &shapes,
    };
    let found: Vec<Attention> = nodes
        .into_iter()
        .filter_map(|node| view.attention(node))
        .collect();
    let mut thirds = HashMap::new();
    for attention in &found {
        rewrite(graph, attention, &mut thirds);
    }
    graph.remove_dead();
    found.len()
}

struct Attention {
    softmax: NodeId,
    /// Q, K and V.
    operands: [Operand; 3],
    heads: i64,
    scale: f32,
    mask: Option<Outlet>,
    /// `[batch, tokens, channels]`
    result: Outlet,
}

/// `[batch, tokens, channels]`, or a third of its channels.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Operand {
    value: Outlet,
    third: Option<usize>,
    heads: usize,
    /// Channels of a head.
    width: usize,
}

struct View<'g> {
    graph: &'g Graph,
    shapes: &'g Shapes,
}

impl View<'_> {
    fn attention(&self, softmax: NodeId) -> Option<Attention> {
        let graph = self.graph;
        if !graph.is(softmax, "Softmax")
            || !matches!(graph.op(softmax)?.int("axis"), None | Some(-1 | 3))
        {
            return None;
        }
        let (product, mut scale, mask) = self.scores(graph.input(softmax, 0)?)?;
        let (query, factor) = self.scaled(graph.input(product, 0)?)?;
        scale *= factor;
        let (key, factor) = self.scaled(graph.input(product, 1)?)?;
        scale *= factor;
        let behind = self.next(softmax, "MatMul", 0)?;
        let value = graph.input(behind, 1)?;
        let turned = self.next(behind, "Transpose", 0)?;
        let joined = self.next(turned, "Reshape", 0)?;
        let result = Outlet {
            node: joined,
            slot: 0,
        };
        let [query, key, value] = [
            self.operand(query, [0, 2, 1, 3])?,
            self.operand(key, [0, 2, 3, 1])?,
            self.operand(value, [0, 2, 1, 3])?,
        ];
        let whole = query.heads == key.heads && query.heads == value.heads;
        let joins = graph.op(turned)?.ints("perm")? == [0, 2, 1, 3]
            && self.shapes.of(result)?.len() == 3
            && self.extent(result, 2)? == value.heads * value.width;
        (whole && joins && scale.is_finite() && scale > 0.0).then_some(Attention {
            softmax,
            operands: [query, key, value],
            heads: i64::try_from(query.heads).ok()?,
            scale,
            mask,
            result,
        })
    }

    /// The product of Q and K, what it is multiplied with, and what is added.
    fn scores(&self, value: Outlet) -> Option<(NodeId, f32, Option<Outlet>)> {
        self.graph.only_reader(value)?;
        if self.graph.is(value.node, "MatMul") {
            return Some((value.node, 1.0, None));
        }
        if let Some((inner, factor)) = self.multiplied(value) {
            let (product, scale, mask) = self.scores(inner)?;
            return mask.is_none().then_some((product, scale * factor, None));
        }
        let added = self.graph.is(value.node, "Add").then_some(value.node)?;
        let inputs = [self.graph.input(added, 0)?, self.graph.input(added, 1)?];
        let sides = [(inputs[0], inputs[1]), (inputs[1], inputs[0])];
        sides.into_iter().find_map(|(inner, mask)| {
            let (product, scale, none) = self.scores(inner)?;
            let fits = none.is_none() && self.masks(mask, product)?;
            fits.then_some((product, scale, Some(mask)))
        })
    }

    /// Whether `mask` has a value for each pair of tokens: ONNX Runtime repeats it along the axes before alone.
    fn masks(&self, mask: Outlet, product: NodeId) -> Option<bool> {
        let scores = Outlet {
            node: product,
            slot: 0,
        };
        let (mask, scores) = (self.shapes.of(mask)?, self.shapes.of(scores)?);
        let pairs = |dims: &[Dim]| Some(dims.get(dims.len().checked_sub(2)?..)?.to_vec());
        let (wanted, found) = (pairs(scores)?, pairs(mask)?);
        Some(mask.len() <= 4 && wanted == found && !wanted.contains(&Dim::Unknown))
    }

    /// A value before it was multiplied with a number, and that number.
    fn scaled(&self, value: Outlet) -> Option<(Outlet, f32)> {
        self.graph.only_reader(value)?;
        Some(self.multiplied(value).unwrap_or((value, 1.0)))
    }

    fn multiplied(&self, value: Outlet) -> Option<(Outlet, f32)> {
        let (a, b) = (
            self.graph.input(value.node, 0)?,
            self.graph.input(value.node, 1)?,
        );
        if self.graph.is(value.node, "Div") {
            return Some((a, self.graph.scalar(b)?.recip()));
        }
        let product = self.graph.is(value.node, "Mul");
        let sides = [(a, b), (b, a)].into_iter().filter(|_| product);
        sides
            .into_iter()
            .find_map(|(value, factor)| Some((value, self.graph.scalar(factor)?)))
    }

    /// What `value` holds the heads of, if its axes are `order` of `[batch, tokens, heads, head]`.
    fn operand(&self, value: Outlet, order: [i64; 4]) -> Option<Operand> {
        let graph = self.graph;
        self.graph.only_reader(value)?;
        let (value, order) = match graph.op(value.node)?.ints("perm") {
            // K is often turned round once more.
            Some(perm) if graph.is(value.node, "Transpose") && perm == [0, 1, 3, 2] => (
                graph.input(value.node, 0)?,
                [order[0], order[1], order[3], order[2]],
            ),
            _ => (value, order),
        };
        let heads =
            |value: Outlet, axis| Some((self.extent(value, axis)?, self.extent(value, axis + 1)?));
        if graph.is(value.node, "Transpose") && graph.op(value.node)?.ints("perm")? == order {
            let split = graph.input(value.node, 0)?;
            let whole = self.cut(split, 4)?;
            let (heads, width) = heads(split, 2)?;
            return Some(Operand {
                value: whole,
                third: None,
                heads,
                width,
            });
        }
        let (stacked, third) = self.chosen(value)?;
        let turned = graph.is(stacked.node, "Transpose") && order == [0, 2, 1, 3];
        if !turned || graph.op(stacked.node)?.ints("perm")? != [2, 0, 3, 1, 4] {
            return None;
        }
        let split = graph.input(stacked.node, 0)?;
        let whole = self.cut(split, 5)?;
        let (heads, width) = heads(split, 3)?;
        (self.extent(split, 2)? == 3).then_some(Operand {
            value: whole,
            third: Some(third),
            heads,
            width,
        })
    }

    /// What a Reshape cuts the channels of, `[batch, tokens, channels]`, into axes up to `rank`.
    fn cut(&self, split: Outlet, rank: usize) -> Option<Outlet> {
        let reshape = self.graph.is(split.node, "Reshape").then_some(split.node)?;
        let whole = self.graph.input(reshape, 0)?;
        let (from, to) = (self.shapes.of(whole)?, self.shapes.of(split)?);
        let channels: Option<usize> = to.get(2..)?.iter().map(Dim::known).product();
        // One of the first two may be unknown: with the channels the same, it is the same.
        let same = from.len() == 3
            && to.len() == rank
            && from[2].known() == channels
            && (from[0] == to[0] && from[0] != Dim::Unknown
                || from[1] == to[1] && from[1] != Dim::Unknown);
        same.then_some(whole)
    }

    /// The value of which this is the `i`th along its first axis.
    fn chosen(&self, value: Outlet) -> Option<(Outlet, usize)> {
        let graph = self.graph;
        let op = graph.op(value.node)?;
        if op.is("Gather") && op.int("axis").unwrap_or(0) == 0 {
            let index = graph.tensor(graph.input(value.node, 1)?)?;
            let &[index] = &index.to_i64().ok()?[..] else {
                return None;
            };
            let scalar = self.shapes.rank(value)? == 4;
            let index = usize::try_from(index.rem_euclid(3)).ok()?;
            return scalar.then_some((graph.input(value.node, 0)?, index));
        }
        let parts = op
            .is("Squeeze")
            .then(|| graph.input(value.node, 0))
            .flatten()?;
        let first = graph.is(parts.node, "Split")
            && graph.op(parts.node)?.int("axis").unwrap_or(0) == 0
            && graph.op(parts.node)?.outputs.len() == 3
            && self.shapes.rank(value)? == 4;
        first.then_some((graph.input(parts.node, 0)?, parts.slot))
    }

    fn extent(&self, value: Outlet, axis: usize) -> Option<usize> {
        self.shapes.of(value)?.get(axis)?.known()
    }

    /// The only reader of a node's result, if it is this operator and reads it there.
    fn next(&self, node: NodeId, op_type: &str, slot: usize) -> Option<NodeId> {
        let reader = self.graph.only_reader(Outlet { node, slot: 0 })?;
        let fits = reader.slot == Slot::Input(slot) && self.graph.is(reader.node, op_type);
        fits.then_some(reader.node)
    }
}

fn rewrite(graph: &mut Graph, attention: &Attention, thirds: &mut HashMap<Outlet, NodeId>) {
    let label = graph.label(attention.softmax);
    let mut inputs: Vec<Outlet> = attention
        .operands
        .iter()
        .map(|operand| third(graph, operand, thirds))
        .collect();
    inputs.extend(attention.mask);
    let op = Op::new("Attention", &format!("{label}/Attention"))
        .with_int("q_num_heads", attention.heads)
        .with_int("kv_num_heads", attention.heads)
        .with_float("scale", attention.scale);
    let fused = graph.insert_op(op, &inputs);
    graph.supersede(attention.result, fused);
}

/// The operand, a Split's result where it is a third.
fn third(graph: &mut Graph, operand: &Operand, thirds: &mut HashMap<Outlet, NodeId>) -> Outlet {
    let Some(slot) = operand.third else {
        return operand.value;
    };
    let value = operand.value;
    let node = *thirds.entry(value).or_insert_with(|| {
        let name = format!("{}/thirds", graph.label(value.node));
        let channels = (operand.heads * operand.width) as i64;
        let sizes = Tensor::from_i64(&[3], &[channels; 3]);
        let sizes = graph.add_initializer(&format!("{name}/sizes"), &sizes);
        let outputs = ["q", "k", "v"].map(|part| format!("{name}/{part}"));
        let split = Op::new("Split", &name)
            .with_int("axis", 2)
            .with_outputs(&outputs.each_ref().map(String::as_str));
        graph.add_op(split, &[Some(value), Some(sizes)])
    });
    Outlet { node, slot }
}
