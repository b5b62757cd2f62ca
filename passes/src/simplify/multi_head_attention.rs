//! ```text
//! com.microsoft.MultiHeadAttention<num_heads>(q, k, v, b, mask, added)      q, k, v: [batch, tokens, heads·head]
//!   →  MatMul(Softmax(Mul(Add(q, b_q)·Add(k, b_k)ᵀ, s) + mask + added), Add(v, b_v)), by heads
//! ```
//! What ONNX Runtime's transformer optimiser makes of attention where it leaves the three Linears alone; their biases go
//! back to them. s = 1/√head where it is not stated.
//!
//! Declines what [`contrib::is_plain`] does, a past, packed operands, a bias that is no constant, masks in other forms
//! than `int32 [batch, tokens]` and the lengths `int32 [batch]`, and models that cannot be raised to operator set 13.

use vitq_onnx::{DataType, Tensor};

use super::attention_parts::{Mask, Parts};
use super::contrib::{self, Padding, contrib};
use super::{Report, upgrade};
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Outlet};

/// Operator set whose Unsqueeze, which a mask needs, takes its axes as an input.
const OPSET: i64 = 13;

/// A MultiHeadAttention that can be taken apart.
struct Found {
    id: NodeId,
    operands: [Outlet; 3],
    /// Of each operand.
    biases: Option<[Tensor; 3]>,
    heads: i64,
    scale: f32,
    padding: Padding,
}

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, report: &mut Report) -> usize {
    let ids = graph.topological().unwrap_or_default();
    let found: Vec<Found> = ids
        .into_iter()
        .filter_map(|id| find(graph, shapes, id))
        .collect();
    if found.is_empty() {
        return 0;
    }
    if let Err(error) = upgrade::to(graph, OPSET) {
        let many = found.len();
        report.decline(format!("{many} MultiHeadAttentions stay whole: {error}"));
        return 0;
    }
    for attention in &found {
        replace(graph, attention);
    }
    found.len()
}

fn find(graph: &Graph, shapes: &Shapes, id: NodeId) -> Option<Found> {
    let op = contrib(graph, id, "MultiHeadAttention").filter(|op| contrib::is_plain(op))?;
    if graph.node_inputs(id).iter().skip(6).any(Option::is_some) {
        return None;
    }
    let operands = [0, 1, 2].map(|i| graph.input(id, i));
    let [Some(query), Some(key), Some(value)] = operands else {
        return None;
    };
    let operands = [query, key, value];
    let float = |v: &Outlet| shapes.dtype(*v) == Some(DataType::Float);
    if !operands.iter().all(float) {
        return None;
    }
    let width = |v: Outlet| match shapes.of(v)? {
        [_, _, width] => width.known().filter(|&width| width > 0),
        _ => None,
    };
    let widths = [width(query)?, width(key)?, width(value)?];
    let heads = op.int("num_heads").filter(|&heads| heads > 0)?;
    let biases = match graph.input(id, 3) {
        None => None,
        Some(bias) => Some(three(&graph.tensor(bias)?, widths)?),
    };
    Some(Found {
        id,
        operands,
        biases,
        heads,
        scale: contrib::scale(op, widths[0] / usize::try_from(heads).ok()?),
        padding: contrib::padding(graph, shapes, id, 4)?,
    })
}

/// The biases of Q, K and V in one vector, apart.
fn three(bias: &Tensor, widths: [usize; 3]) -> Option<[Tensor; 3]> {
    let values = bias.to_f32().ok()?;
    let (query, rest) = values.split_at_checked(widths[0])?;
    let (key, value) = rest.split_at_checked(widths[1])?;
    let part = |values: &[f32]| Tensor::from_f32(&[values.len()], values);
    (value.len() == widths[2]).then(|| [part(query), part(key), part(value)])
}

fn replace(graph: &mut Graph, found: &Found) {
    let name = graph.label(found.id);
    let mut operands = found.operands;
    if let Some(biases) = &found.biases {
        let parts = ["query", "key", "value"].iter().zip(biases);
        for (operand, (part, bias)) in operands.iter_mut().zip(parts) {
            let bias = graph.add_initializer(&format!("{name}/{part}/bias"), bias);
            *operand = graph.insert("Add", &format!("{name}/{part}/Add"), &[*operand, bias]);
        }
    }
    let padding = contrib::mask(graph, found.id, found.operands[1], &found.padding);
    let added = graph.input(found.id, 5).map(Mask::Added);
    let parts = Parts {
        name,
        operands,
        masks: padding.into_iter().chain(added).collect(),
        scale: found.scale,
        heads: Some(found.heads),
    };
    parts.replace(graph, found.id);
}
