//! An activation's quantiser: rounding passes its gradient straight through, the step learns as in LSQ (arXiv 1902.08153).
//!
//! `∂x = g` within the range of the levels, 0 outside; `∂s = Σ g·(x̂ - x)/s` within, `Σ g·x̂/s` outside. Where the interval
//! moves too, its lowest level `m` in steps learns from what lies outside: `∂m = s·Σ g`.

use candle_core::{CpuStorage, CustomOp2, Layout, Result, Shape, Tensor};
use vitq_passes::plan::Activation;

use super::{elements, like, read, tensor_like};
use crate::quant;
use crate::run::vector::vectorised;

/// Sums that run side by side.
const LANES: usize = 16;

/// `(x, s) → x̂`; `s` holds the step, and the lowest level where it learns.
pub struct FakeQuantise {
    /// The quantiser, whose numbers those of `s` replace.
    pub quantiser: Activation,
}

impl CustomOp2 for FakeQuantise {
    fn name(&self) -> &'static str {
        "fake-quantise"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        s: &CpuStorage,
        s_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let x = elements(x, x_layout)?;
        let mut values = x.to_vec();
        quant::apply(
            &learned(&self.quantiser, elements(s, s_layout)?),
            &mut values,
        );
        Ok(like(values, x_layout))
    }

    fn bwd(
        &self,
        x: &Tensor,
        s: &Tensor,
        rounded: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let numbers = read(s, <[f32]>::to_vec)?;
        let step = numbers.first().copied().unwrap_or(1.0);
        let bounds = range(&learned(&self.quantiser, &numbers), step);
        let (dx, ds, outside) = read(x, |x| {
            read(rounded, |rounded| {
                read(gradient, |gradient| {
                    let (dx, ds) = gradients(x, rounded, gradient, bounds);
                    // What passes is g within and 0 outside.
                    let outside = gradient.iter().zip(&dx).map(|(g, d)| g - d).sum::<f32>();
                    (dx, ds, outside)
                })
            })
        })???;
        let mut ds = vec![ds / step, outside * step];
        ds.truncate(numbers.len());
        let ds = Tensor::from_vec(ds, s.shape(), s.device())?;
        Ok((Some(tensor_like(dx, x)?), Some(ds)))
    }
}

/// `∂x` and `∂s·s`.
fn gradients(
    x: &[f32],
    rounded: &[f32],
    gradient: &[f32],
    (low, high): (f32, f32),
) -> (Vec<f32>, f32) {
    let mut dx = gradient.to_vec();
    let mut sums = [0.0f32; LANES];
    vectorised(
        #[inline(always)]
        || {
            let rows = dx.chunks_mut(LANES).zip(x.chunks(LANES));
            for ((dx, x), rounded) in rows.zip(rounded.chunks(LANES)) {
                let values = dx.iter_mut().zip(x).zip(rounded);
                for (sum, ((d, x), rounded)) in sums.iter_mut().zip(values) {
                    let inside = (low <= *x) & (*x <= high);
                    *sum += *d * (rounded - if inside { *x } else { 0.0 });
                    *d = if inside { *d } else { 0.0 };
                }
            }
        },
    );
    (dx, sums.iter().sum())
}

/// The same quantiser with another step and, if a second number is given, another lowest level; what has none to learn stays as it is.
pub fn learned(quantiser: &Activation, numbers: &[f32]) -> Activation {
    match (quantiser, numbers) {
        (other @ (Activation::Float | Activation::Log { .. }), _) | (other, []) => other.clone(),
        (interval, [step, first, ..]) => {
            let bits = quant::bits(interval);
            let most = f32::from(quant::highest_first(bits));
            quant::interval(bits, *step, first.round().clamp(0.0, most) as u8)
        }
        (
            Activation::Uniform {
                bits, zero_point, ..
            },
            [step],
        ) => Activation::Uniform {
            bits: *bits,
            scale: *step,
            zero_point: *zero_point,
        },
        (Activation::Codebook { segments, .. }, [step]) => Activation::Codebook {
            scale: *step,
            segments: segments.clone(),
        },
    }
}

/// The step, where there is one to learn.
pub fn step(quantiser: &Activation) -> Option<f32> {
    match quantiser {
        Activation::Uniform { scale, .. } | Activation::Codebook { scale, .. } => Some(*scale),
        Activation::Float | Activation::Log { .. } => None,
    }
}

/// Smallest and largest level, half a step more on both sides where steps are even.
pub fn range(quantiser: &Activation, step: f32) -> (f32, f32) {
    match quantiser {
        Activation::Uniform {
            bits, zero_point, ..
        } => {
            let zero = f32::from(*zero_point);
            let top = ((1u32 << bits) - 1) as f32;
            ((-zero - 0.5) * step, (top - zero + 0.5) * step)
        }
        Activation::Codebook { segments, .. } => {
            let low = segments.first().map_or(0.0, |s| f32::from(s.from));
            let high = segments.last().map_or(0.0, |s| f32::from(s.to));
            (low * step, high * step)
        }
        Activation::Float | Activation::Log { .. } => (f32::NEG_INFINITY, f32::INFINITY),
    }
}
