//! The orthogonal matrices that streams are rotated by.

use faer::Mat;

/// A random orthogonal `Q [channels, channels]` with `Q·1 = 1`; rows `x` become `x·Q`.
///
/// `Q = B·C^T`: the columns of `B` and `C` are orthonormal bases with `1/√channels` first, from QR decompositions of matrices
/// that are drawn at random. The same on every machine for one `seed`, to rounding.
pub fn orthogonal(channels: usize, seed: u64) -> Mat<f64> {
    let mut random = SplitMix(seed ^ channels as u64);
    let [b, c] = [(); 2].map(|()| basis(channels, &mut random));
    &b * c.transpose()
}

/// A random orthonormal basis with `1/√channels` first.
fn basis(channels: usize, random: &mut SplitMix) -> Mat<f64> {
    let drawn = Mat::from_fn(channels, channels, |_, j| match j {
        0 => 1.0,
        _ => random.symmetric(),
    });
    let mut q = drawn.qr().compute_Q();
    // The decomposition is free to choose the other direction.
    if q[(0, 0)] < 0.0 {
        q.col_mut(0).iter_mut().for_each(|e| *e = -*e);
    }
    q
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

    fn largest(m: &Mat<f64>) -> f64 {
        let entries = (0..m.ncols()).flat_map(|j| m.col(j).iter());
        entries.fold(0.0, |most, e| e.abs().max(most))
    }

    #[test]
    fn it_is_orthogonal_and_keeps_means() {
        for channels in [1, 2, 3, 64, 192] {
            let q = orthogonal(channels, 0);
            let unit = &q * q.transpose() - Mat::<f64>::identity(channels, channels);
            assert!(largest(&unit) < 1e-13, "{channels}");
            let ones = Mat::<f64>::ones(channels, 1);
            assert!(largest(&(&q * &ones - &ones)) < 1e-12, "{channels}");
        }
    }

    #[test]
    fn it_spreads_every_channel_over_all() {
        // Normal entries of deviation 1/√192 reach about 4.5 of them among 192².
        let most = largest(&orthogonal(192, 0));
        assert!(most < 6.0 / 192f64.sqrt(), "{most}");
    }

    #[test]
    fn seeds_differ_and_repeat() {
        assert_eq!(orthogonal(16, 1), orthogonal(16, 1));
        assert_ne!(orthogonal(16, 1), orthogonal(16, 2));
    }
}
