//! Intervals that a quantiser focuses on (AIQViT's post-Softmax quantiser, arXiv 2502.04628): evenly spaced levels from `first·s` to
//! `(first + 2^bits - 1)·s`; values beyond are clamped.
//!
//! The lower end lies on the grid of the steps, so that one QuantizeLinear and one DequantizeLinear say it.

use vitq_passes::plan::{Activation, Segment};

/// Share of the interval before that each candidate of [`intervals`] reaches.
const SHORTER: f32 = 0.85;
/// How many lengths are tried.
const LENGTHS: i32 = 14;

/// The interval whose lowest level is `first` steps above zero, at most [`highest_first`].
pub fn interval(bits: u32, scale: f32, first: u8) -> Activation {
    if first == 0 {
        return Activation::Uniform {
            bits,
            scale,
            zero_point: 0,
        };
    }
    let from = i16::from(first);
    let to = from + (1 << bits) - 1;
    Activation::Codebook {
        scale,
        segments: vec![Segment { step: 1, from, to }],
    }
}

/// The lowest level of such a quantiser; `None` of any other.
pub fn first_level(quantiser: &Activation) -> Option<u8> {
    match quantiser {
        Activation::Uniform { zero_point: 0, .. } => Some(0),
        Activation::Codebook { segments, .. } => match segments[..] {
            [Segment { step: 1, from, .. }] => u8::try_from(from).ok(),
            _ => None,
        },
        _ => None,
    }
}

/// The highest lowest level whose codes fit into uint8.
pub fn highest_first(bits: u32) -> u8 {
    u8::MAX - (u8::MAX >> 8u32.saturating_sub(bits))
}

/// Intervals to choose from for values between 0 and `most`.
pub fn intervals(most: f32, bits: u32) -> impl Iterator<Item = Activation> {
    let most = most.max(f32::MIN_POSITIVE);
    (0..=highest_first(bits).min(1)).flat_map(move |first| {
        let levels = f32::from(u8::MAX >> 8u32.saturating_sub(bits)) + f32::from(first);
        (0..LENGTHS).map(move |i| interval(bits, most * SHORTER.powi(i) / levels, first))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant;

    #[test]
    fn values_beyond_an_interval_are_clamped_to_its_ends() {
        let mut values = [0.0, 0.09, 0.24, 0.31, 1.0];
        let focused = interval(2, 0.1, 1);
        quant::apply(&focused, &mut values);
        for (value, level) in values.iter().zip([0.1, 0.1, 0.2, 0.3, 0.4]) {
            assert!((value - level).abs() < 1e-6, "{values:?}");
        }
        assert_eq!((first_level(&focused), quant::bits(&focused)), (Some(1), 2));
    }

    #[test]
    fn every_interval_has_all_its_levels_and_fits_into_uint8() {
        for bits in 2..=8 {
            for candidate in intervals(0.7, bits) {
                assert_eq!(quant::bits(&candidate), bits, "{candidate:?}");
                assert!(first_level(&candidate) <= Some(highest_first(bits)));
            }
        }
        assert_eq!((highest_first(8), highest_first(4)), (0, 240));
    }
}
