//! Quantisers of activations: what they do to values, and how one is chosen.

mod codebook;
mod held_out;
mod log;
mod points;
mod uniform;

use vitq_passes::plan::Activation;

use crate::run::vector::vectorised;

pub use codebook::{Bin, best_levels, codebook};
pub use held_out::held_out_factor;
pub use log::log;
pub use points::{Histogram, Points};
pub use uniform::{from_range, uniform};

/// Nearest integer, ties to even, of `|x| < 2²²`, in two vector instructions (the library call is scalar where SSE4.1 is not
/// assumed): adding 1.5·2²³ leaves no fraction bits.
#[inline(always)]
pub fn round(x: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    x + SHIFT - SHIFT
}

/// Replaces values by what their codes stand for.
pub fn apply(quantiser: &Activation, values: &mut [f32]) {
    match quantiser {
        Activation::Uniform {
            bits,
            scale,
            zero_point,
        } => {
            let (lo, hi) = code_range(*bits, *zero_point);
            vectorised(|| {
                for v in values {
                    *v = round((*v / scale).clamp(lo, hi)) * scale;
                }
            });
        }
        Activation::Log { bits, step, shift } => {
            let zero = log::zero_code(*bits, *shift);
            let table: Vec<f32> = (0..=zero).map(|k| log::level(k, zero, *step)).collect();
            for v in values {
                *v = table[log::code(*v, *step, *shift, zero) as usize];
            }
        }
        Activation::Codebook {
            scale,
            zero_point,
            table,
            level_scale,
            level_zero,
        } => {
            let (lo, hi) = code_range(8, *zero_point);
            let zero = f32::from(*zero_point);
            let values_of: Vec<f32> = table
                .iter()
                .map(|&l| (f32::from(l) - f32::from(*level_zero)) * level_scale)
                .collect();
            vectorised(|| {
                for v in values {
                    let code = round((*v / scale).clamp(lo, hi)) + zero;
                    *v = values_of[code as usize & 255];
                }
            });
        }
    }
}

/// The same quantiser over a range `factor` times as wide.
pub fn widened(quantiser: Activation, factor: f32) -> Activation {
    match quantiser {
        Activation::Uniform {
            bits,
            scale,
            zero_point,
        } => Activation::Uniform {
            bits,
            scale: scale * factor,
            zero_point,
        },
        Activation::Codebook {
            scale,
            zero_point,
            table,
            level_scale,
            level_zero,
        } => Activation::Codebook {
            scale: scale * factor,
            zero_point,
            table,
            level_scale: level_scale * factor,
            level_zero,
        },
        log => log,
    }
}

/// Smallest and largest code, less the zero point.
fn code_range(bits: u32, zero_point: u8) -> (f32, f32) {
    let zero = f32::from(zero_point);
    (-zero, ((1u32 << bits) - 1) as f32 - zero)
}

/// Bits that an activation carries.
pub fn bits(quantiser: &Activation) -> u32 {
    match quantiser {
        Activation::Uniform { bits, .. } | Activation::Log { bits, .. } => *bits,
        Activation::Codebook { table, .. } => {
            let mut levels = table.clone();
            levels.sort_unstable();
            levels.dedup();
            levels.len().next_power_of_two().trailing_zeros()
        }
    }
}
