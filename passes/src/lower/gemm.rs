//! A Linear as Gemm, for targets whose operator is the product with its bias.
//!
//! ```text
//! x [a, b, in] ─ MatMul(W [in, out]) ─ Add(β [out]) ─ readers
//!   →  x ─ Reshape[-1, in] ─ Gemm(W, β) ─ Reshape[a, b, out] ─ readers                    (no Reshapes around two dimensions)
//! ```
//! Exact: rows are independent, and none moves. Declined: where the product has other readers than the Add, where W or β is computed, and where
//! more than one extent of x is unknown, as a Reshape can infer one alone.

use vitq_onnx::Tensor;

use crate::infer::{Shapes, infer};
use crate::ir::{Graph, NodeId, Op, Outlet, Slot};

/// Writes every such Linear as Gemm; returns how many there were.
pub fn to_gemm(graph: &mut Graph) -> usize {
    let shapes = infer(graph);
    let products: Vec<NodeId> = graph.ops().map(|(node, _)| node).collect();
    let found: Vec<Linear> = products
        .into_iter()
        .filter_map(|node| find(graph, &shapes, node))
        .collect();
    found.iter().for_each(|linear| rewrite(graph, linear));
    graph.remove_dead();
    found.len()
}

struct Linear {
    node: NodeId,
    input: Outlet,
    weight: Outlet,
    bias: Outlet,
    sum: Outlet,
    /// `[…, out]` of the result, -1 for the one that is unknown; `None` where there are no more than two.
    result: Option<Vec<i64>>,
    inputs: usize,
}

fn find(graph: &Graph, shapes: &Shapes, node: NodeId) -> Option<Linear> {
    if !graph.is(node, "MatMul") {
        return None;
    }
    let (input, weight) = (graph.input(node, 0)?, graph.input(node, 1)?);
    let [inputs, outputs] = constant_dims(graph, weight)?[..] else {
        return None;
    };
    let reader = graph.only_reader(Outlet { node, slot: 0 })?;
    let Slot::Input(i) = reader.slot else {
        return None;
    };
    let add = reader.node;
    let bias = graph
        .input(add, 1 - i.min(1))
        .filter(|_| graph.is(add, "Add"))?;
    if constant_dims(graph, bias)? != [outputs] {
        return None;
    }
    let mut result: Vec<i64> = shapes
        .of(input)?
        .iter()
        .map(|dim| dim.known().map_or(-1, |d| d as i64))
        .collect();
    *result.last_mut()? = outputs as i64;
    if result.iter().filter(|&&d| d == -1).count() > 1 {
        return None;
    }
    Some(Linear {
        node,
        input,
        weight,
        bias,
        sum: Outlet { node: add, slot: 0 },
        result: (result.len() != 2).then_some(result),
        inputs,
    })
}

/// Extents of a constant, or of one that is dequantised.
fn constant_dims(graph: &Graph, value: Outlet) -> Option<Vec<usize>> {
    let codes = graph
        .is(value.node, "DequantizeLinear")
        .then(|| graph.input(value.node, 0))
        .flatten();
    graph.constant_dims(codes.unwrap_or(value))
}

fn rewrite(graph: &mut Graph, linear: &Linear) {
    let label = graph.label(linear.node);
    let mut input = linear.input;
    if linear.result.is_some() {
        let rows = [-1, linear.inputs as i64];
        input = reshape(graph, &format!("{label}/rows"), input, &rows);
    }
    let gemm = Op::new("Gemm", &format!("{label}/Gemm"));
    let mut result = graph.insert_op(gemm, &[input, linear.weight, linear.bias]);
    if let Some(dims) = &linear.result {
        result = reshape(graph, &format!("{label}/tokens"), result, dims);
    }
    graph.supersede(linear.sum, result);
}

fn reshape(graph: &mut Graph, name: &str, value: Outlet, dims: &[i64]) -> Outlet {
    let shape = Tensor::from_i64(&[dims.len()], dims);
    let shape = graph.add_initializer(&format!("{name}/shape"), &shape);
    graph.insert("Reshape", name, &[value, shape])
}
