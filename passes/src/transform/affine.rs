//! An affine change of a LayerNormalization's output, absorbed by the Linears that read it.
//!
//! ```text
//! x = norm(·)·γ + β            x' = norm(·)·γ' + β'        = (x + shift) / r1
//! y = W·x + b          →       y  = W'·x' + b'
//!
//! γ' = γ / r1          β' = (β + shift) / r1
//! W' = W·diag(r1)      b' = b - W·shift
//! ```
//! RepQ-ViT's scale reparameterisation ([`super::repq`]) and SmoothQuant's scale migration (`shift = 0`) are both of this form.
//! Declined: arrays of different lengths, and `r1` that is not positive and finite (its inverse would not be either).

use super::TransformError;

/// Parameters of a Linear in double precision, where folds are computed.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearParams {
    /// `[out, in]`
    pub weight: Vec<f64>,
    /// `[out]`; zeros where the Linear has no bias yet.
    pub bias: Vec<f64>,
}

impl LinearParams {
    /// From `weight` `[out, in]` and `bias` `[out]`.
    pub fn from_f32(weight: &[f32], bias: &[f32]) -> Self {
        LinearParams {
            weight: widen(weight),
            bias: widen(bias),
        }
    }

    /// `(weight, bias)`, rounded once.
    pub fn to_f32(&self) -> (Vec<f32>, Vec<f32>) {
        (narrow(&self.weight), narrow(&self.bias))
    }

    fn absorb(&mut self, r1: &[f64], shift: &[f64]) {
        for (row, bias) in self.weight.chunks_exact_mut(r1.len()).zip(&mut self.bias) {
            *bias -= row.iter().zip(shift).map(|(w, t)| w * t).sum::<f64>();
            row.iter_mut().zip(r1).for_each(|(w, r)| *w *= r);
        }
    }
}

fn widen(values: &[f32]) -> Vec<f64> {
    values.iter().copied().map(f64::from).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&v| v as f32).collect()
}

/// Changes the norm's output to `x' = (x + shift) / r1` and the Linears so that nothing behind them changes.
///
/// `gamma`, `beta`, `r1` and `shift` are `[channels]`. Nothing is changed on an error.
pub fn affine_fold(
    gamma: &mut [f64],
    beta: &mut [f64],
    linears: &mut [LinearParams],
    r1: &[f64],
    shift: &[f64],
) -> Result<(), TransformError> {
    check(gamma, beta, linears, r1, shift)?;
    for (((g, b), r), t) in gamma.iter_mut().zip(beta).zip(r1).zip(shift) {
        *g /= r;
        *b = (*b + t) / r;
    }
    linears
        .iter_mut()
        .for_each(|linear| linear.absorb(r1, shift));
    Ok(())
}

fn check(
    gamma: &[f64],
    beta: &[f64],
    linears: &[LinearParams],
    r1: &[f64],
    shift: &[f64],
) -> Result<(), TransformError> {
    let channels = r1.len();
    if channels == 0 || [gamma.len(), beta.len(), shift.len()] != [channels; 3] {
        let lengths = format!(
            "gamma {}, beta {}, shift {}, r1 {channels}",
            gamma.len(),
            beta.len(),
            shift.len()
        );
        return Err(TransformError::new(
            "fold",
            format!("all need one value a channel, but have {lengths}"),
        ));
    }
    if let Some(i) = linears
        .iter()
        .position(|l| l.weight.len() != l.bias.len() * channels)
    {
        let problem = format!("the weight is not [out, {channels}] with one bias a row");
        return Err(TransformError::new(
            format!("linear {i} of the fold"),
            problem,
        ));
    }
    if let Some(c) = r1.iter().position(|r| !(r.is_finite() && *r > 0.0)) {
        let problem = format!(
            "r1 is {}: a channel's scale must be positive and finite",
            r1[c]
        );
        return Err(TransformError::new(
            format!("channel {c} of the fold"),
            problem,
        ));
    }
    Ok(())
}
