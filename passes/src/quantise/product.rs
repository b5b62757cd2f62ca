//! Q·Kᵀ and attention·V with a quantiser on each operand.
//!
//! ```text
//! MatMul(q, kᵀ)        →   MatMul(Q/DQ(q), Q/DQ(kᵀ))
//! MatMul(Softmax, v)   →   MatMul(logarithmic or Q/DQ (Softmax), Q/DQ(v))
//! ```
//! No quantiser on the result: the Softmax behind Q·Kᵀ stays float.

use crate::plan::Activation;
use crate::structure::{Site, SiteKind};
use crate::transform::TransformError;

use super::operand::Operands;
use super::report::{Form, SiteReport};

pub(super) fn emit(
    operands: &mut Operands<'_>,
    site: &Site,
    left: &Activation,
    right: &Activation,
) -> Result<SiteReport, TransformError> {
    if !matches!(site.kind, SiteKind::QueryKey | SiteKind::AttentionValue) {
        return Err(TransformError::new(
            &site.name,
            "the plan treats it as an attention product, which it is not: make the plan again from this model",
        ));
    }
    for (i, part, activation) in [(0, "left", left), (1, "right", right)] {
        let value = operands.quantised(site, i, part, None, activation)?;
        operands.graph.set_input(site.node, i, value);
    }
    Ok(SiteReport {
        site: site.name.clone(),
        form: Form::Product,
        raised_scales: 0,
    })
}
