use tract_core::internal::*;
use tract_core::ops::binary::{BinMiniOp, TypedBinOp};
use tract_core::ops::cast::Cast;
use tract_core::ops::math::{Add, Mul};

use crate::constant::constant;

/// A value, and the constants for each channel that it is made with.
pub struct Made {
    pub values: Vec<f32>,
    pub output: OutletId,
}

/// What is added to a product, if it is a constant for each channel; else zeros.
pub fn bias(model: &TypedModel, product: OutletId, channels: usize) -> TractResult<Made> {
    let made = by_constant::<Add>(model, product, channels)?;
    Ok(made.unwrap_or_else(|| Made {
        values: vec![0.0; channels],
        output: product,
    }))
}

/// The scales of `product → Cast(FLOAT) → Mul(scales)`.
pub fn scales(model: &TypedModel, product: OutletId, channels: usize) -> TractResult<Option<Made>> {
    let Some((cast, _)) = only_reader(model, product)? else {
        return Ok(None);
    };
    match cast.op_as::<Cast>() {
        Some(op) if op.to == DatumType::F32 => by_constant::<Mul>(model, cast.id.into(), channels),
        _ => Ok(None),
    }
}

/// An operation on a value that nothing else reads, and a constant.
fn by_constant<O: BinMiniOp>(
    model: &TypedModel,
    value: OutletId,
    channels: usize,
) -> TractResult<Option<Made>> {
    let Some((node, slot)) = only_reader(model, value)? else {
        return Ok(None);
    };
    if !node.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<O>()) {
        return Ok(None);
    }
    let Some(operand) = constant(model, node.inputs[1 - slot])? else {
        return Ok(None);
    };
    let values = channelwise(&operand, channels)?;
    Ok(values.map(|values| Made {
        values,
        output: node.id.into(),
    }))
}

/// The node that reads a value, and at which input, if there is no other and it is no output.
fn only_reader(model: &TypedModel, value: OutletId) -> TractResult<Option<(&TypedNode, usize)>> {
    let &[reader] = &*model.node(value.node).outputs[value.slot].successors else {
        return Ok(None);
    };
    let is_output = model.output_outlets()?.contains(&value);
    Ok((!is_output).then(|| (model.node(reader.node), reader.slot)))
}

fn channelwise(value: &Tensor, channels: usize) -> TractResult<Option<Vec<f32>>> {
    if value.datum_type() != DatumType::F32 {
        return Ok(None);
    }
    let elements = value.try_as_plain_ram()?.as_slice::<f32>()?;
    let along_last = value.shape().last() == Some(&channels);
    Ok(match elements {
        &[one] => Some(vec![one; channels]),
        all if all.len() == channels && along_last => Some(all.to_vec()),
        _ => None,
    })
}
