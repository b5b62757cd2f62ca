use tract_core::internal::*;

/// Operators between a stored weight and its dequantised form that are looked through: a codebook
/// needs `Cast → Gather → DequantizeLinear`, with a `Transpose` or `Reshape` perhaps.
const LONGEST_CHAIN: usize = 5;

/// The value of an outlet that depends, through a few operators, on constants alone.
pub fn constant(model: &TypedModel, outlet: OutletId) -> TractResult<Option<Arc<Tensor>>> {
    within(model, outlet, LONGEST_CHAIN)
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
