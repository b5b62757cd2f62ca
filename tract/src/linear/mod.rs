//! ```text
//! x: u8 → DequantizeLinear ┐                        x → u8 as i8 ┐
//!                          EinSum → Add      ⇒                   EinSum (i32) → Rescale (f32)
//! w: i8 → DequantizeLinear ┘     bias ┘                        w ┘
//! ```
//!
//! `Σ_k (x - z)·s · w·t  +  b  =  (Σ_k x·w - z·Σ_k w) · s·t  +  b`, the sums exact in i32, with one scale `t`
//! for each output channel. Left alone: computed or asymmetric weights, scales along another axis or in
//! blocks, activations with a scale per channel or of 16 bits.

mod activation;
mod bias;
mod rescale;
mod weight;

use tract_core::internal::*;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::quant::offset_u8_as_i8;

use activation::Activation;
use bias::Bias;
use rescale::Rescale;
use weight::Weight;

/// Makes quantised Linears integer ones; gives their number.
///
/// Call it on what `into_typed` gives, before decluttering: that turns the weights into floats. A Linear
/// is a `MatMul` or `Gemm` of a dequantised activation (uint8 or int8, one scale) and a constant int8
/// weight (zero point 0, one scale or one for each output channel), and a constant bias if one follows.
pub fn fuse(model: &mut TypedModel) -> TractResult<usize> {
    let mut fused = 0;
    for id in 0..model.nodes().len() {
        let Some(activation) = Activation::of(model, id)? else {
            continue;
        };
        let mut linears = vec![];
        for successor in &model.node(id).outputs[0].successors {
            if successor.slot == 0 {
                linears.extend(Linear::of(model, model.node(successor.node), &activation)?);
            }
        }
        if !linears.is_empty() {
            fused += linears.len();
            replace(model, id, &activation, linears)?;
        }
    }
    Ok(fused)
}

struct Linear {
    product: usize,
    axes: AxesMapping,
    weight: Arc<Tensor>,
    rescale: Rescale,
    output: OutletId,
}

impl Linear {
    fn of(
        model: &TypedModel,
        node: &TypedNode,
        activation: &Activation,
    ) -> TractResult<Option<Self>> {
        let Some(product) = node.op_as::<EinSum>() else {
            return Ok(None);
        };
        if product.q_params.is_some() || node.inputs.len() != 2 {
            return Ok(None);
        }
        let Some(weight) = Weight::of(model, node.inputs[1], &product.axes)? else {
            return Ok(None);
        };
        let bias = Bias::of(model, node, weight.sums.len())?;
        let rescale = Rescale::new(
            weight.scales.iter().map(|t| activation.scale * t).collect(),
            weight
                .sums
                .iter()
                .map(|sum| activation.zero_point * sum)
                .collect(),
            bias.values,
        )?;
        Ok(Some(Self {
            product: node.id,
            axes: product.axes.clone(),
            weight: weight.codes,
            rescale,
            output: bias.output,
        }))
    }
}

/// One patch for all Linears that read an activation: they share its signed codes.
fn replace(
    model: &mut TypedModel,
    dequantize: usize,
    activation: &Activation,
    linears: Vec<Linear>,
) -> TractResult<()> {
    let mut patch = TypedModelPatch::new("integer Linears");
    let mut codes = patch.tap_model(model, activation.codes)?;
    if activation.unsigned {
        let name = format!("{}.signed", model.node(dequantize).name);
        codes = patch.wire_node(name, offset_u8_as_i8(), &[codes])?[0];
    }
    for linear in linears {
        let name = &model.node(linear.product).name;
        let weight = patch.add_const(format!("{name}.codes"), linear.weight)?;
        let product = EinSum::new(linear.axes, i32::datum_type());
        let sums = patch.wire_node(format!("{name}.sums"), product, &[codes, weight])?;
        let output = &model.node(linear.output.node).name;
        let values = patch.wire_node(format!("{output}.rescaled"), linear.rescale, &sums)?[0];
        patch.shunt_outside(model, linear.output, values)?;
    }
    patch.apply(model)
}
