//! Gradients of several samples, added up in an order that the number of threads does not change.

use candle_core::Tensor;
use rayon::prelude::*;

use super::LearnError;
use super::kernels::read;
use super::loss::Loss;
use super::state::{Leaves, LinearLeaves};

/// Loss and gradients, by site and leaf; a Linear's weight before its other leaves, empty where it does not learn.
pub type Gradients = (f64, Vec<Vec<Vec<f32>>>);

/// Samples at a time. Each lane adds up its samples' gradients of the weights one after the other, as they are as large as those.
const LANES: usize = 4;

/// The sum over samples of the gradients of a loss, which is made of a sample's place, its number, and the leaves of its lane.
///
/// # Errors
/// Those of `loss`, and there is no sample.
pub fn sum(
    samples: &[usize],
    leaves: &[Leaves],
    loss: impl Fn(usize, usize, &[Leaves]) -> Result<Loss, LearnError> + Sync,
) -> Result<Gradients, LearnError> {
    let lanes = (0..LANES.min(samples.len())).map(|_| leaves.iter().map(Leaves::apart).collect());
    let lanes: Vec<Vec<Leaves>> = lanes.collect();
    let numbered: Vec<(usize, usize)> = samples.iter().copied().enumerate().collect();
    let mut sum: Option<Gradients> = None;
    for some in numbered.chunks(LANES) {
        let parts = some
            .par_iter()
            .zip(&lanes)
            .map(|(&(place, sample), leaves)| {
                let loss = loss(place, sample, leaves)?;
                differentiate(&loss.sum, leaves).map_err(|e| LearnError::step(&e))
            });
        for part in parts.collect::<Result<Vec<_>, _>>()? {
            match &mut sum {
                None => sum = Some(part),
                Some(sum) => add(sum, &part),
            }
        }
    }
    let (loss, mut sites) = sum.ok_or(LearnError::TooFew(0))?;
    sites
        .par_iter_mut()
        .enumerate()
        .try_for_each(|(site, gradients)| {
            if let Leaves::Linear(_) = leaves[site] {
                let lanes = lanes.iter().map(|lane| &lane[site]);
                gradients.insert(0, of_weight(lanes)?);
            }
            Ok(())
        })
        .map_err(|e: candle_core::Error| LearnError::step(&e))?;
    Ok((loss, sites))
}

/// What the lanes give for the weight of one Linear.
fn of_weight<'a>(lanes: impl Iterator<Item = &'a Leaves>) -> candle_core::Result<Vec<f32>> {
    let totals = lanes.filter_map(|leaves| match leaves {
        Leaves::Linear(leaves) => leaves.total.as_ref(),
        _ => None,
    });
    let mut sum = Vec::new();
    for total in totals {
        let part = total.take()?;
        match sum.is_empty() {
            true => sum = part,
            false => add_to(&mut sum, &part),
        }
    }
    Ok(sum)
}

/// Loss and gradients of all leaves but the weights of Linears.
fn differentiate(loss: &Tensor, leaves: &[Leaves]) -> candle_core::Result<Gradients> {
    let store = loss.backward()?;
    let of = |leaf: &Tensor| match store.get(leaf) {
        Some(gradient) => read(gradient, <[f32]>::to_vec),
        None => Ok(vec![0.0; leaf.elem_count()]),
    };
    for leaves in leaves {
        if let Leaves::Linear(LinearLeaves {
            weight,
            total: Some(total),
            ..
        }) = leaves
            && let Some(gradient) = store.get(weight)
        {
            total.add_tensor(gradient)?;
        }
    }
    let sites = leaves.iter().map(|leaves| {
        let others = leaves.others().iter();
        others.map(of).collect::<candle_core::Result<Vec<_>>>()
    });
    let gradients = sites.collect::<candle_core::Result<Vec<_>>>()?;
    Ok((f64::from(loss.to_scalar::<f32>()?), gradients))
}

fn add((loss, sites): &mut Gradients, (other, parts): &Gradients) {
    *loss += other;
    for (sum, part) in sites.iter_mut().flatten().zip(parts.iter().flatten()) {
        add_to(sum, part);
    }
}

fn add_to(sum: &mut [f32], part: &[f32]) {
    sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
}
