//! ```text
//! x: u8 → DequantizeLinear ┐
//!                          EinSum → Add(bias)                       ⇒  x → TiledLinear (f32), or
//! w: i8 → DequantizeLinear ┘
//!                                                                      x → u8 as i8 ┐
//! x: u8 ┐                                                                           EinSum (i32) → Rescale (f32)
//!       EinSum (i32) → Cast(FLOAT) → Mul(scale) → Add(bias)         ⇒             w ┘
//! w: i8 ┘
//! ```
//!
//! `Σ_k (x - z)·s · w·t  +  b  =  (Σ_k x·w - z·Σ_k w) · s·t  +  b`, the sums exact in i32, with one scale `t`
//! for each output channel. Left alone: computed or asymmetric weights, scales along another axis or in
//! blocks, activations with a scale per channel or of 16 bits.

mod activation;
mod following;
mod read;
mod rescale;
#[cfg(target_arch = "x86_64")]
mod tiled;
#[cfg(target_arch = "x86_64")]
#[expect(unsafe_code, reason = "vector instructions that nothing safe offers")]
mod vnni;
mod weight;

use std::collections::HashMap;

use tract_core::internal::*;
use tract_core::ops::einsum::EinSum;
use tract_core::ops::quant::offset_u8_as_i8;

use read::Linear;
use rescale::Rescale;

use crate::qdq::join;

/// What multiplies the codes of integer Linears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kernels {
    /// tract's, on every machine.
    Tract,
    /// This crate's, where the processor has AVX-512 VNNI; else tract's.
    Fastest,
}

/// Makes quantised Linears integer ones; gives their number.
///
/// Call it on what `into_typed` gives, before decluttering: that turns the weights into floats. A Linear
/// is a `MatMul` or `Gemm` of a dequantised activation (uint8 or int8, one scale) and a constant int8
/// weight (zero point 0, one scale or one for each output channel), and a constant bias if one follows;
/// or `MatMulInteger`, `Cast` and `Mul` of such codes and scales, and a bias.
pub fn fuse(model: &mut TypedModel) -> TractResult<usize> {
    fuse_with(model, Kernels::Fastest)
}

/// As [`fuse`], with a choice of kernels.
pub fn fuse_with(model: &mut TypedModel, kernels: Kernels) -> TractResult<usize> {
    join(model)?;
    let mut fused = 0;
    let mut signed = HashMap::new();
    for id in 0..model.nodes().len() {
        let Some(linear) = Linear::read(model, id)? else {
            continue;
        };
        let mut patch = TypedModelPatch::new("integer Linear");
        let values = match tiled(&linear, kernels)? {
            Some(op) => {
                let codes = patch.tap_model(model, linear.activation.codes)?;
                patch.wire_node(name(model, &linear), op, &[codes])?
            }
            None => {
                let codes = signed_codes(model, &linear, &mut signed)?;
                let codes = patch.tap_model(model, codes)?;
                by_tract(model, &mut patch, &linear, codes)?
            }
        };
        patch.shunt_outside(model, linear.output, values[0])?;
        patch.apply(model)?;
        fused += 1;
    }
    Ok(fused)
}

fn name(model: &TypedModel, linear: &Linear) -> String {
    format!("{}.integer", model.node(linear.output.node).name)
}

#[cfg(target_arch = "x86_64")]
fn tiled(linear: &Linear, kernels: Kernels) -> TractResult<Option<Box<dyn TypedOp>>> {
    use tiled::TiledLinear;
    let suits = kernels == Kernels::Fastest && vnni::is_available() && linear.sums_last_axis();
    let op = || TiledLinear::new(linear).map(|op| Box::new(op) as Box<dyn TypedOp>);
    suits.then(op).transpose()
}

#[cfg(not(target_arch = "x86_64"))]
fn tiled(_: &Linear, _: Kernels) -> TractResult<Option<Box<dyn TypedOp>>> {
    Ok(None)
}

/// The codes as int8, the same node for all Linears that read them.
fn signed_codes(
    model: &mut TypedModel,
    linear: &Linear,
    known: &mut HashMap<OutletId, OutletId>,
) -> TractResult<OutletId> {
    let codes = linear.activation.codes;
    if !linear.activation.unsigned {
        return Ok(codes);
    }
    if let Some(&signed) = known.get(&codes) {
        return Ok(signed);
    }
    let name = format!("{}.{}.signed", model.node(codes.node).name, codes.slot);
    let signed = model.wire_node(name, offset_u8_as_i8(), &[codes])?[0];
    known.insert(codes, signed);
    Ok(signed)
}

fn by_tract(
    model: &TypedModel,
    patch: &mut TypedModelPatch,
    linear: &Linear,
    codes: OutletId,
) -> TractResult<TVec<OutletId>> {
    let name = name(model, linear);
    let weight = patch.add_const(format!("{name}.codes"), linear.weight.codes.clone())?;
    let product = EinSum::new(linear.axes.clone(), i32::datum_type());
    let sums = patch.wire_node(format!("{name}.sums"), product, &[codes, weight])?;
    let zero = linear.activation.zero_point_signed();
    let offsets = linear.weight.sums()?.iter().map(|sum| zero * sum).collect();
    let rescale = Rescale::new(linear.scales.clone(), offsets, linear.bias.clone())?;
    patch.wire_node(name, rescale, &sums)
}
