use tract_core::internal::*;

use crate::constant::constant;
use crate::qdq::Dequantize;

/// The numbers `(codes - zero point) · scale` that a DequantizeLinear gives, codes taken as int8.
pub struct Activation {
    pub codes: OutletId,
    /// The codes are uint8: 128 more than the int8 ones.
    pub unsigned: bool,
    pub scale: f32,
    /// Of the int8 codes: -256 to 127.
    pub zero_point: i32,
}

impl Activation {
    pub fn of(model: &TypedModel, id: usize) -> TractResult<Option<Self>> {
        let node = model.node(id);
        let Some(dequantize) = node.op_as::<Dequantize>() else {
            return Ok(None);
        };
        let codes = node.inputs[0];
        let codes_fact = model.outlet_fact(codes)?;
        let unsigned = codes_fact.datum_type == DatumType::U8;
        let readable = unsigned || codes_fact.datum_type == DatumType::I8;
        // A constant is a weight on the left: tract folds it.
        if !readable || codes_fact.konst.is_some() || !dequantize.gives_f32() {
            return Ok(None);
        }
        let Some(scale) = single::<f32>(model, node.inputs.get(1))? else {
            return Ok(None);
        };
        let zero_point = if node.inputs.len() == 3 {
            single::<i32>(model, node.inputs.get(2))?
        } else {
            Some(0)
        };
        Ok(zero_point.map(|zero| Self {
            codes,
            unsigned,
            scale,
            zero_point: if unsigned { zero - 128 } else { zero },
        }))
    }
}

/// The only element of a constant that has one.
fn single<T: Datum + Copy>(
    model: &TypedModel,
    outlet: Option<&OutletId>,
) -> TractResult<Option<T>> {
    let value = outlet.map(|&o| constant(model, o)).transpose()?.flatten();
    let Some(value) = value.filter(|v| v.len() == 1) else {
        return Ok(None);
    };
    let value = value.cast_to::<T>()?;
    Ok(value.try_as_plain_ram()?.as_slice::<T>()?.first().copied())
}
