//! Logarithmic codes of a Softmax output: `k = round(-log2(x)/step)`, `x̂ = 2^(-k·step)`, 0 from `k = 2^bits + shift` on.
//! A step of ½ is log√2 (RepQ-ViT §3.4); searching it is AdaLog's adaptive base (arXiv 2407.12951).

use vitq_passes::plan::Activation;

use super::Points;

/// Steps that are tried: finer ones reach less far down.
const STEPS: [f32; 12] = [
    0.5, 0.4, 0.3, 0.25, 0.2, 0.16, 0.13, 0.1, 0.07, 0.055, 0.045, 0.035,
];

/// The code that means zero; the others are `shift .. 2^bits + shift`, at 8 bits as many of them as fit into uint8.
pub fn zero_code(bits: u32, shift: u8) -> u32 {
    ((1u32 << bits) + u32::from(shift)).min(255)
}

/// Code of `x`, `shift ..= zero`.
pub fn code(x: f32, step: f32, shift: u8, zero: u32) -> u32 {
    if x <= 0.0 {
        return zero;
    }
    let k = (-x.log2() / step).round_ties_even();
    (k.max(0.0) as u32).clamp(u32::from(shift), zero)
}

/// What a code stands for.
pub fn level(k: u32, zero: u32, step: f32) -> f32 {
    if k >= zero {
        0.0
    } else {
        (-step * k as f32).exp2()
    }
}

/// The codes whose step and δ leave the least weighted squared error.
pub fn log(points: &Points, bits: u32) -> Activation {
    STEPS
        .into_iter()
        .flat_map(|step| (0..8).map(move |shift| Activation::Log { bits, step, shift }))
        .map(|candidate| (points.error(&candidate), candidate))
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(
            Activation::Log {
                bits,
                step: STEPS[0],
                shift: 0,
            },
            |(_, best)| best,
        )
}
