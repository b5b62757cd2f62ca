//! A scale per channel where no affine operator stands before the Linear to take it.
//!
//! ```text
//! x → Linear(W)   →   x → Mul(m) → Linear(W·diag(1/m))
//! ```
//! Costs one elementwise operator; worth it where a few channels spoil the range of the rest (a post-GELU outlier).

use vitq_onnx::Tensor;

use super::TransformError;
use crate::ir::{Graph, Outlet};

/// Divides the columns of `weight` `[out, in]` by `multiplier` `[in]`. Nothing is changed on an error.
pub fn divide_columns(weight: &mut [f64], multiplier: &[f64]) -> Result<(), TransformError> {
    let inputs = multiplier.len();
    if inputs == 0 || !weight.len().is_multiple_of(inputs) {
        let problem = format!(
            "a weight of {} values has no rows of {inputs} columns",
            weight.len()
        );
        return Err(TransformError::new("pre-scale", problem));
    }
    if let Some(c) = multiplier.iter().position(|m| !(m.is_finite() && *m > 0.0)) {
        let problem = format!(
            "the multiplier is {}: it must be positive and finite",
            multiplier[c]
        );
        return Err(TransformError::new(
            format!("channel {c} of the pre-scale"),
            problem,
        ));
    }
    for row in weight.chunks_exact_mut(inputs) {
        row.iter_mut().zip(multiplier).for_each(|(w, m)| *w /= m);
    }
    Ok(())
}

/// Inserts `Mul(value, multiplier)` and returns the product. `dims` is the multiplier's shape:
/// `[channels]` where channels come last, `[channels, 1, 1]` in an image.
pub fn pre_scale(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    dims: &[usize],
    multiplier: &[f32],
) -> Outlet {
    let constant = graph.add_initializer(
        &format!("{name}/pre_scale"),
        &Tensor::from_f32(dims, multiplier),
    );
    graph.insert("Mul", &format!("{name}/Mul"), &[value, constant])
}
