//! Coordinate descent behind GPTQ: each weight in turn moves to the level that is best given all others, each row's scale to
//! the one that is best given its codes.
//!
//! `E = (s·q - w)·H·(s·q - w)ᵀ`: code `i` becomes `Q(q_i - (s·qH - wH)_i / (s·H_ii))`, the scale `s = (qH·w)/(qH·q)`.
//! GPTQ decides each channel once, before it knows how the later ones are rounded; this asks again. `E` never rises.
//!
//! In blocks, with `g = (ŵ - w)·H`: `q_i` becomes `Q(q_i - g_i/(s_b·H_ii))`, and with `q_b`, the codes of block `b` among zeros, its
//! scale `s_b - (q_b·g)/(q_b·H·q_bᵀ)`.

use rayon::prelude::*;
use vitq_passes::plan::Weight;

use super::Grid;
use crate::linalg::{dot, gemm};
use crate::run::vector::vectorised;

/// Rounds over all channels; later ones change next to nothing.
const SWEEPS: usize = 3;

/// Improves the codes and scales of `weight` towards `w [out, k]` under `h [k, k]`, positive on its diagonal.
pub fn descend(mut weight: Weight, w: &[f32], k: usize, h: &[f32], grid: &Grid) -> Weight {
    if let Some(block) = weight.block {
        return descend_blocks(weight, block, w, (k, h), grid);
    }
    let q: Vec<f32> = weight.codes.iter().map(|&c| f32::from(c)).collect();
    let mut qh = gemm(&q, h, weight.out, k, k);
    let wh = gemm(w, h, weight.out, k, k);
    weight
        .codes
        .par_chunks_exact_mut(k)
        .zip(&mut weight.scale)
        .zip(qh.par_chunks_exact_mut(k))
        .zip(wh.par_chunks_exact(k))
        .zip(w.par_chunks_exact(k))
        .for_each(|((((codes, scale), qh), wh), w)| {
            for _ in 0..SWEEPS {
                *scale = rescaled(*scale, codes, qh, w);
                if !sweep(*scale, codes, qh, wh, h, grid) {
                    break;
                }
            }
            *scale = rescaled(*scale, codes, qh, w);
        });
    weight
}

/// The best scale for a row's codes.
fn rescaled(scale: f32, codes: &[i8], qh: &[f32], w: &[f32]) -> f32 {
    let q: Vec<f32> = codes.iter().map(|&c| f32::from(c)).collect();
    let best = (dot(qh, w) / dot(qh, &q)) as f32;
    near_or_same(best, scale)
}

/// A row that lies across its weight (or is all zero) keeps its scale.
fn near_or_same(best: f32, scale: f32) -> f32 {
    if best > 0.5 * scale && best < 2.0 * scale {
        best
    } else {
        scale
    }
}

/// Each code of a row once; whether one changed.
fn sweep(scale: f32, codes: &mut [i8], qh: &mut [f32], wh: &[f32], h: &[f32], grid: &Grid) -> bool {
    let k = codes.len();
    let mut changed = false;
    for i in 0..k {
        let now = f32::from(codes[i]);
        let code = grid.nearest(now - (qh[i] - wh[i] / scale) / h[i * k + i]);
        if code == codes[i] {
            continue;
        }
        let step = f32::from(code) - now;
        codes[i] = code;
        changed = true;
        add(qh, &h[i * k..(i + 1) * k], step);
    }
    changed
}

/// The same with a scale for each `block` inputs of a row.
fn descend_blocks(
    mut weight: Weight,
    block: usize,
    w: &[f32],
    (k, h): (usize, &[f32]),
    grid: &Grid,
) -> Weight {
    let values = weight.dequantise();
    let error: Vec<f32> = values.iter().zip(w).map(|(v, w)| v - w).collect();
    let mut pulls = gemm(&error, h, weight.out, k, k);
    weight
        .codes
        .par_chunks_exact_mut(k)
        .zip(weight.scale.par_chunks_exact_mut(k.div_ceil(block)))
        .zip(pulls.par_chunks_exact_mut(k))
        .for_each(|((codes, scales), pull)| {
            let mut row = BlockedRow {
                codes,
                scales,
                pull,
                block,
                h,
            };
            for _ in 0..SWEEPS {
                row.rescale();
                if !row.sweep(grid) {
                    break;
                }
            }
            row.rescale();
        });
    weight
}

/// A row with a scale a block.
struct BlockedRow<'a> {
    codes: &'a mut [i8],
    scales: &'a mut [f32],
    /// `(ŵ - w)·H`
    pull: &'a mut [f32],
    block: usize,
    h: &'a [f32],
}

impl BlockedRow<'_> {
    /// Each block's scale once.
    fn rescale(&mut self) {
        let k = self.codes.len();
        let mut qh = vec![0.0; k];
        for (b, scale) in self.scales.iter_mut().enumerate() {
            let first = b * self.block;
            let inputs = first..(first + self.block).min(k);
            let q: Vec<f32> = self.codes[inputs.clone()]
                .iter()
                .map(|&c| f32::from(c))
                .collect();
            qh.fill(0.0);
            for (i, &q) in inputs.clone().zip(&q).filter(|(_, q)| **q != 0.0) {
                add(&mut qh, &self.h[i * k..(i + 1) * k], q);
            }
            let step = dot(&q, &self.pull[inputs.clone()]) / dot(&q, &qh[inputs]);
            let best = near_or_same(*scale - step as f32, *scale);
            add(self.pull, &qh, best - *scale);
            *scale = best;
        }
    }

    /// Each code once; whether one changed.
    fn sweep(&mut self, grid: &Grid) -> bool {
        let k = self.codes.len();
        let mut changed = false;
        for i in 0..k {
            let scale = self.scales[i / self.block];
            let now = f32::from(self.codes[i]);
            let code = grid.nearest(now - self.pull[i] / (scale * self.h[i * k + i]));
            if code != self.codes[i] {
                let step = scale * (f32::from(code) - now);
                self.codes[i] = code;
                changed = true;
                add(self.pull, &self.h[i * k..(i + 1) * k], step);
            }
        }
        changed
    }
}

/// `to += row·factor`; H is symmetric: its rows serve as columns.
fn add(to: &mut [f32], row: &[f32], factor: f32) {
    vectorised(|| to.iter_mut().zip(row).for_each(|(to, h)| *to += h * factor));
}
