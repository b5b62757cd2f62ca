//! RepQ-ViT's scale reparameterisation (arXiv 2212.08254, §3.3): per-channel quantisers of a LayerNormalization's output
//! become one quantiser for the whole tensor.
//!
//! ```text
//! LayerNormalization(γ, β) → Q(s[c], z[c]) → Linear(W, b)
//!   →  LayerNormalization(γ', β') → Q(s̃, z̃) → Linear(W', b')
//!
//! r1 = s / s̃              r2 = z - z̃
//! γ' = γ / r1             β' = (β + s⊙r2) / r1
//! W' = W·diag(r1)         b' = b - W·(s⊙r2)
//! ```
//! The float function is unchanged. With an *integer* `z̃`, as here, the codes of the one quantiser equal the per-channel
//! codes too: `x'/s̃ + z̃ = x/s + z`. (The paper's code keeps `z̃` fractional, which is neither exact nor ONNX.)

use super::{LinearParams, TransformError, affine_fold};

/// Folds the per-channel quantiser (`s`, `z`, both `[channels]`) into the norm and the Linears so that
/// the scalar pair (`s_tilde`, `z_tilde`) gives the same codes. Nothing is changed on an error.
pub fn fold(
    gamma: &mut [f64],
    beta: &mut [f64],
    linears: &mut [LinearParams],
    s: &[f64],
    z: &[i32],
    s_tilde: f64,
    z_tilde: i32,
) -> Result<(), TransformError> {
    if s.len() != z.len() {
        let problem = format!("{} scales, but {} zero points", s.len(), z.len());
        return Err(TransformError::new("RepQ fold", problem));
    }
    let r1: Vec<f64> = s.iter().map(|s| s / s_tilde).collect();
    let shift: Vec<f64> = s
        .iter()
        .zip(z)
        .map(|(s, &z)| s * (f64::from(z) - f64::from(z_tilde)))
        .collect();
    affine_fold(gamma, beta, linears, &r1, &shift)
}
