//! Values that depend on constants alone and that candle has no operator for: tract computes them once.
//!
//! Masks of shifted windows, indices of relative positions, sizes that a Resize goes to: networks hold whole graphs of integers and truth
//! values that no image changes.

use prost::Message;
use vitq_onnx::{DataType, Tensor};
use vitq_passes::infer::Shapes;
use vitq_passes::ir::{Graph, NodeId};

use super::{Integers, Value, Values};
use crate::input::Array;
use crate::learn::LearnError;
use crate::learn::backend::{Backend, home};
use crate::learn::kernels::read;
use crate::run::{RunOptions, Runtime, load};

/// Puts in their place what these operators, given in topological order, make of `known` values.
///
/// # Errors
/// tract does not run them; the message names the first.
pub fn freeze(
    graph: &mut Graph,
    shapes: &Shapes,
    ops: &[NodeId],
    known: &Values,
) -> Result<(), LearnError> {
    let excerpt = graph.excerpt(ops);
    let node = ops.first().map(|&op| graph.label(op)).unwrap_or_default();
    let failed = |problem: String| LearnError::Operator {
        node: node.clone(),
        problem,
    };
    if excerpt.outputs.is_empty() {
        return Err(failed("nothing reads what it gives".into()));
    }
    let mut model = graph.export_excerpt(&excerpt, Vec::new());
    let constants = excerpt.inputs.iter().map(|&input| {
        let tensor = tensor(known.get(&input)?, shapes.dtype(input))?;
        Some(tensor.to_proto(graph.name(input)))
    });
    let constants: Option<Vec<_>> = constants.collect();
    let constants = constants.ok_or_else(|| failed("one of its operands has no value".into()))?;
    let part = model.graph.get_or_insert_default();
    part.initializer.extend(constants);
    let given = load(
        Runtime::Tract,
        &model.encode_to_vec(),
        &[],
        &[],
        &RunOptions::default(),
    )
    .and_then(|model| model.run(&[]));
    let given = given.map_err(|e| failed(e.to_string()))?;
    for (&outlet, array) in excerpt.outputs.iter().zip(&given) {
        if graph.op(outlet.node).is_some_and(|op| op.outputs.len() > 1) {
            return Err(failed("several values of constants".into()));
        }
        graph.freeze(outlet.node, of_array(array).to_proto(""));
    }
    Ok(())
}

fn tensor(value: &Value, dtype: Option<DataType>) -> Option<Tensor> {
    match value {
        Value::Float(floats) => {
            let dims = floats.dims();
            read(floats, |values| Tensor::from_f32(dims, values)).ok()
        }
        Value::Integers(Integers { values, dims }) => match dtype {
            Some(DataType::Bool) => {
                let truths: Vec<bool> = values.iter().map(|&v| v != 0).collect();
                Some(Tensor::from_bool(dims, &truths))
            }
            Some(DataType::Int32) => {
                let narrow = values.iter().map(|&v| i32::try_from(v).ok());
                let narrow: Option<Vec<i32>> = narrow.collect();
                Some(Tensor::from_i32(dims, &narrow?))
            }
            _ => Some(Tensor::from_i64(dims, values)),
        },
    }
}

fn of_array(array: &Array) -> Tensor {
    let dims = array.dims();
    match array {
        Array::F32(it) => Tensor::from_f32(dims, &it.iter().copied().collect::<Vec<_>>()),
        Array::I64(it) => Tensor::from_i64(dims, &it.iter().copied().collect::<Vec<_>>()),
        Array::I32(it) => Tensor::from_i32(dims, &it.iter().copied().collect::<Vec<_>>()),
        Array::U8(it) => Tensor::from_u8(dims, &it.iter().copied().collect::<Vec<_>>()),
        Array::Bool(it) => Tensor::from_bool(dims, &it.iter().copied().collect::<Vec<_>>()),
    }
}

/// A constant where the network is computed.
pub fn floats_on(
    values: Vec<f32>,
    dims: &[usize],
    backend: &Backend,
) -> candle_core::Result<candle_core::Tensor> {
    let device = home(&values, &backend.device);
    candle_core::Tensor::from_vec(values, dims, device)
}
