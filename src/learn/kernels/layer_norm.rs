//! LayerNormalization over the last axis, its affine part frozen.
//!
//! `y = γ·n + β`, `n = (x - μ)/σ`; with `h = γ·g`: `∂x = (h - mean(h) - n·mean(h·n))/σ`. An RMSNormalization keeps the mean.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::{elements, like, read, tensor_like};
use crate::linalg::{dot, square_sum};

/// The operator with its parameters.
pub struct LayerNorm {
    /// γ, `[channels]`
    pub scale: Vec<f32>,
    /// β, `[channels]`; empty means zeros.
    pub shift: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
    /// Whether the mean is taken away, which an RMSNormalization doesn't.
    pub centred: bool,
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

    fn gradient(&self, x: &[f32], g: &[f32], out: &mut Vec<f32>) {
        let (mean, inverse) = self.moments(x);
        let n = x.len() as f32;
        let h: Vec<f32> = g.iter().zip(&self.scale).map(|(g, s)| g * s).collect();
        let normal: Vec<f32> = x.iter().map(|x| (x - mean) * inverse).collect();
        let along = dot(&h, &normal) as f32 / n;
        let level = if self.centred {
            h.iter().sum::<f32>() / n
        } else {
            0.0
        };
        out.extend(
            h.iter()
                .zip(&normal)
                .map(|(h, normal)| (h - level - normal * along) * inverse),
        );
    }
}

impl CustomOp1 for LayerNorm {
    fn name(&self) -> &'static str {
        "layer-norm"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut values = elements(storage, layout)?.to_vec();
        for row in values.chunks_exact_mut(self.scale.len()) {
            let (mean, inverse) = self.moments(row);
            for (v, scale) in row.iter_mut().zip(&self.scale) {
                *v = (*v - mean) * inverse * scale;
            }
            for (v, shift) in row.iter_mut().zip(&self.shift) {
                *v += shift;
            }
        }
        Ok(like(values, layout))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let channels = self.scale.len();
        let values = read(x, |x| {
            read(gradient, |gradient| {
                let mut values = Vec::with_capacity(x.len());
                for (x, g) in x
                    .chunks_exact(channels)
                    .zip(gradient.chunks_exact(channels))
                {
                    self.gradient(x, g, &mut values);
                }
                values
            })
        })??;
        Ok(Some(tensor_like(values, x)?))
    }
}
