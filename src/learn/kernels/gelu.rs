//! GELU: `y = x·Φ(x)`, `∂x = g·(Φ(x) + x·φ(x))`.

use std::f32::consts::FRAC_1_SQRT_2;

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};

use super::exponential::exp;
use super::{elements, like, read, tensor_like};
use crate::run::vector::vectorised;

/// GELU by the error function.
pub struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let mut values = elements(storage, layout)?.to_vec();
        vectorised(
            #[inline(always)]
            || values.iter_mut().for_each(|x| *x *= cumulative(*x)),
        );
        Ok(like(values, layout))
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, gradient: &Tensor) -> Result<Option<Tensor>> {
        let values = read(x, |x| {
            read(gradient, |gradient| {
                let mut values = gradient.to_vec();
                vectorised(
                    #[inline(always)]
                    || {
                        for (g, x) in values.iter_mut().zip(x) {
                            *g *= slope(*x);
                        }
                    },
                );
                values
            })
        })??;
        Ok(Some(tensor_like(values, x)?))
    }
}

/// Φ(x) + x·φ(x)
#[inline(always)]
fn slope(x: f32) -> f32 {
    // 1/√(2π)
    const PEAK: f32 = 0.398_942_3;
    cumulative(x) + x * PEAK * exp(-0.5 * x * x)
}

/// Φ(x) by Abramowitz and Stegun 7.1.26, whose erf is 1.5e-7 off at most.
#[inline(always)]
fn cumulative(x: f32) -> f32 {
    let z = x.abs() * FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.327_591_1 * z);
    let series = t
        * (0.254_829_6
            + t * (-0.284_496_74 + t * (1.421_413_7 + t * (-1.453_152 + t * 1.061_405_4))));
    let tail = 0.5 * series * exp(-z * z);
    if x < 0.0 { tail } else { 1.0 - tail }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of Φ from tables (Abramowitz and Stegun, table 26.1).
    #[test]
    fn the_cumulative_normal_distribution() {
        for (x, phi) in [
            (0.0, 0.5),
            (1.0, 0.841_344_7),
            (-1.0, 0.158_655_3),
            (2.5, 0.993_790_3),
            (-4.0, 3.167e-5),
        ] {
            assert!(
                (cumulative(x) - phi).abs() < 5e-7,
                "{x}: {} is not {phi}",
                cumulative(x)
            );
        }
    }
}
