//! ```text
//! Attention<scale = s>(Q, K, V, mask)    Q, K, V: [batch, heads, tokens, head], or [batch, tokens, heads·head] with q_num_heads
//!   →  MatMul(Softmax(Add(Mul(MatMul(Q, Transpose(K)), s), mask)), V)
//! ```
//! s = 1/√head where it is not stated (Vaswani et al. 2017, eq. 1). A boolean mask chooses with `Where` between the
//! scores and -∞. Three-dimensional operands are taken apart into heads first, and their result joined again.
//!
//! Declines causal attention, a cap on the scores, a past, fewer heads of K than of Q, further outputs, other types
//! than float32 and heads of unknown width: there the operator stays, and its products stay float.

use vitq_onnx::{DataType, Tensor};

use super::Report;
use crate::infer::{Dim, Shapes};
use crate::ir::{Graph, NodeId, Op, Outlet};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let ids = graph.topological().unwrap_or_default();
    let found: Vec<Found> = ids
        .into_iter()
        .filter_map(|id| find(graph, shapes, id))
        .collect();
    for attention in &found {
        replace(graph, attention);
    }
    found.len()
}

/// An Attention that can be taken apart.
struct Found {
    id: NodeId,
    name: String,
    operands: [Outlet; 3],
    mask: Option<Mask>,
    scale: f32,
    /// Of three-dimensional operands.
    heads: Option<i64>,
}

enum Mask {
    Added(Outlet),
    Chosen(Outlet),
}

fn find(graph: &Graph, shapes: &Shapes, id: NodeId) -> Option<Found> {
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
    let mask = match graph.input(id, 3) {
        None => None,
        Some(mask) => Some(match shapes.dtype(mask)? {
            DataType::Bool => Mask::Chosen(mask),
            DataType::Float => Mask::Added(mask),
            _ => return None,
        }),
    };
    Some(Found {
        id,
        name: graph.label(id),
        operands,
        mask,
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

fn replace(graph: &mut Graph, found: &Found) {
    let name = |part: &str| format!("{}/{part}", found.name);
    let mut operands = found.operands;
    if let Some(heads) = found.heads {
        for (operand, part) in operands.iter_mut().zip(["query", "key", "value"]) {
            *operand = apart(graph, &name(part), *operand, heads);
        }
    }
    let [query, key, value] = operands;
    let turned = Op::new("Transpose", &name("Transpose")).with_ints("perm", &[0, 1, 3, 2]);
    let key = graph.insert_op(turned, &[key]);
    let product = graph.insert("MatMul", &name("MatMul"), &[query, key]);
    let scale = graph.add_initializer(&name("scale"), &Tensor::from_f32(&[], &[found.scale]));
    let mut scores = graph.insert("Mul", &name("Mul"), &[product, scale]);
    scores = match found.mask {
        None => scores,
        Some(Mask::Added(mask)) => graph.insert("Add", &name("Add"), &[scores, mask]),
        Some(Mask::Chosen(mask)) => {
            let never = Tensor::from_f32(&[], &[f32::NEG_INFINITY]);
            let never = graph.add_initializer(&name("masked"), &never);
            graph.insert("Where", &name("Where"), &[mask, scores, never])
        }
    };
    let softmax = Op::new("Softmax", &name("Softmax")).with_int("axis", -1);
    let weights = graph.insert_op(softmax, &[scores]);
    let mut result = graph.insert("MatMul", &name("MatMul_1"), &[weights, value]);
    if found.heads.is_some() {
        result = joined(graph, &name("joined"), result);
    }
    let old = Outlet {
        node: found.id,
        slot: 0,
    };
    for made in [product, result] {
        keep_scopes(graph, found.id, made.node);
    }
    graph.supersede(old, result);
}

/// `[batch, tokens, heads·head]` → `[batch, heads, tokens, head]`
fn apart(graph: &mut Graph, name: &str, value: Outlet, heads: i64) -> Outlet {
    let shape = Tensor::from_i64(&[4], &[0, 0, heads, -1]);
    let shape = graph.add_initializer(&format!("{name}/shape"), &shape);
    let value = graph.insert("Reshape", &format!("{name}/Reshape"), &[value, shape]);
    swapped(graph, name, value)
}

/// `[batch, heads, tokens, head]` → `[batch, tokens, heads·head]`
fn joined(graph: &mut Graph, name: &str, value: Outlet) -> Outlet {
    let value = swapped(graph, name, value);
    let shape = Tensor::from_i64(&[3], &[0, 0, -1]);
    let shape = graph.add_initializer(&format!("{name}/shape"), &shape);
    graph.insert("Reshape", &format!("{name}/Reshape"), &[value, shape])
}

fn swapped(graph: &mut Graph, name: &str, value: Outlet) -> Outlet {
    let op = Op::new("Transpose", &format!("{name}/Transpose"));
    graph.insert_op(op.with_ints("perm", &[0, 2, 1, 3]), &[value])
}

/// The exporter's notes on where the operator stood, on the products that people look for.
fn keep_scopes(graph: &mut Graph, from: NodeId, to: NodeId) {
    let Some(notes) = graph.op(from).map(|op| op.message.metadata_props.clone()) else {
        return;
    };
    if let Some(op) = graph.op_mut(to) {
        op.message.metadata_props = notes;
    }
}
