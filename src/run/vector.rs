//! Loops for the machine's widest vectors.

use std::hint::black_box;

use pulp::{Arch, Simd, WithSimd};

/// Runs `work` compiled for the best vector extension that the machine has.
///
/// That is faster than the baseline of x86-64 by more than the width: tract's kernels leave the upper
/// halves of the AVX registers in use, and baseline (SSE) loops after them wait for each other's
/// results (6 × slower, measured on Zen 5). Everything inside should be `#[inline(always)]`.
#[inline(always)]
pub fn vectorised<R>(work: impl FnOnce() -> R) -> R {
    Arch::new().dispatch(work)
}

/// Whether none of them is NaN or infinite.
pub fn all_finite(values: &[f32]) -> bool {
    // The bits of NaN and infinity, without the sign, are larger than those of any number; a search that stops at the first
    // such value would not be vectorised.
    let largest = vectorised(|| {
        let magnitudes = values.iter().map(|x| x.to_bits() & !(1 << 31));
        magnitudes.fold(0, u32::max)
    });
    largest < f32::INFINITY.to_bits()
}

/// Ends the state described at [`vectorised`], so that the caller's loops run at their speed.
pub fn release_upper_halves() {
    Arch::new().dispatch(TouchWide);
}

/// The compiler clears the upper halves (`vzeroupper`) at the end of a function that used them.
struct TouchWide;

impl WithSimd for TouchWide {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        black_box(simd.splat_f32s(0.0));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_lane_sees_what_is_no_number() {
        let finite = [f32::MAX, f32::MIN, -0.0, f32::MIN_POSITIVE / 2.0];
        let values = |at: usize, it: f32| {
            let mut values = finite.repeat(9);
            values[at] = it;
            values
        };
        assert!(all_finite(&[]));
        assert!(all_finite(&finite.repeat(9)));
        for at in 0..36 {
            for it in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                assert!(!all_finite(&values(at, it)), "{it} at {at}");
            }
        }
    }
}
