//! How far the quantised network is from the float one.

use std::collections::BTreeSet;

use candle_core::{D, DType, Device, Result, Tensor, bail};
use serde::Serialize;
use vitq_passes::ir::Outlet;

use super::LearnError;
use super::network::{Value, Values};

/// Loss of a sample.
pub struct Loss {
    /// What is differentiated.
    pub sum: Tensor,
    /// Whether both decide alike, where the first output is a classifier's.
    pub agrees: Option<bool>,
}

impl Loss {
    /// As a number.
    ///
    /// # Errors
    /// candle's.
    pub fn value(&self) -> std::result::Result<f64, LearnError> {
        let value = self.sum.to_scalar::<f32>();
        value.map(f64::from).map_err(|e| LearnError::step(&e))
    }
}

/// Mean of losses, and the share of samples on which both networks decide alike, where they decide.
pub fn mean(losses: &[(f64, Option<bool>)]) -> (f64, Option<f64>) {
    let count = losses.len() as f64;
    let votes: Option<Vec<bool>> = losses.iter().map(|(_, agrees)| *agrees).collect();
    let share = |votes: Vec<bool>| votes.iter().filter(|v| **v).count() as f64 / count;
    let sum: f64 = losses.iter().map(|(loss, _)| loss).sum();
    (sum / count, votes.map(share))
}

/// What the quantised network learns.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Objective {
    /// The float network's values, at the outputs and behind each block.
    #[default]
    Values,
    /// Its decisions alone, as if they were labels: what quantisation-aware training without distillation does.
    Decisions,
}

/// Weight of an output, next to what leaves a block. An output is a few numbers of an image and soon known by heart: with the same
/// weight ViT-Tiny W4A4 reached 19.7 dB at the logits of 88 images in 3,000 steps, and lost 0.7 dB at those of 300 others.
const OUTPUT: f64 = 0.3;

/// The loss of a sample: of values the mean of `‖x̂ - x‖²/‖x‖²` over the outputs and what leaves each block (FitNets, arXiv 1412.6550),
/// there token by token where the last axis has one of the `widths` of a token, each token with its share of `importance` if that is known.
///
/// The divergence of the softmax, which distillation usually takes, is worse on few samples: on ViT-Tiny W4A4 and 88 images it fell
/// by a third on crops of those and rose by four fifths on images of other classes, as only the seen classes pull at it. This
/// sum knows no classes, and fell by 13 % on those other images.
///
/// Of decisions it is the cross-entropy with the float network's first choice.
///
/// # Errors
/// candle's; and decisions are asked for where the first output makes none.
pub fn loss(
    objective: Objective,
    (outputs, features): (&[Outlet], &[Outlet]),
    widths: &BTreeSet<usize>,
    quantised: &Values,
    float: &Values,
    importance: &Values,
) -> Result<Loss> {
    let both = |outlet: &Outlet| match (quantised.get(outlet), float.get(outlet)) {
        (Some(Value::Float(a)), Some(Value::Float(b))) => Some((a, b)),
        _ => None,
    };
    let share = |outlet: &Outlet| match importance.get(outlet) {
        Some(Value::Float(share)) => Some(share),
        _ => None,
    };
    let decided = |x: &Tensor| x.argmax(D::Minus1);
    let first = |x: &Tensor| decided(x)?.to_vec1::<u32>();
    let classes = outputs.first().and_then(both);
    let classes = classes.filter(|(_, b)| b.rank() == 2 && b.dims()[1] > 1);
    let alike = |(a, b)| Ok::<_, candle_core::Error>(first(a)? == first(b)?);
    let agrees = classes.map(alike).transpose()?;
    let sum = match (objective, classes) {
        (Objective::Values, _) => {
            let compared = outputs.iter().chain(features);
            let compared: Vec<_> = compared
                .filter_map(|it| Some((both(it)?, share(it))))
                .collect();
            let mut sum: Option<Tensor> = None;
            for (place, ((a, b), share)) in compared.iter().enumerate() {
                let is_output = place < outputs.len();
                let error = match of_tokens(b, widths) && !is_output {
                    true => relative_by_token(a, b, *share)?,
                    false => relative(a, b)?,
                };
                let weight = match is_output && !features.is_empty() {
                    true => OUTPUT,
                    false => 1.0,
                };
                let part = (error * (weight / compared.len() as f64))?;
                sum = Some(match sum {
                    Some(sum) => (sum + part)?,
                    None => part,
                });
            }
            // Nothing is no error.
            sum.map_or_else(|| Tensor::zeros((), DType::F32, &Device::Cpu), Ok)?
        }
        (Objective::Decisions, Some((a, b))) => cross_entropy(a, &decided(b)?)?,
        (Objective::Decisions, None) => bail!("the model's first output decides nothing"),
    };
    Ok(Loss { sum, agrees })
}

