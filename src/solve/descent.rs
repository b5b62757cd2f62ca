//! Coordinate descent behind GPTQ: each weight in turn moves to the level that is best given all others, each row's scale to
//! the one that is best given its codes.
//!
//! `E = (s·q - w)·H·(s·q - w)ᵀ`: code `i` becomes `Q(q_i - (s·qH - wH)_i / (s·H_ii))`, the scale `s = (qH·w)/(qH·q)`.
//! GPTQ decides each channel once, before it knows how the later ones are rounded; this asks again. `E` never rises.

use rayon::prelude::*;
use vitq_passes::plan::Weight;

use super::Grid;
use crate::linalg::{dot, gemm};
use crate::run::vector::vectorised;

/// Rounds over all channels; later ones change next to nothing.
const SWEEPS: usize = 3;

/// Improves the codes and scales of `weight` towards `w [out, k]` under `h [k, k]`, positive on its diagonal.
pub fn descend(mut weight: Weight, w: &[f32], k: usize, h: &[f32], grid: &Grid) -> Weight {
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
    // A row that lies across its weight (or is all zero) keeps its scale.
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
        // H is symmetric: its rows serve as columns.
        let row = &h[i * k..(i + 1) * k];
        vectorised(|| qh.iter_mut().zip(row).for_each(|(q, h)| *q += h * step));
    }
    changed
}
