//! GPTQ (arXiv 2210.17323): rounds the input channels one after the other and lets the rest absorb each error.
//!
//! `e = (w_i - Q(w_i)) / U_ii`, `w_j -= e·U_ij` for `j > i`, with `H⁻¹ = UᵀU`, `H = XᵀX`, damped by the caller.

use rayon::prelude::*;
use vitq_passes::plan::Weight;

use super::Grid;
use crate::linalg::inverse_factor;

/// Output rows that share one sweep over `U`: one cache line of f32.
const LANES: usize = 16;

/// Rounds `w [out, k]` onto `grid` for the least `‖(Ŵ - W)X‖` under `h [k, k]`, channels of large energy first.
/// `None` if `h` is singular.
pub fn gptq(w: &[f32], k: usize, h: &[f32], grid: &Grid) -> Option<Weight> {
    let order = activation_order(h, k);
    let u = inverse_factor(&permuted(h, k, &order), k)?;
    let out = w.len() / k;
    let mut codes = vec![0i8; w.len()];
    codes
        .par_chunks_mut(LANES * k)
        .enumerate()
        .for_each(|(chunk, codes)| {
            let first = chunk * LANES;
            let rows = LANES.min(out - first);
            // Transposed to [k][LANES] so that the update of all rows is one vector operation a channel.
            let mut panel = vec![[0.0f32; LANES]; k];
            for r in 0..rows {
                for (p, &channel) in panel.iter_mut().zip(&order) {
                    p[r] = w[(first + r) * k + channel];
                }
            }
            for i in 0..k {
                let diagonal = u[i * k + i];
                let mut error = [0.0f32; LANES];
                for r in 0..rows {
                    let value = panel[i][r];
                    let code = grid.code(first + r, value);
                    codes[r * k + order[i]] = code;
                    error[r] = (value - f32::from(code) * grid.scale[first + r]) / diagonal;
                }
                let row = &u[i * k + i + 1..(i + 1) * k];
                for (p, &factor) in panel[i + 1..].iter_mut().zip(row) {
                    for r in 0..LANES {
                        p[r] -= error[r] * factor;
                    }
                }
            }
        });
    Some(grid.weight(codes))
}

fn activation_order(h: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&a, &b| h[b * k + b].total_cmp(&h[a * k + a]).then(a.cmp(&b)));
    order
}

/// `H` in that order.
fn permuted(h: &[f32], k: usize, order: &[usize]) -> Vec<f32> {
    let mut out = vec![0.0; k * k];
    for (i, &a) in order.iter().enumerate() {
        for (j, &b) in order.iter().enumerate() {
            out[i * k + j] = h[a * k + b];
        }
    }
    out
}
