use tract_core::internal::*;

use crate::constant::single;
use crate::qdq::Dequantize;

/// The numbers `(codes - zero point) · scale`, with one scale.
#[derive(Clone, Copy)]
pub struct Activation {
    pub codes: OutletId,
    /// The codes are uint8, else int8.
    pub unsigned: bool,
    pub scale: f32,
    pub zero_point: i32,
}

impl Activation {
    /// What a DequantizeLinear gives.
    pub fn dequantized(model: &TypedModel, outlet: OutletId) -> TractResult<Option<Self>> {
        let node = model.node(outlet.node);
        let Some(dequantize) = node.op_as::<Dequantize>() else {
            return Ok(None);
        };
        let scale = single::<f32>(model, node.inputs[1])?;
        let (Some(scale), true) = (scale, dequantize.gives_f32()) else {
            return Ok(None);
        };
        Self::of(model, node.inputs[0], scale, node.inputs.get(2))
    }

    /// Codes with a scale and, perhaps, a zero point.
    pub fn of(
        model: &TypedModel,
        codes: OutletId,
        scale: f32,
        zero_point: Option<&OutletId>,
    ) -> TractResult<Option<Self>> {
        let fact = model.outlet_fact(codes)?;
        let unsigned = fact.datum_type == DatumType::U8;
        let readable = unsigned || fact.datum_type == DatumType::I8;
        // A constant is a weight on the left: tract folds it.
        if !readable || fact.konst.is_some() {
            return Ok(None);
        }
        let zero_point = match zero_point {
            Some(&outlet) => single::<i32>(model, outlet)?,
            None => Some(0),
        };
        Ok(zero_point.map(|zero_point| Self {
            codes,
            unsigned,
            scale,
            zero_point,
        }))
    }

    /// The zero point if codes are read as int8.
    pub fn zero_point_signed(&self) -> i32 {
        self.zero_point - if self.unsigned { 128 } else { 0 }
    }
}
