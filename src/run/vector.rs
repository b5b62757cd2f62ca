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
