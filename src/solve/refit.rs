//! Ridge re-fit (ERQ, arXiv 2407.06794; GPTAQ, arXiv 2504.02692): the weight that gives the float output from the quantised input.
//!
//! `W* = argmin ‖W*X̂ - WX‖² + λ‖W* - W‖² = W + W·(C - H)·(H + λI)⁻¹`, with `H = X̂X̂ᵀ`, `C = XX̂ᵀ`.

use crate::linalg::{gemm, solve_right};

/// The re-fitted weight `[out, k]` of `w`; `h = X̂X̂ᵀ`, `c = XX̂ᵀ` (both `[k, k]`), `ridge` in units of the mean diagonal of `h`.
pub fn refit(w: &[f32], k: usize, h: &[f32], c: &[f32], ridge: f32) -> Option<Vec<f32>> {
    let mean = (0..k).map(|i| h[i * k + i]).sum::<f32>() / k as f32;
    if mean <= 0.0 {
        return None;
    }
    let difference: Vec<f32> = c.iter().zip(h).map(|(c, h)| c - h).collect();
    let mut damped = h.to_vec();
    for i in 0..k {
        damped[i * k + i] += ridge * mean;
    }
    let out = w.len() / k;
    let step = solve_right(&damped, &gemm(w, &difference, out, k, k), out, k)?;
    Some(w.iter().zip(step).map(|(w, s)| w + s).collect())
}
