//! The same operators put together of candle's, for devices that the others of this folder do not run on.
//!
//! candle finds their gradients. Where rounding has one of its own, the value is `rounded + slope·(x - x)`: the bracket is nothing, and what
//! candle makes of its first `x` is the slope.

use candle_core::{D, DType, Result, Tensor};
use vitq_passes::plan::{Activation, Segment};

use super::quantiser::{learned, range};
use super::{LayerNorm, read};
use crate::quant::zero_code;

pub fn softmax(x: &Tensor) -> Result<Tensor> {
    let most = x.detach().max_keepdim(D::Minus1)?;
    let parts = x.broadcast_sub(&most)?.exp()?;
    parts.broadcast_div(&parts.sum_keepdim(D::Minus1)?)
}

pub fn layer_norm(x: &Tensor, scale: &Tensor, shift: &Tensor, norm: &LayerNorm) -> Result<Tensor> {
    let x = match norm.centred {
        true => x.broadcast_sub(&x.mean_keepdim(D::Minus1)?)?,
        false => x.clone(),
    };
    let variance = x.sqr()?.mean_keepdim(D::Minus1)?;
    let deviation = (variance + f64::from(norm.epsilon))?.sqrt()?;
    let y = x.broadcast_div(&deviation)?.broadcast_mul(scale)?;
    match shift.elem_count() {
        0 => Ok(y),
        _ => y.broadcast_add(shift),
    }
}

/// `x [rows, k]`, `w [out, k]`, `b [out]` → `[rows, out]`
pub fn linear(x: &Tensor, w: &Tensor, b: &Tensor) -> Result<Tensor> {
    x.matmul(&w.t()?)?.broadcast_add(b)
}

/// See [`super::quantiser`].
pub fn fake_quantise(x: &Tensor, numbers: &Tensor, quantiser: &Activation) -> Result<Tensor> {
    let known = read(numbers, <[f32]>::to_vec)?;
    let step = known.first().copied().unwrap_or(1.0);
    let now = learned(quantiser, &known);
    let fixed = x.detach();
    let rounded = rounded(&now, &fixed)?;
    let (low, high) = range(&now, step);
    let inside = (fixed.ge(low)?.to_dtype(DType::F32)? * fixed.le(high)?.to_dtype(DType::F32)?)?;
    let of_step = ((&rounded - (&inside * &fixed)?)? / f64::from(step))?;
    let moved = |place: usize| {
        let number = numbers.narrow(0, place, 1)?;
        &number - number.detach()
    };
    let mut y = ((&rounded + (&inside * (x - &fixed)?)?)? + of_step.broadcast_mul(&moved(0)?)?)?;
    if known.len() > 1 {
        let outside = ((1.0 - inside)? * f64::from(step))?;
        y = (y + outside.broadcast_mul(&moved(1)?)?)?;
    }
    Ok(y)
}

/// [`crate::quant::apply`]
fn rounded(quantiser: &Activation, x: &Tensor) -> Result<Tensor> {
    match quantiser {
        Activation::Float => Ok(x.clone()),
        Activation::Uniform {
            bits,
            scale,
            zero_point,
        } => {
            let low = -f32::from(*zero_point);
            let high = ((1u32 << bits) - 1) as f32 + low;
            round(&divided(x, *scale)?.clamp(low, high)?)? * f64::from(*scale)
        }
        Activation::Log { bits, step, shift } => {
            let zero = zero_code(*bits, *shift) as f32;
            // Nothing, and what is less, has the code of zero.
            let octaves =
                (x.clamp(f32::MIN_POSITIVE, f32::MAX)?.log()? * -std::f64::consts::LOG2_E)?;
            let codes = round(&(octaves / f64::from(*step))?.clamp(f32::from(*shift), zero)?)?;
            let kept =
                (codes.lt(zero)?.to_dtype(DType::F32)? * x.gt(0f32)?.to_dtype(DType::F32)?)?;
            (codes * (-f64::from(*step) * std::f64::consts::LN_2))?.exp()? * kept
        }
        Activation::Codebook { scale, segments } => {
            let first = segments.first().map_or(0.0, |it| f32::from(it.from));
            let ramps = segments.iter().map(|it| ramp(x, *scale, it));
            let levels = ramps.reduce(|sum, ramp| sum? + ramp?);
            let levels = levels.unwrap_or_else(|| x.zeros_like())?;
            (levels + f64::from(first))? * f64::from(*scale)
        }
    }
}

/// Levels of a segment below `x`, in units of the grid.
fn ramp(x: &Tensor, scale: f32, segment: &Segment) -> Result<Tensor> {
    let step = f32::from(segment.step);
    let [from, to] = [segment.from, segment.to].map(|end| f32::from(end) / step);
    let place = round(&divided(x, scale * step)?.clamp(from, to)?)?;
    (place - f64::from(from))? * f64::from(step)
}

/// Divided, where candle would multiply with the reciprocal: codes beside a tie differ.
fn divided(x: &Tensor, by: f32) -> Result<Tensor> {
    x.broadcast_div(&Tensor::new(by, x.device())?)
}

