//! Gradients of several samples, added up in their order, whatever the number of threads.

use candle_core::Tensor;
use rayon::prelude::*;

use super::LearnError;
use super::kernels::read;
use super::state::Leaves;

/// Loss and gradients, by site and leaf.
pub type Gradients = (f64, Vec<Vec<Vec<f32>>>);

/// The sum over samples, each known by its place and its number.
///
/// # Errors
/// Those of `of`, and there is none.
pub fn sum(
    samples: &[usize],
    of: impl Fn(usize, usize) -> Result<Gradients, LearnError> + Sync,
) -> Result<Gradients, LearnError> {
    let numbered: Vec<(usize, usize)> = samples.iter().copied().enumerate().collect();
    let mut sum: Option<Gradients> = None;
    // A few at a time, as each sample's gradients are as large as the weights.
    for some in numbered.chunks(4) {
        let parts = some.par_iter().map(|&(place, sample)| of(place, sample));
        for part in parts.collect::<Result<Vec<_>, _>>()? {
            sum = Some(match sum {
                None => part,
                Some(sum) => add(sum, &part),
            });
        }
    }
    sum.ok_or(LearnError::TooFew(0))
}

/// Differentiates a loss by the leaves.
///
/// # Errors
/// candle's.
pub fn backward(loss: &Tensor, leaves: &[Leaves]) -> Result<Gradients, LearnError> {
    differentiate(loss, leaves).map_err(|e| LearnError::step(&e))
}

fn differentiate(loss: &Tensor, leaves: &[Leaves]) -> candle_core::Result<Gradients> {
    let store = loss.backward()?;
    let of = |leaf: &Tensor| match store.get(leaf) {
        Some(gradient) => read(gradient, <[f32]>::to_vec),
        None => Ok(vec![0.0; leaf.elem_count()]),
    };
    let sites = leaves.iter().map(|leaves| {
        let learned = leaves.learned().iter();
        learned.map(of).collect::<candle_core::Result<Vec<_>>>()
    });
    let gradients = sites.collect::<candle_core::Result<Vec<_>>>()?;
    Ok((f64::from(loss.to_scalar::<f32>()?), gradients))
}

fn add((loss, mut sites): Gradients, (other, parts): &Gradients) -> Gradients {
    for (sum, part) in sites.iter_mut().flatten().zip(parts.iter().flatten()) {
        sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
    }
    (loss + other, sites)
}
