//! ```text
//! com.microsoft.Attention<num_heads>(x, W, b, mask, –, added)
//!   →  q, k, v = Split<axis = -1>(Add(MatMul(x, W), b))
//!      MatMul(Softmax(Mul(q·Kᵀ, s) + mask + added), v), by heads
//! ```
//! What ONNX Runtime's transformer optimiser makes of the three Linears of Q, K and V and the attention behind them.
//! s = 1/√head where it is not stated.
//!
//! Declines what [`contrib::is_plain`] does, a past, masks in other forms than `int32 [batch, tokens]` and the lengths
//! `int32 [batch]`, and models that cannot be raised to operator set 13.

use vitq_onnx::{DataType, Tensor};

use super::attention_parts::{Mask, Parts};
use super::contrib::{self, Padding, contrib};
use super::{Report, upgrade};
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Op, Outlet};

/// Operator set whose Split takes the widths of its parts as an input.
const OPSET: i64 = 13;

/// An Attention that can be taken apart.
struct Found {
    id: NodeId,
    /// Of Q, K and V.
    widths: [i64; 3],
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
        report.decline(format!("{} Attentions stay whole: {error}", found.len()));
        return 0;
    }
    found
        .iter()
        .filter_map(|attention| replace(graph, attention))
        .count()
}

fn find(graph: &Graph, shapes: &Shapes, id: NodeId) -> Option<Found> {
    let op = contrib(graph, id, "Attention").filter(|op| contrib::is_plain(op))?;
    let (past, lengths) = (graph.input(id, 4), graph.input(id, 6));
    let weight = graph.input(id, 1)?;
    let width = *graph.constant_dims(weight)?.get(1)? as i64;
    let float = shapes.dtype(weight) == Some(DataType::Float);
    if past.is_some() || lengths.is_some() || !float {
        return None;
    }
    let widths = match op.ints("qkv_hidden_sizes") {
        Some(&[q, k, v]) => [q, k, v],
        Some(_) => return None,
        None => [width / 3; 3],
    };
    let heads = op.int("num_heads").filter(|&heads| heads > 0)?;
    let divides = widths.iter().all(|width| *width > 0 && width % heads == 0);
    if !divides || widths[0] != widths[1] || widths.iter().sum::<i64>() != width {
        return None;
    }
    Some(Found {
        id,
        widths,
        heads,
        scale: contrib::scale(op, usize::try_from(widths[0] / heads).ok()?),
        padding: contrib::padding(graph, shapes, id, 3)?,
    })
}

fn replace(graph: &mut Graph, found: &Found) -> Option<()> {
    let name = graph.label(found.id);
    let (x, weight) = (graph.input(found.id, 0)?, graph.input(found.id, 1)?);
    let mut qkv = graph.insert("MatMul", &format!("{name}/qkv/MatMul"), &[x, weight]);
    if let Some(bias) = graph.input(found.id, 2) {
        qkv = graph.insert("Add", &format!("{name}/qkv/Add"), &[qkv, bias]);
    }
    let widths = Tensor::from_i64(&[3], &found.widths);
    let widths = graph.add_initializer(&format!("{name}/widths"), &widths);
    let parts = ["query", "key", "value"].map(|part| format!("{name}/{part}"));
    let split = Op::new("Split", &format!("{name}/Split"))
        .with_int("axis", -1)
        .with_outputs(&parts.each_ref().map(String::as_str));
    let node = graph.add_op(split, &[Some(qkv), Some(widths)]);
    let padding = contrib::mask(graph, found.id, x, &found.padding);
    let added = graph.input(found.id, 5).map(Mask::Added);
    let parts = Parts {
        name,
        operands: [0, 1, 2].map(|slot| Outlet { node, slot }),
        masks: padding.into_iter().chain(added).collect(),
        scale: found.scale,
        heads: Some(found.heads),
    };
    parts.replace(graph, found.id);
    Some(())
}