/// Whether the last axis of a value has one of the `widths` of a token.
pub fn of_tokens(value: &Tensor, widths: &BTreeSet<usize>) -> bool {
    value.rank() > 2 && value.dims().last().is_some_and(|k| widths.contains(k))
}

/// `mean(ln Σ exp(a) - a[chosen])`
fn cross_entropy(a: &Tensor, chosen: &Tensor) -> Result<Tensor> {
    let most = a.max_keepdim(D::Minus1)?.detach();
    let shifted = a.broadcast_sub(&most)?;
    let sums = shifted.exp()?.sum(D::Minus1)?.log()?;
    let picked = shifted.gather(&chosen.unsqueeze(1)?, 1)?.squeeze(1)?;
    (sums - picked)?.mean_all()
}

/// The mean over tokens (weighted, if they have shares) of `‖a - b‖²/‖b - mean(b)‖²`, as the norm in front of whatever reads them sees it. A few tokens of a ViT carry
/// nearly all of the energy behind its later blocks (massive activations, arXiv 2402.17762): on ViT-Tiny five of 197 have 97 %,
/// and of all tokens at once nothing else would be learned.
fn relative_by_token(a: &Tensor, b: &Tensor, share: Option<&Tensor>) -> Result<Tensor> {
    let error = (a - b)?.sqr()?.mean_keepdim(D::Minus1)?;
    let errors = (error / spread(b)?)?;
    match share {
        Some(share) => (errors * share)?.sum_all(),
        None => errors.mean_all(),
    }
}

/// `‖b - mean(b)‖²` of each token per channel, `[…, 1]`; a token of next to nothing is no measure.
pub fn spread(b: &Tensor) -> Result<Tensor> {
    let spread = b.broadcast_sub(&b.mean_keepdim(D::Minus1)?)?;
    let size = spread.sqr()?.mean_keepdim(D::Minus1)?;
    let mut sorted = size.flatten_all()?.to_vec1::<f32>()?;
    sorted.sort_unstable_by(f32::total_cmp);
    let least = 1e-2 * sorted.get(sorted.len() / 2).copied().unwrap_or(0.0);
    size.maximum(f64::from(least).max(1e-12))
}

/// `‖a - b‖²/‖b‖²`
fn relative(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let size = f64::from(b.sqr()?.mean_all()?.to_scalar::<f32>()?);
    (a - b)?.sqr()?.mean_all()? / size.max(1e-12)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_massive_token_does_not_hide_the_others() {
        let tokens = |values: [[f32; 2]; 3]| Tensor::new(&[values], &Device::Cpu).unwrap();
        let float = tokens([[1.0, -1.0], [3.0, 1.0], [1e4, -1e4]]);
        let other = tokens([[1.5, -1.0], [3.0, 1.0], [1e4, -1e4]]);
        let number = |loss: Result<Tensor>| loss.unwrap().to_scalar::<f32>().unwrap();
        assert!(number(relative(&other, &float)) < 1e-8);
        let by_token = number(relative_by_token(&other, &float, None));
        assert!((by_token - 0.125 / 3.0).abs() < 1e-6, "{by_token}");
        let empty = tokens([[1.0, -1.0], [3.0, 1.0], [0.0, 0.0]]);
        let nearly = tokens([[1.0, -1.0], [3.0, 1.0], [0.001, 0.0]]);
        assert!(number(relative_by_token(&nearly, &empty, None)) < 1e-3);
    }
}
