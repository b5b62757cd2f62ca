use tract_core::internal::*;

/// Operators between a stored weight and its dequantised form that are looked through: a codebook
/// needs `Cast → Gather → DequantizeLinear`, with a `Transpose` or `Reshape` perhaps.
const LONGEST_CHAIN: usize = 5;

/// The value of an outlet that depends, through a few operators, on constants alone.
pub fn constant(model: &TypedModel, outlet: OutletId) -> TractResult<Option<Arc<Tensor>>> {
    within(model, outlet, LONGEST_CHAIN)
}

/// The only element of a constant that has one.
pub fn single<T: Datum + Copy>(model: &TypedModel, outlet: OutletId) -> TractResult<Option<T>> {
    let Some(value) = constant(model, outlet)?.filter(|value| value.len() == 1) else {
        return Ok(None);
    };
    let value = value.cast_to::<T>()?;
    Ok(value.try_as_plain_ram()?.as_slice::<T>()?.first().copied())
}

/// A constant has no elements but zeros.
pub fn is_zero(model: &TypedModel, outlet: OutletId) -> TractResult<bool> {
    let Some(value) = constant(model, outlet)? else {
        return Ok(false);
    };
    let value = value.cast_to::<f32>()?;
    let mut elements = value.try_as_plain_ram()?.as_slice::<f32>()?.iter();
    Ok(elements.all(|&element| element == 0.0))
}

fn within(model: &TypedModel, outlet: OutletId, depth: usize) -> TractResult<Option<Arc<Tensor>>> {
    if let Some(value) = &model.outlet_fact(outlet)?.konst {
        return Ok(Some(value.clone()));
    }
    let node = model.node(outlet.node);
    if depth == 0 || node.inputs.is_empty() {
        return Ok(None);
    }
    let mut inputs = tvec!();
    for &input in &node.inputs {
        let Some(value) = within(model, input, depth - 1)? else {
            return Ok(None);
        };
        inputs.push(value.into_tvalue());
    }
    let outputs = node.op.eval_out_of_plan(inputs)?;
    Ok(outputs
        .and_then(|mut o| (outlet.slot < o.len()).then(|| o.swap_remove(outlet.slot)))
        .map(TValue::into_arc_tensor))
}
