//! How much wider than on the inputs seen a quantiser's range should be: judged on inputs that it was not chosen on.
//!
//! Few inputs do not show how far an activation reaches: a clipped outlier of an unseen one costs far more than a slightly
//! larger step. Each group of inputs in turn is held out, the quantiser chosen on the others, and its error taken on the
//! group at several widths; the width of least error over all groups wins.

use rayon::prelude::*;
use vitq_passes::plan::Activation;

use super::{Histogram, widened};

/// Widths that are tried, in units of the range chosen.
const FACTORS: [f32; 7] = [1.0, 1.1, 1.2, 1.4, 1.6, 2.0, 2.5];

/// The factor for a quantiser that `choose` makes from points; 1 where there are fewer than two groups.
pub fn held_out_factor(
    groups: &[Histogram],
    choose: impl Fn(&Histogram) -> Activation + Sync,
) -> f32 {
    if groups.len() < 2 {
        return FACTORS[0];
    }
    let by_group: Vec<[f64; FACTORS.len()]> = (0..groups.len())
        .into_par_iter()
        .map(|held_out| {
            let others = [&groups[..held_out], &groups[held_out + 1..]].concat();
            let chosen = choose(&Histogram::merged(&others));
            let unseen = groups[held_out].points();
            FACTORS.map(|factor| unseen.error(&widened(chosen.clone(), factor)))
        })
        .collect();
    let mut errors = [0.0; FACTORS.len()];
    for group in by_group {
        errors.iter_mut().zip(group).for_each(|(sum, e)| *sum += e);
    }
    errors
        .into_iter()
        .zip(FACTORS)
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(FACTORS[0], |(_, factor)| factor)
}
