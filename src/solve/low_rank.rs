//! What rounding left over, of low rank (AIQViT, arXiv 2502.04628, in closed form): `B·A` next to the rounded weight.
//!
//! `min ‖(E - B·A)·X̂ᵀ‖²` with `E = W - Ŵ`, `H = X̂ᵀX̂ = L·Lᵀ`: `E·L = U·Σ·Vᵀ`, `B = U_r·Σ_r`, `A = V_rᵀ·L⁻¹`. Rank `i` takes away
//! the energy `σ_i²` at the output (Eckart and Young).

use faer::linalg::solvers::Solve;
use faer::{Mat, Side};
use vitq_passes::plan::LowRank;

/// All ranks of an error, those that take the most away first.
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
        let svd = (&e * factor.L()).thin_svd().ok()?;
        let sigma = svd.S().column_vector();
        let up = Mat::from_fn(out, sigma.nrows(), |o, r| svd.U()[(o, r)] * sigma[r]);
        // A·L = Vᵀ, so A·H = Vᵀ·Lᵀ: solved with the factor that is there.
        let down = factor.solve(factor.L() * svd.V()).transpose().to_owned();
        let energy: Vec<f64> = sigma.iter().map(|s| s * s).collect();
        let sound = energy.iter().all(|it| it.is_finite());
        sound.then_some(Spectrum { energy, up, down })
    }

    /// `B` and `A` of at most `rank`; `None` of none.
    pub fn factors(&self, rank: usize) -> Option<LowRank> {
        let rank = rank.min(self.energy.len());
        let (out, k) = (self.up.nrows(), self.down.ncols());
        let at = |m: &Mat<f64>, i: usize, j: usize| m[(i, j)] as f32;
        (rank > 0).then(|| LowRank {
            rank,
            down: (0..rank * k)
                .map(|i| at(&self.down, i / k, i % k))
                .collect(),
            up: (0..out * rank)
                .map(|i| at(&self.up, i / rank, i % rank))
                .collect(),
        })
    }
}
