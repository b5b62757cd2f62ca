//! log√2 codes of a Softmax output (RepQ-ViT §3.4): `k = round(-2·log2(x/δ))`, `x̂ = δ·2^(-k/2)`, 0 from `k = 2^bits` on,
//! with `δ = 2^(-shift/2)`.

use vitq_passes::plan::Activation;

use super::Points;

/// Code of `x` counted from one: `shift ..= 2^bits + shift`, the last one meaning zero.
pub fn code(x: f32, bits: u32, shift: u8) -> u32 {
    let zero = (1u32 << bits) + u32::from(shift);
    if x <= 0.0 {
        return zero;
    }
    let k = (-2.0 * x.log2()).round_ties_even();
    (k.max(0.0) as u32).clamp(u32::from(shift), zero)
}

/// What a code stands for.
pub fn level(k: u32, bits: u32, shift: u8) -> f32 {
    if k >= (1u32 << bits) + u32::from(shift) {
        0.0
    } else {
        (-0.5 * k as f32).exp2()
    }
}

/// The codes with the δ of least weighted squared error.
pub fn log_sqrt2(points: &Points, bits: u32) -> Activation {
    (0..8)
        .map(|shift| Activation::LogSqrt2 { bits, shift })
        .min_by(|a, b| points.error(a).total_cmp(&points.error(b)))
        .unwrap_or(Activation::LogSqrt2 { bits, shift: 0 })
}
