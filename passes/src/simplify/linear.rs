//! ```text
//! Gemm<alpha, beta, transB>(x, W, b)  →  Add(MatMul(x, W'), b')      W': [in, out] = alpha·op(W), b' = beta·b
//! Add(b, MatMul(x, W))                →  Add(MatMul(x, W), b)        b: [out]
//! ```
//!
//! A weight that several Gemms share is transposed once. Declines a Gemm with transposed `x` or a weight that is
//! no constant, and factors other than 1 on types other than float.

use std::collections::HashMap;

use vitq_onnx::{DataType, Tensor};

use super::Report;
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Outlet};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let mut weights = HashMap::new();
    let mut fired = 0;
    for id in graph.topological().unwrap_or_default() {
        let rewritten = gemm(graph, id, &mut weights)
            .or_else(|| bias_last(graph, id))
            .or_else(|| bias_vector(graph, shapes, id));
        fired += usize::from(rewritten.is_some());
    }
    fired
}

/// Weights made so far by source, transposition and the bits of alpha.
type Weights = HashMap<(Outlet, bool, u32), Outlet>;

fn gemm(graph: &mut Graph, id: NodeId, weights: &mut Weights) -> Option<()> {
    let op = graph.op(id).filter(|op| op.is("Gemm"))?;
    let (x, weight, bias) = (graph.input(id, 0)?, graph.input(id, 1)?, graph.input(id, 2));
    let (alpha, beta) = (
        op.float("alpha").unwrap_or(1.0),
        op.float("beta").unwrap_or(1.0),
    );
    let transposed = op.int("transB").unwrap_or(0) != 0;
    let name = op.message.name().to_owned();
    if op.int("transA").unwrap_or(0) != 0 || graph.initializer(x).is_some() {
        return None;
    }
    let key = (weight, transposed, alpha.to_bits());
    let matrix = match weights.get(&key) {
        Some(&matrix) => matrix,
        None if !transposed && alpha == 1.0 => weight,
        None => {
            let tensor = weight_matrix(&graph.tensor(weight)?, transposed, alpha)?;
            let base = graph.name(weight).to_owned();
            graph.add_initializer(&base, &tensor)
        }
    };
    let outputs = *graph.constant_dims(matrix)?.get(1)?;
    let bias = match bias {
        Some(bias) => Some(bias_of(graph, bias, beta, outputs)?),
        None => None,
    };
    weights.insert(key, matrix);
    let name = if name.is_empty() {
        graph.name(Outlet { node: id, slot: 0 }).to_owned()
    } else {
        name
    };
    let product = graph.insert("MatMul", &name, &[x, matrix]);
    let value = match bias {
        Some(bias) => graph.insert("Add", &format!("{name}/Add"), &[product, bias]),
        None => product,
    };
    graph.supersede(Outlet { node: id, slot: 0 }, value);
    Some(())
}

/// `alpha·W` as [in, out].
fn weight_matrix(tensor: &Tensor, transposed: bool, alpha: f32) -> Option<Tensor> {
    let [rows, columns] = tensor.dims[..] else {
        return None;
    };
    let width = tensor.dtype.bits().filter(|b| b % 8 == 0)? / 8;
    let mut matrix = tensor.clone();
    if transposed {
        let mut data = Vec::with_capacity(tensor.data.len());
        for column in 0..columns {
            for row in 0..rows {
                let at = (row * columns + column) * width;
                data.extend_from_slice(tensor.data.get(at..at + width)?);
            }
        }
        matrix = Tensor {
            dims: vec![columns, rows],
            data: data.into(),
            ..matrix
        };
    }
    if alpha != 1.0 {
        scaled(&matrix, alpha)
    } else {
        Some(matrix)
    }
}

fn scaled(tensor: &Tensor, factor: f32) -> Option<Tensor> {
    if tensor.dtype != DataType::Float {
        return None;
    }
    let values: Vec<f32> = tensor
        .to_f32()
        .ok()?
        .into_iter()
        .map(|v| v * factor)
        .collect();
    Some(Tensor::from_f32(&tensor.dims, &values))
}

/// `beta·b`, a constant as [out] where it is one vector for all rows.
fn bias_of(graph: &mut Graph, bias: Outlet, beta: f32, outputs: usize) -> Option<Outlet> {
    let dims = graph.constant_dims(bias);
    if beta == 1.0 && dims.as_deref().is_none_or(|d| d == [outputs]) {
        return Some(bias);
    }
    let mut tensor = graph.tensor(bias)?;
    if beta != 1.0 {
        tensor = scaled(&tensor, beta)?;
    }
    if tensor.dims == [1, outputs] {
        tensor.dims = vec![outputs];
    }
    let base = graph.name(bias).to_owned();
    Some(graph.add_initializer(&base, &tensor))
}

fn is_linear(graph: &Graph, value: Outlet) -> Option<usize> {
    if !graph.is(value.node, "MatMul") {
        return None;
    }
    match graph.constant_dims(graph.input(value.node, 1)?)?[..] {
        [_, outputs] => Some(outputs),
        _ => None,
    }
}

/// Add(b, MatMul) → Add(MatMul, b)
fn bias_last(graph: &mut Graph, id: NodeId) -> Option<()> {
    graph.op(id).filter(|op| op.is("Add"))?;
    let (bias, product) = (graph.input(id, 0)?, graph.input(id, 1)?);
    graph.initializer(bias)?;
    is_linear(graph, product)?;
    graph.set_input(id, 0, product);
    graph.set_input(id, 1, bias);
    Some(())
}

/// A bias shaped [1, …, out] → [out]
fn bias_vector(graph: &mut Graph, shapes: &Shapes, id: NodeId) -> Option<()> {
    graph.op(id).filter(|op| op.is("Add"))?;
    let (product, bias) = (graph.input(id, 0)?, graph.input(id, 1)?);
    let outputs = is_linear(graph, product)?;
    let dims = graph.constant_dims(bias)?;
    let vector = dims.last() == Some(&outputs) && dims.iter().product::<usize>() == outputs;
    if !vector || dims.len() < 2 || shapes.rank(product)? < dims.len() {
        return None;
    }
    let tensor = graph.tensor(bias)?;
    graph.replace_constant(
        id,
        1,
        &Tensor {
            dims: vec![outputs],
            ..tensor
        },
    );
    Some(())
}
