//! GPTQ (arXiv 2210.17323): rounds the input channels one after the other and lets the rest absorb each error.
//!
//! With `H = XᵀX = LLᵀ` (damped by the caller) and `d = w - ŵ`, the error is `‖dX‖² = ‖dL‖²`, and `(dL)_j = d_j·L_jj + Σ_{i>j} d_i·L_ij`:
//! from the last channel to the first, `ŵ_j = Q(w_j + Σ_{i>j} d_i·L_ij / L_jj)` makes each term the least. That is the paper's
//! update (`w_j -= e·U_ij`, `H⁻¹ = UᵀU`) without the inverse; arXiv 2507.18553 shows that they are one.
//! Channels come in blocks: the terms of all earlier blocks are one matrix product.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use vitq_passes::plan::Weight;

use super::Grid;
use crate::linalg::cholesky;
use crate::run::vector::vectorised;

/// Output rows that are solved together.
const LANES: usize = 96;
/// Channels that share one product.
const BLOCK: usize = 64;

/// A value of each row.
type Lanes = [f32; LANES];

/// Rounds `w [out, k]` onto `grid` for the least `‖(Ŵ - W)X‖` under `h [k, k]`, channels of large energy first.
/// `None` if `h` is not positive definite.
pub fn gptq(w: &[f32], k: usize, h: &[f32], grid: &Grid) -> Option<Weight> {
    let order = rising_energy(h, k);
    let l = cholesky(k, |i, j| h[order[i] * k + order[j]])?;
    let mut codes = vec![0i8; w.len()];
    codes
        .par_chunks_mut(LANES * k)
        .zip(w.par_chunks(LANES * k))
        .enumerate()
        .for_each(|(chunk, (codes, w))| {
            let rows = w.len() / k;
            let mut differences = vec![[0.0; LANES]; k];
            for first in (0..k).step_by(BLOCK).rev() {
                let block = first..(first + BLOCK).min(k);
                let pulls = pulls_of_later(&differences, l.as_ref(), &block);
                let block_differences = &mut differences[block.clone()];
                solve_block(
                    block_differences,
                    pulls,
                    l.as_ref(),
                    block,
                    |j, lane, pull| {
                        let (row, channel) = (chunk * LANES + lane, order[j]);
                        if lane >= rows {
                            return 0.0;
                        }
                        let value = w[lane * k + channel];
                        let code = grid.code(row, channel, value + pull);
                        codes[lane * k + channel] = code;
                        value - f32::from(code) * grid.scale(row, channel)
                    },
                );
            }
        });
    Some(grid.weight(codes))
}

/// `Σ_i d_i·L_ij` of each channel `j` of a block over the channels `i` behind the block, which are rounded.
fn pulls_of_later(differences: &[Lanes], l: MatRef<'_, f32>, block: &Range<usize>) -> Vec<Lanes> {
    let later = &differences[block.end..];
    let mut pulls = vec![[0.0; LANES]; block.len()];
    matmul(
        MatMut::from_column_major_slice_mut(pulls.as_flattened_mut(), LANES, block.len()),
        Accum::Replace,
        MatRef::from_column_major_slice(later.as_flattened(), LANES, later.len()),
        l.get(block.end.., block.clone()),
        1.0,
        Par::Seq,
    );
    pulls
}

/// Rounds a block's channels, the last one first; `round(channel, lane, pull)` gives the difference that is left.
fn solve_block(
    differences: &mut [Lanes],
    mut pulls: Vec<Lanes>,
    l: MatRef<'_, f32>,
    block: Range<usize>,
    mut round: impl FnMut(usize, usize, f32) -> f32,
) {
    for (at, j) in block.clone().enumerate().rev() {
        let diagonal = l[(j, j)];
        let difference = &mut differences[at];
        for (lane, (difference, pull)) in difference.iter_mut().zip(&pulls[at]).enumerate() {
            *difference = round(j, lane, pull / diagonal);
        }
        vectorised(|| {
            for (earlier, pulls) in block.clone().zip(&mut pulls[..at]) {
                let factor = l[(j, earlier)];
                pulls
                    .iter_mut()
                    .zip(&*difference)
                    .for_each(|(pull, difference)| *pull += difference * factor);
            }
        });
    }
}

/// Channels, those of the least energy first.
fn rising_energy(h: &[f32], k: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..k).collect();
    order.sort_by(|&a, &b| h[a * k + a].total_cmp(&h[b * k + b]).then(b.cmp(&a)));
    order
}
