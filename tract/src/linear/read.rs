use tract_core::internal::*;
use tract_core::ops::einsum::EinSum;

use super::activation::Activation;
use super::following::{bias, scales};
use super::weight::Weight;
use crate::constant::{is_zero, single};

/// A quantised Linear as it stands in a model.
pub struct Linear {
    /// Of the codes and the weight.
    pub axes: AxesMapping,
    pub activation: Activation,
    pub weight: Weight,
    /// Of the sums of codes, for each output channel.
    pub scales: Vec<f32>,
    pub bias: Vec<f32>,
    /// What the Linear gives.
    pub output: OutletId,
}

impl Linear {
    /// The Linear whose product is a node.
    pub fn read(model: &TypedModel, id: usize) -> TractResult<Option<Self>> {
        let node = model.node(id);
        match node.op_as::<EinSum>() {
            Some(product) if product.q_params == Some(DatumType::I32) => {
                Self::integer(model, node, product)
            }
            Some(product) if product.q_params.is_none() && node.inputs.len() == 2 => {
                Self::dequantized(model, node, product)
            }
            _ => Ok(None),
        }
    }

    fn dequantized(
        model: &TypedModel,
        node: &TypedNode,
        product: &EinSum,
    ) -> TractResult<Option<Self>> {
        let Some(activation) = Activation::dequantized(model, node.inputs[0])? else {
            return Ok(None);
        };
        let Some(weight) = Weight::dequantized(model, node.inputs[1], &product.axes)? else {
            return Ok(None);
        };
        let bias = bias(model, node.id.into(), weight.scales.len())?;
        let scales = weight.scales.iter().map(|t| activation.scale * t).collect();
        Ok(Some(Self {
            axes: product.axes.clone(),
            activation,
            weight,
            scales,
            bias: bias.values,
            output: bias.output,
        }))
    }

    /// What tract makes of MatMulInteger. The inputs are a, b, bias, and zero point and scale of a, b and
    /// the output.
    fn integer(
        model: &TypedModel,
        node: &TypedNode,
        product: &EinSum,
    ) -> TractResult<Option<Self>> {
        let &[a, b, added, a_zero, a_scale, b_zero, b_scale, zero, scale] = &*node.inputs else {
            return Ok(None);
        };
        for outlet in [added, b_zero, zero] {
            if !is_zero(model, outlet)? {
                return Ok(None);
            }
        }
        for outlet in [a_scale, b_scale, scale] {
            if single::<f32>(model, outlet)? != Some(1.0) {
                return Ok(None);
            }
        }
        let Some(activation) = Activation::of(model, a, 1.0, Some(&a_zero))? else {
            return Ok(None);
        };
        let Some(weight) = Weight::stored(model, b, &product.axes)? else {
            return Ok(None);
        };
        let channels = weight.scales.len();
        let Some(scales) = scales(model, node.id.into(), channels)? else {
            return Ok(None);
        };
        let bias = bias(model, scales.output, channels)?;
        Ok(Some(Self {
            axes: first_two(&product.axes)?,
            activation,
            weight,
            scales: scales.values,
            bias: bias.values,
            output: bias.output,
        }))
    }

    /// The codes have the axis that is summed over last, where the output has its channels; the others are
    /// the same.
    #[cfg(target_arch = "x86_64")]
    pub fn sums_last_axis(&self) -> bool {
        let rank = self.axes.rank(InOut::In(0));
        let in_place = |axis: &Axis| match *axis.inputs[0] {
            [] => true,
            [at] if at + 1 == rank => axis.outputs[0].is_empty(),
            [at] => axis.outputs[0][..] == [at],
            _ => false,
        };
        self.axes.rank(InOut::Out(0)) == rank && self.axes.iter_all_axes().all(in_place)
    }
}

/// The axes of the first two inputs alone.
fn first_two(axes: &AxesMapping) -> TractResult<AxesMapping> {
    let kept = axes.iter_all_axes().filter_map(|axis| {
        let mut axis = axis.clone();
        axis.inputs.truncate(2);
        let used = axis
            .inputs
            .iter()
            .chain(&axis.outputs)
            .any(|at| !at.is_empty());
        used.then_some(axis)
    });
    AxesMapping::new(2, 1, kept.collect::<TVec<_>>())
}
