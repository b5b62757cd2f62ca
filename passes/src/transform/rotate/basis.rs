//! The orthogonal matrices that streams are rotated by.

use ndarray::{Array1, Array2};

/// A random orthogonal `Q [channels, channels]` with `Q·1 = 1`: a Linear's share of it is `x → x·Q`, for rows `x`.
///
/// `Q = H·B`: the rows of `B` are an orthonormal basis with `1/√channels` first, the others drawn at random; the Householder
/// reflection `H` turns the first unit vector back to `1/√channels`. The same on every machine for one `seed`.
pub fn orthogonal(channels: usize, seed: u64) -> Array2<f64> {
    let mut random = SplitMix(seed ^ channels as u64);
    let mut basis = Array2::from_shape_fn((channels, channels), |_| random.symmetric());
    basis.row_mut(0).fill(1.0);
    for i in 0..channels {
        // Twice is enough for orthogonality to the last digits.
        for _ in 0..2 {
            let (before, mut row) = basis.view_mut().split_at(ndarray::Axis(0), i);
            let mut row = row.row_mut(0);
            let shares = before.dot(&row);
            row.scaled_add(-1.0, &shares.dot(&before));
            let length = row.dot(&row).sqrt();
            row /= length;
        }
    }
    // H = I - 2·v·vᵀ with v along e₀ - 1/√channels.
    let mut v = Array1::from_elem(channels, -1.0 / (channels as f64).sqrt());
    v[0] += 1.0;
    let energy = v.dot(&v);
    if energy > 0.0 {
        let shares = v.dot(&basis) * (2.0 / energy);
        for (mut row, v) in basis.rows_mut().into_iter().zip(&v) {
            row.scaled_add(-v, &shares);
        }
    }
    basis
}

/// SplitMix64 (Steele, Lea, Flood 2014).
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `-1..1`.
    fn symmetric(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_orthogonal_and_keeps_means() {
        for channels in [1, 2, 3, 64, 192] {
            let q = orthogonal(channels, 0);
            let unit = q.dot(&q.t()) - Array2::<f64>::eye(channels);
            assert!(unit.iter().all(|e| e.abs() < 1e-13), "{channels}");
            let ones = q.dot(&Array1::ones(channels));
            assert!(ones.iter().all(|e| (e - 1.0).abs() < 1e-12), "{channels}");
        }
    }

    #[test]
    fn it_spreads_every_channel_over_all() {
        let q = orthogonal(192, 0);
        // Normal entries of deviation 1/√192 reach about 4.5 of them among 192².
        let largest = q.iter().fold(0.0f64, |m, e| m.max(e.abs()));
        assert!(largest < 6.0 / 192f64.sqrt(), "{largest}");
    }

    #[test]
    fn seeds_differ_and_repeat() {
        assert_eq!(orthogonal(16, 1), orthogonal(16, 1));
        assert_ne!(orthogonal(16, 1), orthogonal(16, 2));
    }
}
