//! Quantisers of activations: what they do to values, and how one is chosen.

mod codebook;
mod held_out;
mod interval;
mod levels;
mod log;
mod points;
mod uniform;

use vitq_passes::plan::{Activation, Segment};

use crate::run::vector::vectorised;

pub use codebook::{codebook, segments};
pub use held_out::held_out_factor;
pub use interval::{first_level, highest_first, interval, intervals};
pub use levels::{Bin, best_levels};
pub use log::{log, zero_code};
pub use points::{Histogram, Points};
pub use uniform::{around_zero, from_range, symmetric, uniform};

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
        Activation::Float => {}
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
        Activation::Codebook { scale, segments } => {
            let ramps: Vec<Ramp> = segments.iter().map(|s| Ramp::new(*scale, *s)).collect();
            let first = segments.first().map_or(0.0, |s| f32::from(s.from));
            for values in values.chunks_mut(CHUNK) {
                staircase(values, &ramps, first, *scale);
            }
        }
    }
}

/// Values that stay in the first cache while one ramp after the other is added up.
const CHUNK: usize = 1024;

/// `x̂ = scale·(first + Σ ramps(x))`, at most [`CHUNK`] values.
fn staircase(values: &mut [f32], ramps: &[Ramp], first: f32, scale: f32) {
    let mut levels = [0.0; CHUNK];
    let levels = &mut levels[..values.len()];
    levels.fill(first);
    vectorised(|| {
        for ramp in ramps {
            for (level, x) in levels.iter_mut().zip(&*values) {
                *level += ramp.at(*x);
            }
        }
        for (x, level) in values.iter_mut().zip(&*levels) {
            *x = level * scale;
        }
    });
}

/// A segment of a codebook as a function that stands still outside of it.
struct Ramp {
    step: f32,
    scale: f32,
    from: f32,
    to: f32,
}

impl Ramp {
    fn new(scale: f32, segment: Segment) -> Ramp {
        let step = f32::from(segment.step);
        Ramp {
            step,
            scale: scale * step,
            from: f32::from(segment.from) / step,
            to: f32::from(segment.to) / step,
        }
    }

    /// Levels above `from`, in units of the codebook's grid.
    #[inline(always)]
    fn at(&self, x: f32) -> f32 {
        (round((x / self.scale).clamp(self.from, self.to)) - self.from) * self.step
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
        Activation::Codebook { scale, segments } => Activation::Codebook {
            scale: scale * factor,
            segments,
        },
        other @ (Activation::Float | Activation::Log { .. }) => other,
    }
}

/// Smallest and largest code, less the zero point.
fn code_range(bits: u32, zero_point: u8) -> (f32, f32) {
    let zero = f32::from(zero_point);
    (-zero, ((1u32 << bits) - 1) as f32 - zero)
}

/// Width that stands for activations that stay float.
pub const FLOAT_BITS: u32 = 16;

/// Bits that an activation carries.
pub fn bits(quantiser: &Activation) -> u32 {
    match quantiser {
        Activation::Float => FLOAT_BITS,
        Activation::Uniform { bits, .. } | Activation::Log { bits, .. } => *bits,
        Activation::Codebook { segments, .. } => {
            let steps: u32 = segments.iter().map(|s| steps(*s)).sum();
            (steps + 1).next_power_of_two().trailing_zeros()
        }
    }
}

/// Steps of a segment.
fn steps(segment: Segment) -> u32 {
    let length = i32::from(segment.to) - i32::from(segment.from);
    length.unsigned_abs() / u32::from(segment.step).max(1)
}
