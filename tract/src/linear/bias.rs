use tract_core::internal::*;
use tract_core::ops::binary::TypedBinOp;
use tract_core::ops::math::Add;

use crate::constant::constant;

/// What is added to a product, if it is a constant for each channel; else zeros.
pub struct Bias {
    pub values: Vec<f32>,
    /// The sum, or the product if nothing is added.
    pub output: OutletId,
}

impl Bias {
    pub fn of(model: &TypedModel, product: &TypedNode, channels: usize) -> TractResult<Self> {
        let added = added(model, product)?;
        let values = match &added {
            Some((_, value)) => channelwise(value, channels)?,
            None => None,
        };
        Ok(match (added, values) {
            (Some((sum, _)), Some(values)) => Self {
                values,
                output: sum.into(),
            },
            _ => Self {
                values: vec![0.0; channels],
                output: product.id.into(),
            },
        })
    }
}

/// The addition behind a product that nothing else reads, and the constant that it adds.
fn added(model: &TypedModel, product: &TypedNode) -> TractResult<Option<(usize, Arc<Tensor>)>> {
    let read_outside = model.output_outlets()?.contains(&product.id.into());
    let &[successor] = &*product.outputs[0].successors else {
        return Ok(None);
    };
    let sum = model.node(successor.node);
    let adds = sum.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<Add>());
    if read_outside || !adds {
        return Ok(None);
    }
    let value = constant(model, sum.inputs[1 - successor.slot])?;
    Ok(value.map(|value| (sum.id, value)))
}

fn channelwise(value: &Tensor, channels: usize) -> TractResult<Option<Vec<f32>>> {
    if value.datum_type() != DatumType::F32
        || value.len() != channels
        || value.shape().last() != Some(&channels)
    {
        return Ok(None);
    }
    Ok(Some(value.try_as_plain_ram()?.as_slice::<f32>()?.to_vec()))
}