/// Ties to even, as [`crate::quant::round`].
fn round(x: &Tensor) -> Result<Tensor> {
    const SHIFT: f64 = 12_582_912.0;
    (x + SHIFT)? - SHIFT
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};

    use super::super::{FakeQuantise, Gelu, Kernels, Softmax, Total};
    use super::*;

    fn noise(dims: &[usize], seed: u32, size: f32) -> Var {
        let next = |i: usize| {
            let hashed = (i as u32 + 1)
                .wrapping_mul(2_654_435_761)
                .wrapping_add(seed.wrapping_mul(40_503));
            (hashed.rotate_left(13) >> 8) as f32 / (1u32 << 23) as f32 - 1.0
        };
        let count: usize = dims.iter().product();
        let values = (0..count).map(|i| size * next(i)).collect();
        Var::from_vec(values, dims, &Device::Cpu).unwrap()
    }

    /// Holds values and gradients of both against each other.
    fn alike(
        what: &str,
        operands: &[&Var],
        own: impl Fn() -> Result<Tensor>,
        composed: impl Fn() -> Result<Tensor>,
    ) {
        let (a, b) = (own().unwrap(), composed().unwrap());
        assert_eq!(a.dims(), b.dims(), "{what}");
        let weights = noise(a.dims(), 99, 1.0);
        let gradients = |y: &Tensor| {
            (y * weights.as_tensor())
                .unwrap()
                .sum_all()
                .unwrap()
                .backward()
                .unwrap()
        };
        let (of_a, of_b) = (gradients(&a), gradients(&b));
        let near = |a: &Tensor, b: &Tensor, of: &str| {
            let flat = |t: &Tensor| t.flatten_all().unwrap().to_vec1::<f32>().unwrap();
            for (a, b) in flat(a).iter().zip(flat(b)) {
                assert!(
                    (a - b).abs() <= 2e-5 * (1.0 + a.abs()),
                    "{what}, {of}: {a} for {b}"
                );
            }
        };
        near(&a, &b, "values");
        for (i, operand) in operands.iter().enumerate() {
            let (a, b) = (of_a.get(operand).unwrap(), of_b.get(operand).unwrap());
            near(a, b, &format!("gradient of operand {i}"));
        }
    }

    #[test]
    fn they_are_those_of_the_processor() {
        let x = noise(&[3, 5, 8], 1, 3.0);
        alike("Softmax", &[&x], || x.apply_op1(Softmax), || softmax(&x));
        alike("Gelu", &[&x], || x.apply_op1(Gelu), || x.gelu_erf());
        let (scale, shift) = (noise(&[8], 2, 1.0), noise(&[8], 3, 1.0));
        for centred in [true, false] {
            let norm = || LayerNorm {
                epsilon: 1e-5,
                centred,
            };
            alike(
                "LayerNormalization",
                &[&x, &scale, &shift],
                || x.apply_op3(&scale, &shift, norm()),
                || layer_norm(&x, &scale, &shift, &norm()),
            );
        }
        let (x, w, b) = (
            noise(&[7, 8], 4, 1.0),
            noise(&[5, 8], 5, 1.0),
            noise(&[5], 6, 1.0),
        );
        alike(
            "Linear",
            &[&x, &w, &b],
            || Kernels::Own.linear(&x, &w, &b, None),
            || Kernels::Composed.linear(&x, &w, &b, None),
        );
    }

    #[test]
    fn a_total_takes_tensors_too() {
        let total = Total::default();
        let g = Tensor::new(&[[1.0f32, 2.0], [3.0, 4.0]], &Device::Cpu).unwrap();
        total.add_tensor(&g).unwrap();
        total.add_tensor(&g).unwrap();
        assert_eq!(total.take().unwrap(), [2.0, 4.0, 6.0, 8.0]);
        assert!(total.take().unwrap().is_empty());
    }

    #[test]
    fn quantisers_round_alike() {
        let segment = |step, from, to| Segment { step, from, to };
        let quantisers = [
            (
                Activation::Uniform {
                    bits: 4,
                    scale: 0.21,
                    zero_point: 6,
                },
                1,
            ),
            (crate::quant::interval(4, 0.07, 3), 2),
            (
                Activation::Codebook {
                    scale: 0.05,
                    segments: vec![segment(8, -24, -8), segment(2, -8, 4), segment(6, 4, 40)],
                },
                1,
            ),
            (
                Activation::Log {
                    bits: 4,
                    step: 0.5,
                    shift: 1,
                },
                0,
            ),
        ];
        for (quantiser, learn) in quantisers {
            let x = noise(&[6, 40], 8, 1.7);
            let step = super::super::step(&quantiser).unwrap_or(1.0);
            let first = crate::quant::first_level(&quantiser).map(f32::from);
            let numbers: Vec<f32> = [step]
                .into_iter()
                .chain(first.filter(|_| learn == 2))
                .collect();
            let numbers = Var::from_vec(numbers.clone(), numbers.len(), &Device::Cpu).unwrap();
            let operands: &[&Var] = if learn > 0 { &[&x, &numbers] } else { &[&x] };
            let own = || {
                let quantiser = quantiser.clone();
                x.apply_op2(&numbers, FakeQuantise { quantiser })
            };
            alike(&format!("{quantiser:?}"), operands, own, || {
                fake_quantise(&x, &numbers, &quantiser)
            });
        }
    }
}
