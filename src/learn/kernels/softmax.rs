//! Softmax over the last axis: `y = exp(x - max)/Σ`, `∂x = y·(g - Σ g·y)`.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::exponential::exp;
use super::{elements, like, read, row, tensor_like};
use crate::linalg::dot;
use crate::run::vector::vectorised;

/// Softmax over the last axis.
pub struct Softmax;

impl CustomOp1 for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut values = elements(storage, layout)?.to_vec();
        for values in values.chunks_exact_mut(row(layout)) {
            let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            vectorised(
                #[inline(always)]
                || values.iter_mut().for_each(|v| *v = exp(*v - most)),
            );
            let sum: f32 = values.iter().sum();
            values.iter_mut().for_each(|v| *v /= sum);
        }
        Ok(like(values, layout))
    }

    fn bwd(&self, _: &Tensor, y: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let row = y.dims().last().copied().unwrap_or(1).max(1);
        let values = read(y, |y| {
            read(gradient, |gradient| {
                let mut values = Vec::with_capacity(y.len());
                for (y, g) in y.chunks_exact(row).zip(gradient.chunks_exact(row)) {
                    let mean = dot(y, g) as f32;
                    values.extend(y.iter().zip(g).map(|(y, g)| y * (g - mean)));
                }
                values
            })
        })??;
        Ok(Some(tensor_like(values, y)?))
    }
}
