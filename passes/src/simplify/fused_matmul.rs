//! A com.microsoft.FusedMatMul is taken apart.
//!
//! ```text
//! com.microsoft.FusedMatMul<alpha, transA, transB>(a, b)  →  Mul(MatMul([Transpose](a), [Transpose](b)), alpha)
//! ```
//! ONNX Runtime's optimisers put the scale and the transpose of Q·Kᵀ into the product; a Transpose turns the last two axes.
//! Declines transposed batches (`transBatchA`, `transBatchB`), an operand to be turned whose rank is unknown or below 2,
//! and other types than float32.

use vitq_onnx::{DataType, Tensor};

use super::Report;
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Op, Outlet};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let ids = graph.topological().unwrap_or_default();
    let found: Vec<Found> = ids
        .into_iter()
        .filter_map(|id| find(graph, shapes, id))
        .collect();
    for product in &found {
        replace(graph, product);
    }
    found.len()
}

/// A FusedMatMul that can be taken apart.
struct Found {
    id: NodeId,
    alpha: f32,
    /// Each operand, and the order of its axes if it is to be turned.
    operands: [(Outlet, Option<Vec<i64>>); 2],
}

fn find(graph: &Graph, shapes: &Shapes, id: NodeId) -> Option<Found> {
    let op = graph
        .op(id)
        .filter(|op| op.message.domain() == "com.microsoft" && op.op_type() == "FusedMatMul")?;
    let set = |name: &str| op.int(name).unwrap_or(0) != 0;
    if set("transBatchA") || set("transBatchB") {
        return None;
    }
    let operand = |i: usize, turn: &str| {
        let value = graph.input(id, i)?;
        let float = shapes.dtype(value) == Some(DataType::Float);
        let order = match set(turn) {
            true => Some(turned(shapes.rank(value)?)?),
            false => None,
        };
        float.then_some((value, order))
    };
    Some(Found {
        id,
        alpha: op.float("alpha").unwrap_or(1.0),
        operands: [operand(0, "transA")?, operand(1, "transB")?],
    })
}

/// The order of axes that exchanges the last two.
fn turned(rank: usize) -> Option<Vec<i64>> {
    let mut order: Vec<i64> = (0..i64::try_from(rank).ok()?).collect();
    order.swap(rank.checked_sub(2)?, rank - 1);
    Some(order)
}

fn replace(graph: &mut Graph, found: &Found) {
    let name = graph.label(found.id);
    let operands = found.operands.each_ref().map(|(value, order)| match order {
        Some(order) => {
            let op = Op::new("Transpose", &format!("{name}/Transpose")).with_ints("perm", order);
            graph.insert_op(op, &[*value])
        }
        None => *value,
    });
    let mut result = graph.insert("MatMul", &format!("{name}/MatMul"), &operands);
    if found.alpha != 1.0 {
        let alpha = Tensor::from_f32(&[], &[found.alpha]);
        let alpha = graph.add_initializer(&format!("{name}/alpha"), &alpha);
        result = graph.insert("Mul", &format!("{name}/Mul"), &[result, alpha]);
    }
    let fused = Outlet {
        node: found.id,
        slot: 0,
    };
    graph.supersede(fused, result);
}
