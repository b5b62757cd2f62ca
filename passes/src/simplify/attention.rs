//! ```text
//! Attention<scale = s>(Q, K, V, mask)    Q, K, V: [batch, heads, tokens, head], or [batch, tokens, heads·head] with q_num_heads
//!   →  MatMul(Softmax(Add(Mul(MatMul(Q, Transpose(K)), s), mask)), V)
//! ```
//! s = 1/√head where it is not stated (Vaswani et al. 2017, eq. 1). A boolean mask chooses with `Where` between the
//! scores and -∞. Three-dimensional operands are taken apart into heads first, and their result joined again.
//!
//! Declines causal attention, a cap on the scores, a past, fewer heads of K than of Q, further outputs, other types
//! than float32 and heads of unknown width: there the operator stays, and its products stay float.

use vitq_onnx::DataType;

use super::Report;
use super::attention_parts::{Mask, Parts};
use crate::infer::{Dim, Shapes};
use crate::ir::{Graph, NodeId, Op, Outlet};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let ids = graph.topological().unwrap_or_default();
    let found: Vec<(NodeId, Parts)> = ids
        .into_iter()
        .filter_map(|id| Some((id, find(graph, shapes, id)?)))
        .collect();
    for (id, parts) in &found {
        parts.replace(graph, *id);
    }
    found.len()
}

fn find(graph: &Graph, shapes: &Shapes, id: NodeId) -> Option<Parts> {
    let op = graph.op(id).filter(|op| op.is("Attention"))?;
    let off = |name: &str| op.int(name).unwrap_or(0) == 0;
    let plain = off("is_causal")
        && off("qk_matmul_output_mode")
        && op.float("softcap").unwrap_or(0.0) == 0.0;
    let alone = op.outputs.iter().skip(1).all(String::is_empty);
    // Inputs 4 and on: a past, and the lengths of what is not padding.
    let inputs = graph.node_inputs(id);
    if !plain || !alone || inputs.iter().skip(4).any(Option::is_some) {
        return None;
    }
    let operands = [
        graph.input(id, 0)?,
        graph.input(id, 1)?,
        graph.input(id, 2)?,
    ];
    let float = |v: &Outlet| shapes.dtype(*v) == Some(DataType::Float);
    if !operands.iter().all(float) {
        return None;
    }
    let (heads, head) = heads(op, shapes, operands)?;
    let masks = match graph.input(id, 3) {
        None => vec![],
        Some(mask) => vec![match shapes.dtype(mask)? {
            DataType::Bool => Mask::Chosen(mask),
            DataType::Float => Mask::Added(mask),
            _ => return None,
        }],
    };
    Some(Parts {
        name: graph.label(id),
        operands,
        masks,
        scale: op.float("scale").unwrap_or(1.0 / (head as f32).sqrt()),
        heads,
    })
}

/// The number of heads, where they stand side by side in one axis, and the width of one.
fn heads(op: &Op, shapes: &Shapes, operands: [Outlet; 3]) -> Option<(Option<i64>, usize)> {
    let dims: Vec<&[Dim]> = operands
        .iter()
        .map(|v| shapes.of(*v))
        .collect::<Option<_>>()?;
    let width = dims[0].last()?.known().filter(|&width| width > 0)?;
    match dims[0].len() {
        4 if dims.iter().all(|d| d.len() == 4 && d[1].same(&dims[0][1])) => Some((None, width)),
        3 if dims.iter().all(|d| d.len() == 3) => {
            let heads = op.int("q_num_heads").filter(|&heads| heads > 0)?;
            let same = op.int("kv_num_heads") == Some(heads);
            let head = width / usize::try_from(heads).ok()?;
            (same && head > 0).then_some((Some(heads), head))
        }
        _ => None,
    }
}
