//! The best approximations of a matrix by their rank: the branch `B·A` next to a rounded weight (AIQViT, arXiv 2502.04628, in closed
//! form).
//!
//! `min tr((E - B·A)·H·(E - B·A)ᵀ)` with `H = L·Lᵀ`: `E·L = U·Σ·Vᵀ`, `B = U_r·Σ_r`, `A = V_rᵀ·L⁻¹`. Rank `i` takes away the energy `σ_i²`
//! (Eckart and Young). With `E` what rounding left over and `H` the input's second moments that is its energy at the output, with `E` the
//! weight and `H` the covariance of the noise in its input what a branch spares the output of it.

use faer::linalg::solvers::Solve;
use faer::{Mat, MatRef, Side};
use vitq_passes::plan::LowRank;

/// All ranks of a matrix, those that take the most away first.
pub struct Spectrum {
    /// `σ²`, the energy at the output that each rank takes away, falling.
    pub energy: Vec<f64>,
    /// `U·Σ`: `[out, ranks]`
    up: Mat<f64>,
    /// `Vᵀ·L⁻¹`: `[ranks, in]`
    down: Mat<f64>,
}

impl Spectrum {
    /// Of the error `e [out, k]` under `h [k, k]`. `None` if `h` is not positive definite, or something is no number.
    pub fn new(e: &[f32], k: usize, h: &[f32]) -> Option<Spectrum> {
        let out = e.len() / k;
        let h = Mat::<f64>::from_fn(k, k, |i, j| f64::from(h[i * k + j]));
        let e = Mat::<f64>::from_fn(out, k, |o, i| f64::from(e[o * k + i]));
        let factor = h.llt(Side::Lower).ok()?;
        // A·L = Vᵀ, so A·H = Vᵀ·Lᵀ: solved with the factor that is there.
        let down = |v: MatRef<'_, f64>| factor.solve(factor.L() * v).transpose().to_owned();
        Self::of(&e * factor.L(), down)
    }

    /// Of `w [out, k]` under `diag(noise)`, `[k]`. `None` if something is no number.
    pub fn weighted(w: &[f32], noise: &[f32]) -> Option<Spectrum> {
        let k = noise.len();
        // A dead channel has no noise, and any approximation will do there.
        let least = 1e-6 * noise.iter().copied().fold(f32::MIN_POSITIVE, f32::max);
        let root: Vec<f64> = noise
            .iter()
            .map(|n| f64::from(n.max(least)).sqrt())
            .collect();
        let scaled = Mat::<f64>::from_fn(w.len() / k, k, |o, i| f64::from(w[o * k + i]) * root[i]);
        Self::of(scaled, |v| {
            Mat::from_fn(v.ncols(), k, |r, i| v[(i, r)] / root[i])
        })
    }

    /// Of `E·L`; `down` makes `Vᵀ·L⁻¹` of `V`.
    fn of(scaled: Mat<f64>, down: impl Fn(MatRef<'_, f64>) -> Mat<f64>) -> Option<Spectrum> {
        let svd = scaled.thin_svd().ok()?;
        let sigma = svd.S().column_vector();
        let up = Mat::from_fn(scaled.nrows(), sigma.nrows(), |o, r| {
            svd.U()[(o, r)] * sigma[r]
        });
        let energy: Vec<f64> = sigma.iter().map(|s| s * s).collect();
        let sound = energy.iter().all(|it| it.is_finite());
        sound.then(|| Spectrum {
            energy,
            up,
            down: down(svd.V()),
        })
    }

    /// `B` and `A` of at most `rank`; `None` of none.
    pub fn factors(&self, rank: usize) -> Option<LowRank> {
        let rank = rank.min(self.energy.len());
        let (out, k) = (self.up.nrows(), self.down.ncols());
        // Both alike in size, rank by rank: learning takes steps relative to it.
        let balance: Vec<f64> = (0..rank)
            .map(|r| (self.up.col(r).norm_l2() / self.down.row(r).norm_l2()).sqrt())
            .map(|it| if it.is_normal() { it } else { 1.0 })
            .collect();
        let down = |r: usize, i: usize| (self.down[(r, i)] * balance[r]) as f32;
        let up = |o: usize, r: usize| (self.up[(o, r)] / balance[r]) as f32;
        (rank > 0).then(|| LowRank {
            rank,
            bits: 32,
            down: (0..rank * k).map(|i| down(i / k, i % k)).collect(),
            up: (0..out * rank).map(|i| up(i / rank, i % rank)).collect(),
        })
    }
}
