//! ```text
//! Constant                       →  initialiser
//! f(initialisers)                →  initialiser
//! Shape(x)[…] of known numbers   →  initialiser
//! ```
//!
//! The scale that PyTorch computes for attention, `Sqrt(Cast(1 / Sqrt(Cast(Shape(q)[-1]))))`, is one case.
//! Declines results larger than their inputs (beyond a few thousand elements), graph outputs, elementwise
//! arithmetic on other types than float.

mod evaluate;
mod layout;

use vitq_onnx::{DataType, Tensor, TensorMsg};

use super::Report;
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Op, Outlet};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let mut fired = 0;
    for id in graph.topological().unwrap_or_default() {
        let Some(tensor) = graph.op(id).and_then(|op| folded(graph, shapes, id, op)) else {
            continue;
        };
        graph.freeze(id, tensor);
        fired += 1;
    }
    fired
}

fn folded(graph: &Graph, shapes: &Shapes, id: NodeId, op: &Op) -> Option<TensorMsg> {
    let value = Outlet { node: id, slot: 0 };
    let standard = matches!(op.message.domain(), "" | "ai.onnx");
    if !standard || op.outputs.len() != 1 || graph.is_output(value) {
        return None;
    }
    if op.is("Constant") {
        return constant(op);
    }
    let tensor = shape_value(shapes, value).or_else(|| {
        let inputs: Option<Vec<Tensor>> = graph
            .node_inputs(id)
            .into_iter()
            .map(|v| graph.tensor(v?))
            .collect();
        evaluate::evaluate(op, &inputs.filter(|i| !i.is_empty())?, shapes.known(value))
    })?;
    Some(tensor.to_proto(""))
}

fn constant(op: &Op) -> Option<TensorMsg> {
    if let Some(tensor) = op.attribute("value").and_then(|a| a.t.as_ref()) {
        return Some((**tensor).clone());
    }
    let floats = op
        .attribute("value_floats")
        .map(|a| Tensor::from_f32(&[a.floats.len()], &a.floats));
    let ints = op
        .attribute("value_ints")
        .map(|a| Tensor::from_i64(&[a.ints.len()], &a.ints));
    let float = op.float("value_float").map(|v| Tensor::from_f32(&[], &[v]));
    let int = op.int("value_int").map(|v| Tensor::from_i64(&[], &[v]));
    Some(floats.or(ints).or(float).or(int)?.to_proto(""))
}

/// An integer value that inference knows completely.
fn shape_value(shapes: &Shapes, value: Outlet) -> Option<Tensor> {
    let (ints, dims) = (shapes.ints(value)?, shapes.known(value)?);
    if dims.iter().product::<usize>() != ints.len() {
        return None;
    }
    match shapes.dtype(value)? {
        DataType::Int64 => Some(Tensor::from_i64(&dims, &ints)),
        DataType::Int32 => {
            let narrow: Result<Vec<i32>, _> = ints.into_iter().map(i32::try_from).collect();
            Some(Tensor::from_i32(&dims, &narrow.ok()?))
        }
        DataType::Bool => {
            let flags: Vec<bool> = ints.into_iter().map(|v| v != 0).collect();
            Some(Tensor::from_bool(&dims, &flags))
        }
        _ => None,
    }
}
