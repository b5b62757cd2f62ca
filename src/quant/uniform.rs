//! Uniform activation quantisers: percentile candidates (RepQ-ViT), min/max among them, then a search of the clipping.

use vitq_passes::plan::Activation;
use vitq_passes::quantise::affine;

use super::Points;

/// Quantiser of `bits` whose codes span `[lo, hi]`, zero among them.
pub fn from_range(lo: f32, hi: f32, bits: u32) -> Activation {
    let (scale, zero_point) = affine(lo, hi, ((1u32 << bits) - 1) as f32);
    Activation::Uniform {
        bits,
        scale,
        zero_point: zero_point as u8,
    }
}

/// Quantiser of `bits` whose codes reach `limit` on both sides of zero.
pub fn around_zero(limit: f32, bits: u32) -> Activation {
    let codes = ((1u32 << (bits - 1)) - 1) as f32;
    // A constant zero tensor still needs a step; any will do.
    let scale = if limit > f32::MIN_POSITIVE * codes {
        limit / codes
    } else {
        1.0
    };
    Activation::Uniform {
        bits,
        scale,
        zero_point: 1 << (bits - 1),
    }
}

/// As [`uniform`], of those whose codes lie around zero: the best candidate range, then its clipping searched.
pub fn symmetric(points: &Points, bits: u32) -> Activation {
    let error = |limit: f32| points.error(&around_zero(limit, bits));
    let limits = points.ranges().into_iter().map(|(lo, hi)| hi.max(-lo));
    let mut best = (0.0, f64::INFINITY);
    for limit in limits {
        let e = error(limit);
        if e < best.1 {
            best = (limit, e);
        }
    }
    for step in [0.85, 0.95] {
        loop {
            let limit = best.0 * step;
            let e = error(limit);
            // Not `e >= best`: an error that is no number has to end the search too.
            if e < best.1 {
                best = (limit, e);
            } else {
                break;
            }
        }
    }
    around_zero(best.0, bits)
}

/// The quantiser of `bits` with the least weighted squared error: the best candidate range, then each end searched apart.
pub fn uniform(points: &Points, bits: u32) -> Activation {
    let error = |&(lo, hi): &(f32, f32)| points.error(&from_range(lo, hi, bits));
    let mut best = ((0.0, 0.0), f64::INFINITY);
    for range in points.ranges() {
        let e = error(&range);
        if e < best.1 {
            best = (range, e);
        }
    }
    for step in [0.85, 0.95] {
        for end in [0, 1] {
            loop {
                let mut range = best.0;
                *(if end == 0 { &mut range.0 } else { &mut range.1 }) *= step;
                let e = error(&range);
                // Not `e >= best`: an error that is no number has to end the search too.
                if e < best.1 {
                    best = (range, e);
                } else {
                    break;
                }
            }
        }
    }
    from_range(best.0.0, best.0.1, bits)
}
