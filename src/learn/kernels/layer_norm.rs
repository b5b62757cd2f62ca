//! LayerNormalization over the last axis.
//!
//! `y = γ·n + β`, `n = (x - μ)/σ`; with `h = γ·g`: `∂x = (h - mean(h) - n·mean(h·n))/σ`, `∂γ = Σ g·n`, `∂β = Σ g`. An
//! RMSNormalization keeps the mean and has no β.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{elements, like, read, tensor_like};
use crate::linalg::{dot, square_sum};

/// `x […, channels]`, `γ [channels]`, `β [channels]` or nothing → `[…, channels]`.
pub struct LayerNorm {
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether the mean is taken away, which an RMSNormalization doesn't.
    pub centred: bool,
}

/// Gradients of x, γ and β.
struct Slopes {
    x: Vec<f32>,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl LayerNorm {
    /// Mean and 1/σ of a row.
    fn moments(&self, x: &[f32]) -> (f32, f32) {
        let n = x.len() as f64;
        let mean = if self.centred {
            x.iter().map(|&v| f64::from(v)).sum::<f64>() / n
        } else {
            0.0
        };
        let variance = if self.centred {
            let mean = mean as f32;
            let centred: Vec<f32> = x.iter().map(|v| v - mean).collect();
            square_sum(&centred) / n
        } else {
            square_sum(x) / n
        };
        let deviation = (variance + f64::from(self.epsilon)).sqrt();
        (mean as f32, (1.0 / deviation) as f32)
    }

    fn add_row(&self, x: &[f32], g: &[f32], scale: &[f32], slopes: &mut Slopes) {
        let (mean, inverse) = self.moments(x);
        let n = x.len() as f32;
        let h: Vec<f32> = g.iter().zip(scale).map(|(g, s)| g * s).collect();
        let normal: Vec<f32> = x.iter().map(|x| (x - mean) * inverse).collect();
        let along = dot(&h, &normal) as f32 / n;
        let level = if self.centred {
            h.iter().sum::<f32>() / n
        } else {
            0.0
        };
        slopes.x.extend(
            h.iter()
                .zip(&normal)
                .map(|(h, normal)| (h - level - normal * along) * inverse),
        );
        for ((slope, g), normal) in slopes.scale.iter_mut().zip(g).zip(&normal) {
            *slope += g * normal;
        }
        slopes.shift.iter_mut().zip(g).for_each(|(s, g)| *s += g);
    }

    fn slopes(&self, x: &[f32], gradient: &[f32], scale: &[f32], shifts: usize) -> Slopes {
        let channels = scale.len();
        let mut slopes = Slopes {
            x: Vec::with_capacity(x.len()),
            scale: vec![0.0; channels],
            shift: vec![0.0; shifts],
        };
        let rows = x.chunks_exact(channels);
        for (x, g) in rows.zip(gradient.chunks_exact(channels)) {
            self.add_row(x, g, scale, &mut slopes);
        }
        slopes
    }
}

impl CustomOp3 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        scale: &CpuStorage,
        scale_layout: &Layout,
        shift: &CpuStorage,
        shift_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let mut values = elements(x, x_layout)?.to_vec();
        let (scale, shift) = (
            elements(scale, scale_layout)?,
            elements(shift, shift_layout)?,
        );
        for row in values.chunks_exact_mut(scale.len()) {
            let (mean, inverse) = self.moments(row);
            for (v, scale) in row.iter_mut().zip(scale) {
                *v = (*v - mean) * inverse * scale;
            }
            for (v, shift) in row.iter_mut().zip(shift) {
                *v += shift;
            }
        }
        Ok(like(values, x_layout))
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        shift: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let shifts = shift.elem_count();
        let slopes = read(x, |x| {
            read(gradient, |gradient| {
                read(scale, |scale| self.slopes(x, gradient, scale, shifts))
            })
        })???;
        Ok((
            Some(tensor_like(slopes.x, x)?),
            Some(tensor_like(slopes.scale, scale)?),
            Some(tensor_like(slopes.shift, shift)?),
        ))
    }
}
