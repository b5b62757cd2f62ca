//! Grids that weights are rounded to: uniform symmetric per output channel or per block of its inputs, or a table of levels on the int8
//! grid.

use rayon::prelude::*;
use vitq_passes::plan::Weight;

use crate::quant::{Bin, best_levels, round};
use crate::run::vector::vectorised;

/// A grid for a weight `[out, in]`.
#[derive(Clone, Debug)]
pub struct Grid {
    /// 2..=8
    pub bits: u32,
    /// Rows.
    pub out: usize,
    /// Inputs that share a scale; all of a row where absent.
    pub block: Option<usize>,
    /// `[out]`, or `[out, ceil(in / block)]`; > 0
    pub scale: Vec<f32>,
    /// Levels on the int8 grid, ascending; uniform if absent.
    pub table: Option<Vec<i8>>,
}

impl Grid {
    /// Largest code of the uniform grid: symmetric, so that zero is exact and no code is lost to the sign.
    fn limit(bits: u32) -> f32 {
        ((1i32 << (bits - 1)) - 1) as f32
    }

    /// Symmetric uniform grid, each row's scale searched for the least `Σ cost_i·(ŵ - w)²`.
    pub fn uniform(w: &[f32], k: usize, bits: u32, cost: &[f32]) -> Grid {
        let rows = w.par_chunks_exact(k);
        Grid {
            bits,
            out: w.len() / k,
            block: None,
            scale: rows.map(|row| even_scale(row, bits, cost, None)).collect(),
            table: None,
        }
    }

    /// The same with a scale for each `block` inputs of a row, never worse by that error than one for all of them.
    pub fn blocks(w: &[f32], k: usize, bits: u32, cost: &[f32], block: usize) -> Grid {
        let of_row = |row: &[f32]| {
            // Eight bits look for none.
            let whole = (bits < 8).then(|| even_scale(row, bits, cost, None));
            let blocks = row.chunks(block).zip(cost.chunks(block));
            let scales = blocks.map(|(row, cost)| even_scale(row, bits, cost, whole));
            scales.collect::<Vec<_>>()
        };
        Grid {
            bits,
            out: w.len() / k,
            block: Some(block),
            scale: w.par_chunks_exact(k).flat_map_iter(of_row).collect(),
            table: None,
        }
    }

    /// A table of 2^bits levels shared by all rows, alternated with each row's scale (both for the least `Σ cost_i·(ŵ - w)²`).
    pub fn codebook(w: &[f32], k: usize, bits: u32, cost: &[f32]) -> Grid {
        let mut scale: Vec<f32> = w
            .chunks_exact(k)
            .map(|row| safe(max_abs(row) / 127.0))
            .collect();
        for _ in 0..3 {
            let table = levels(w, k, bits, cost, &scale);
            let nearest = nearest_table(&table);
            scale = w
                .par_chunks_exact(k)
                .map(|row| {
                    best_scale(
                        row,
                        cost,
                        127.0,
                        None,
                        #[inline(always)]
                        |x| {
                            let code = (round(x.clamp(-127.0, 127.0)) + 128.0) as i32;
                            nearest[usize::from(code as u8)]
                        },
                    )
                })
                .collect();
        }
        let table = levels(w, k, bits, cost, &scale);
        Grid {
            bits,
            out: w.len() / k,
            block: None,
            scale,
            table: Some(table),
        }
    }

    /// Scale of input `i` in row `o`.
    pub fn scale(&self, o: usize, i: usize) -> f32 {
        match self.block {
            None => self.scale[o],
            Some(block) => self.scale[o * (self.scale.len() / self.out) + i / block],
        }
    }

    /// Code of the weight `w` of input `i` in row `o`.
    pub fn code(&self, o: usize, i: usize, w: f32) -> i8 {
        self.nearest(w / self.scale(o, i))
    }

    /// Code of `x`, in units of its scale.
    pub fn nearest(&self, x: f32) -> i8 {
        match &self.table {
            None => round(x.clamp(-Self::limit(self.bits), Self::limit(self.bits))) as i8,
            Some(table) => {
                let above = table
                    .partition_point(|&l| f32::from(l) < x)
                    .min(table.len() - 1);
                let below = above.saturating_sub(1);
                if x > between(table[below], table[above]) {
                    table[above]
                } else {
                    table[below]
                }
            }
        }
    }

    /// [`Grid::nearest`] of many.
    pub fn nearest_of_all(&self, x: &[f32]) -> Vec<i8> {
        let mut codes = vec![0i8; x.len()];
        let limit = Self::limit(self.bits);
        let (first, rises) = self.rises();
        let parts = codes.par_chunks_mut(CHUNK).zip(x.par_chunks(CHUNK));
        parts.for_each(|(codes, x)| {
            let mut levels = [first; CHUNK];
            vectorised(
                #[inline(always)]
                || {
                    if self.table.is_none() {
                        for (level, x) in levels.iter_mut().zip(x) {
                            *level = round(x.clamp(-limit, limit));
                        }
                    }
                    // By value: behind a reference they would be read again for every value.
                    for &(bound, rise) in &rises {
                        for (level, &x) in levels.iter_mut().zip(x) {
                            *level += if x > bound { rise } else { 0.0 };
                        }
                    }
                    for (code, level) in codes.iter_mut().zip(&levels) {
                        *code = *level as i8;
                    }
                },
            );
        });
        codes
    }

