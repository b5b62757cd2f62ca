//! ```text
//! x → Div(s) → Max(-z) → Min(top - z) → Add(1.5·2²³) → Sub(1.5·2²³ - z) → Cast(U8)   ⇒   x → Quantize(s, z), codes 0 to top
//! ```
//!
//! What Clip becomes in tract stands between. Models for tract as it comes are written so, as its own QuantizeLinear is
//! slower than that. Left alone: scales that are no constant, more than one of them, and a range that is not that of
//! the codes.

use tract_core::internal::*;
use tract_core::ops::binary::{BinMiniOp, TypedBinOp};
use tract_core::ops::cast::Cast;
use tract_core::ops::math::{Add, Div, Max, Min, Sub};

use super::code_type::CodeType;
use super::quantize::{Quantize, ROUNDER};
use crate::constant::single;

/// Joins quantisers that are written in arithmetic.
pub fn join(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes().len() {
        let Some(quantiser) = Arithmetic::read(model, id)? else {
            continue;
        };
        let name = format!("{}.quantize", model.node(id).name);
        let mut patch = TypedModelPatch::new("quantiser in arithmetic");
        let x = patch.tap_model(model, quantiser.x)?;
        let scale = patch.add_const(format!("{name}.scale"), tensor0(quantiser.scale))?;
        let zero = patch.add_const(format!("{name}.zero_point"), tensor0(quantiser.zero))?;
        let op = Quantize::per_tensor(CodeType::U8, i32::from(quantiser.top));
        let codes = patch.wire_node(name, op, &[x, scale, zero])?;
        patch.shunt_outside(model, id.into(), codes[0])?;
        patch.apply(model)?;
    }
    Ok(())
}

struct Arithmetic {
    x: OutletId,
    scale: f32,
    zero: u8,
    top: u8,
}

impl Arithmetic {
    /// The quantiser that ends with a node.
    fn read(model: &TypedModel, id: usize) -> TractResult<Option<Self>> {
        let node = model.node(id);
        if node.op_as::<Cast>().is_none_or(|op| op.to != DatumType::U8) {
            return Ok(None);
        }
        let Some((rounded, back)) = with_constant::<Sub>(model, node.inputs[0])? else {
            return Ok(None);
        };
        let Some((clipped, ROUNDER)) = with_constant::<Add>(model, rounded)? else {
            return Ok(None);
        };
        let Some((levels, most)) = with_constant::<Min>(model, clipped)? else {
            return Ok(None);
        };
        let Some((levels, least)) = with_constant::<Max>(model, levels)? else {
            return Ok(None);
        };
        let Some((x, scale)) = with_constant::<Div>(model, levels)? else {
            return Ok(None);
        };
        let zero = ROUNDER - back;
        let (Some(zero), Some(top)) = (code(zero), code(most + zero)) else {
            return Ok(None);
        };
        let from_zero = least == -f32::from(zero) && zero <= top;
        Ok(from_zero.then_some(Self {
            x,
            scale,
            zero,
            top,
        }))
    }
}

fn code(value: f32) -> Option<u8> {
    // The cast saturates, and what is no code is then another number.
    let code = value as u8;
    (f32::from(code) == value).then_some(code)
}

/// What an operation with one f32 behind its operator sign reads, and that number.
fn with_constant<O: BinMiniOp>(
    model: &TypedModel,
    outlet: OutletId,
) -> TractResult<Option<(OutletId, f32)>> {
    let node = model.node(outlet.node);
    if !node.op_as::<TypedBinOp>().is_some_and(|op| op.0.is::<O>())
        || node.outputs[0].fact.datum_type != DatumType::F32
    {
        return Ok(None);
    }
    Ok(single(model, node.inputs[1])?.map(|number| (node.inputs[0], number)))
}
