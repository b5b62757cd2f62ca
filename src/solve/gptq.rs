//! GPTQ (arXiv 2210.17323): rounds the input channels one after the other and lets the rest absorb each error.
//!
//! `e = (w_i - Q(w_i)) / U_ii`, `w_j -= e·U_ij` for `j > i`, with `H⁻¹ = UᵀU`, `H = XᵀX`, damped by the caller.
//! Channels come in blocks: within one the errors are taken off at once, behind it as one matrix product a block.

use std::ops::Range;

use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;
use vitq_passes::plan::Weight;

use super::Grid;
use crate::linalg::inverse_factor;
use crate::run::vector::vectorised;

/// Output rows that are solved together.
const LANES: usize = 64;
/// Channels whose errors are collected before the ones behind them absorb all of it in one product.
const BLOCK: usize = 64;

/// Rounds `w [out, k]` onto `grid` for the least `‖(Ŵ - W)X‖` under `h [k, k]`, channels of large energy first.
/// `None` if `h` is singular.
pub fn gptq(w: &[f32], k: usize, h: &[f32], grid: &Grid) -> Option<Weight> {
    let order = activation_order(h, k);
    let u = inverse_factor(&permuted(h, k, &order), k)?;
    let mut codes = vec![0i8; w.len()];
    codes
        .par_chunks_mut(LANES * k)
        .zip(w.par_chunks(LANES * k))
        .enumerate()
        .for_each(|(chunk, (codes, w))| {
            let mut panel: Vec<f32> = w
                .chunks_exact(k)
                .flat_map(|row| order.iter().map(|&channel| row[channel]))
                .collect();
            for first in (0..k).step_by(BLOCK) {
                let block = first..(first + BLOCK).min(k);
                let errors = solve_block(&panel, &u, k, block.clone(), |i, lane, value| {
                    let row = chunk * LANES + lane;
                    let code = grid.code(row, value);
                    codes[lane * k + order[i]] = code;
                    f32::from(code) * grid.scale[row]
                });
                absorb(&mut panel, &errors, &u, k, block);
            }
        });
    Some(grid.weight(codes))
}

/// `e / U_ii` of a block's channels for all rows of the panel `[rows, k]`; `round(channel, row, value)` decides.
fn solve_block(
    panel: &[f32],
    u: &[f32],
    k: usize,
    block: Range<usize>,
    mut round: impl FnMut(usize, usize, f32) -> f32,
) -> Vec<[f32; LANES]> {
    // Transposed, so that the update of all rows is one vector operation a channel.
    let mut values = vec![[0.0f32; LANES]; block.len()];
    for (lane, row) in panel.chunks_exact(k).enumerate() {
        for (values, &value) in values.iter_mut().zip(&row[block.clone()]) {
            values[lane] = value;
        }
    }
    let rows = panel.len() / k;
    for (at, i) in block.clone().enumerate() {
        let (done, later) = values.split_at_mut(at + 1);
        let errors = &mut done[at];
        let diagonal = u[i * k + i];
        for (lane, value) in errors[..rows].iter_mut().enumerate() {
            *value = (*value - round(i, lane, *value)) / diagonal;
        }
        vectorised(|| {
            for (values, &factor) in later.iter_mut().zip(&u[i * k + i + 1..]) {
                values
                    .iter_mut()
                    .zip(&*errors)
                    .for_each(|(v, e)| *v -= e * factor);
            }
        });
    }
    values
}

/// Takes a block's errors off all channels behind it: `panel -= errorsᵀ·U`.
fn absorb(panel: &mut [f32], errors: &[[f32; LANES]], u: &[f32], k: usize, block: Range<usize>) {
    let rest = k - block.end;
    if rest == 0 {
        return;
    }
    let rows = panel.len() / k;
    let u = &u[block.start * k + block.end..];
    // Columns of the transpose: faer 0.24's row-major view with a stride, made to write to, is none.
    matmul(
        MatMut::from_column_major_slice_with_stride_mut(&mut panel[block.end..], rest, rows, k)
            .transpose_mut(),
        Accum::Add,
        MatRef::from_row_major_slice_with_stride(errors.as_flattened(), block.len(), rows, LANES)
            .transpose(),
        MatRef::from_row_major_slice_with_stride(u, block.len(), rest, k),
        -1.0,
        Par::Seq,
    );
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