    /// The table's lowest level; where the next one begins, and how much higher it is.
    fn rises(&self) -> (f32, Vec<(f32, f32)>) {
        let table = self.table.as_deref().unwrap_or_default();
        let rises = table.windows(2).map(|pair| {
            let rise = f32::from(pair[1]) - f32::from(pair[0]);
            (between(pair[0], pair[1]), rise)
        });
        (
            table.first().copied().map_or(0.0, f32::from),
            rises.collect(),
        )
    }

    /// The weight with these codes.
    pub fn weight(&self, codes: Vec<i8>) -> Weight {
        Weight {
            bits: self.bits,
            out: self.out,
            codes,
            block: self.block,
            scale: self.scale.clone(),
            zero_point: Vec::new(),
            table: self.table.clone(),
        }
    }
}

/// Values that stay in the first cache while one level after the other is passed.
const CHUNK: usize = 1024;

/// Half way between two levels; what lies there belongs to the lower one.
fn between(below: i8, above: i8) -> f32 {
    0.5 * (f32::from(below) + f32::from(above))
}

/// Rounds each weight to its nearest code.
pub fn round_to_nearest(w: &[f32], k: usize, grid: &Grid) -> Weight {
    let mut codes = vec![0; w.len()];
    codes
        .par_chunks_exact_mut(k)
        .zip(w.par_chunks_exact(k))
        .enumerate()
        .for_each(|(o, (codes, row))| {
            for (i, (code, &w)) in codes.iter_mut().zip(row).enumerate() {
                *code = grid.code(o, i, w);
            }
        });
    grid.weight(codes)
}

fn max_abs(row: &[f32]) -> f32 {
    row.iter().fold(0.0, |m, v| m.max(v.abs()))
}

/// A dead row (all zero) still needs a scale.
fn safe(scale: f32) -> f32 {
    if scale > f32::MIN_POSITIVE {
        scale
    } else {
        1.0
    }
}

/// Scale of a row, or of a block of it, whose levels are evenly spaced; `other` is tried as well.
fn even_scale(row: &[f32], bits: u32, cost: &[f32], other: Option<f32>) -> f32 {
    let limit = Grid::limit(bits);
    if bits == 8 {
        // Eight bits hardly gain from clipping; the fewer the bits, the deeper it pays.
        return safe(max_abs(row) / limit);
    }
    best_scale(
        row,
        cost,
        limit,
        other,
        #[inline(always)]
        |x| round(x.clamp(-limit, limit)),
    )
}

/// Scale of a row with the least error among shrunken versions of its maximum, and `other`.
fn best_scale(
    row: &[f32],
    cost: &[f32],
    limit: f32,
    other: Option<f32>,
    nearest: impl Fn(f32) -> f32,
) -> f32 {
    let full = safe(max_abs(row) / limit);
    (0..24)
        .map(|i| full * (1.0 - 0.025 * i as f32))
        .chain(other)
        .map(|scale| {
            let error = vectorised(
                #[inline(always)]
                || rounding_error(row, cost, scale, &nearest),
            );
            (error, scale)
        })
        .min_by(|a, b| a.0.total_cmp(&b.0))
        .map_or(full, |(_, scale)| scale)
}

/// `Σ cost_i·(ŵ_i - w_i)²` of a row with `ŵ = scale·nearest(w / scale)`.
#[inline(always)]
fn rounding_error(row: &[f32], cost: &[f32], scale: f32, nearest: impl Fn(f32) -> f32) -> f32 {
    // One sum would wait for itself at every weight.
    let mut sums = [0.0f32; 16];
    let inverse = 1.0 / scale;
    for (row, cost) in row.chunks(16).zip(cost.chunks(16)) {
        for ((sum, &w), &c) in sums.iter_mut().zip(row).zip(cost) {
            let e = nearest(w * inverse) * scale - w;
            *sum += c * e * e;
        }
    }
    sums.iter().sum()
}

fn levels(w: &[f32], k: usize, bits: u32, cost: &[f32], scale: &[f32]) -> Vec<i8> {
    let mut bins = vec![Bin::default(); 255];
    for (row, &s) in w.chunks_exact(k).zip(scale) {
        for (&v, &c) in row.iter().zip(cost) {
            let x = (v / s).clamp(-127.0, 127.0);
            let bin = &mut bins[(round(x) + 127.0) as usize];
            let (x, weight) = (f64::from(x), f64::from(c) * f64::from(s) * f64::from(s));
            bin.weight += weight;
            bin.first += weight * x;
            bin.second += weight * x * x;
        }
    }
    best_levels(&bins, -127.0, 1 << bits)
        .0
        .into_iter()
        .map(|i| (i as i32 - 127) as i8)
        .collect()
}

/// int8 value + 128 → nearest level.
fn nearest_table(table: &[i8]) -> [f32; 256] {
    std::array::from_fn(|q| {
        table
            .iter()
            .copied()
            .min_by_key(|&l| (i32::from(l) + 128 - q as i32).abs())
            .map_or(0.0, f32::from)
    })
}
