//! Codes whose neighbouring products fit into 16 bits.
//!
//! x86-64 processors without VNNI multiply uint8 by int8 with an instruction (`vpmaddubsw`) that adds the products of inputs `2i` and
//! `2i + 1` in 16 bits and saturates. ONNX Runtime, OpenVINO and RTen use it. All sums are exact if the positive weights of each pair,
//! each times the largest code of its input, add up to at most 32767, and the negative ones to no less than minus that. The usual
//! remedy, weights of 7 bits, costs 6 dB of them; here a row's scale grows by what its worst pair needs.
//!
//! An input's largest code is that of the values that calibration saw and some more: what lies above may saturate there, by little.

use rayon::prelude::*;
use vitq_passes::plan::{Activation, Weight};
use vitq_passes::quantise::highest_code;

use super::Grid;

/// What a sum must not exceed.
const MOST: f32 = i16::MAX as f32;

/// Codes that are added to the largest one seen: a tenth of all.
const MARGIN: f32 = 25.5;

/// Largest code of each input whose values reach up to `highest`; `None` where no two products are too large.
pub fn tops(activation: &Activation, highest: &[f32]) -> Option<Vec<f32>> {
    let top = highest_code(activation)? as f32;
    if top * 2.0 * f32::from(i8::MAX) <= MOST {
        return None;
    }
    let of_input = |high: &f32| match activation {
        Activation::Uniform {
            scale, zero_point, ..
        } => (high / scale + f32::from(*zero_point) + MARGIN).min(top),
        _ => top,
    };
    Some(highest.iter().map(of_input).collect())
}

/// Raises the scales of rows of `w [out, k]` whose pairs would be too large. Levels of a table are drawn to half of their size instead,
/// if they stay apart so; else [`fit`] does what is left, as it does where scales are for blocks.
pub fn widen(grid: &mut Grid, w: &[f32], tops: &[f32]) {
    if grid.block.is_some() {
        return;
    }
    if let Some(table) = &mut grid.table {
        let half: Vec<i8> = table.iter().map(|&l| half(l)).collect();
        if half.windows(2).all(|pair| pair[0] < pair[1]) {
            *table = half;
            grid.scale.iter_mut().for_each(|scale| *scale *= 2.0);
        }
        return;
    }
    let highest = ((1 << (grid.bits - 1)) - 1) as f32;
    let rows = w.par_chunks_exact(tops.len());
    grid.scale
        .par_iter_mut()
        .zip(rows)
        .for_each(|(scale, row)| {
            let clip = highest * *scale;
            let least = row.chunks(2).zip(tops.chunks(2)).map(|(pair, tops)| {
                // Each of the codes is rounded up by half at most.
                let room = MOST - 0.5 * tops.iter().sum::<f32>();
                let of_sign = |sign: f32| -> f32 {
                    let products = pair.iter().zip(tops);
                    products
                        .map(|(w, top)| (sign * w).clamp(0.0, clip) * top)
                        .sum()
                };
                of_sign(1.0).max(of_sign(-1.0)) / room
            });
            *scale = least.fold(*scale, f32::max);
        });
}

/// Lowers the code of the larger product in each pair that is still too large, to the next level that fits.
pub fn fit(weight: &mut Weight, tops: &[f32]) {
    let table = weight.table.as_deref();
    for row in weight.codes.chunks_exact_mut(tops.len()) {
        for (pair, tops) in row.chunks_exact_mut(2).zip(tops.chunks_exact(2)) {
            let products = [0, 1].map(|i| f32::from(pair[i]) * tops[i]);
            if products[0] * products[1] <= 0.0 || (products[0] + products[1]).abs() <= MOST {
                continue;
            }
            let larger = usize::from(products[1].abs() > products[0].abs());
            let room = (MOST - products[1 - larger].abs()) / tops[larger];
            pair[larger] = level(table, products[larger].signum(), room.max(0.0));
        }
    }
}

/// The largest level of a sign that is at most `room`.
fn level(table: Option<&[i8]>, sign: f32, room: f32) -> i8 {
    let fits = |level: &i8| (0.0..=room).contains(&(sign * f32::from(*level)));
    match table {
        None => (sign * room.floor()) as i8,
        Some(table) => {
            let levels = table.iter().copied().filter(fits);
            // A table without such a level has zero next to it.
            levels.max_by_key(|level| level.unsigned_abs()).unwrap_or(0)
        }
    }
}

fn half(level: i8) -> i8 {
    (f32::from(level) / 2.0).round_ties_even() as i8
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::solve::round_to_nearest;

    const UINT8: Activation = Activation::Uniform {
        bits: 8,
        scale: 1.0,
        zero_point: 128,
    };

    /// Pairs of codes of one sign that are more than 128 together.
    fn too_large(weight: &Weight, k: usize) -> usize {
        let sums = |pair: &[i8]| {
            let of_sign =
                |sign: i32| -> i32 { pair.iter().map(|&c| (sign * i32::from(c)).max(0)).sum() };
            of_sign(1).max(of_sign(-1))
        };
        let pairs = weight.codes.chunks_exact(k).flat_map(|row| row.chunks(2));
        pairs.filter(|pair| sums(pair) > 128).count()
    }

    /// Noise with a few large values, some side by side.
    fn noise(len: usize) -> Vec<f32> {
        let mut state = 7u32;
        let mut next = move || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        };
        (0..len).map(|_| next() + next() + next()).collect()
    }

    #[test]
    fn the_largest_codes_are_those_seen_and_some_more() {
        let tops_of = |activation: &Activation| tops(activation, &[0.0, 40.0, 500.0]);
        assert_eq!(tops_of(&UINT8), Some(vec![153.5, 193.5, 255.0]));
        let narrow = Activation::Uniform {
            bits: 6,
            scale: 1.0,
            zero_point: 0,
        };
        assert_eq!(
            (tops_of(&narrow), tops_of(&Activation::Float)),
            (None, None)
        );
    }

    #[test]
    fn wider_scales_keep_all_pairs_in_range_and_cost_little() {
        let k = 63;
        let (w, tops) = (noise(40 * k), vec![255.0; k]);
        let plain = Grid::uniform(&w, k, 8, &vec![1.0; k]);
        let mut wide = plain.clone();
        widen(&mut wide, &w, &tops);
        assert!(too_large(&round_to_nearest(&w, k, &plain), k) > 0);
        assert_eq!(too_large(&round_to_nearest(&w, k, &wide), k), 0);
        let factors = wide.scale.iter().zip(&plain.scale).map(|(a, b)| a / b);
        assert!(factors.clone().all(|f| (1.0..2.1).contains(&f)));
        assert!(factors.sum::<f32>() / 40.0 < 1.5);
        let mut seen = plain.clone();
        widen(&mut seen, &w, &vec![120.0; k]);
        assert_eq!(seen.scale, plain.scale, "small codes leave room");
    }

    #[test]
    fn codes_that_are_still_too_large_are_lowered_to_a_level() {
        let table = vec![-127, -90, -40, 0, 40, 90, 127];
        for table in [None, Some(table)] {
            let mut weight = Weight {
                bits: 8,
                out: 1,
                codes: vec![127, 40, -90, -90, 127, -127, 90, 0, -127],
                block: None,
                scale: vec![1.0],
                zero_point: Vec::new(),
                table: table.clone(),
            };
            fit(&mut weight, &[255.0; 9]);
            let expected = match table {
                None => vec![88, 40, -38, -90, 127, -127, 90, 0, -127],
                Some(_) => vec![40, 40, 0, -90, 127, -127, 90, 0, -127],
            };
            assert_eq!(weight.codes, expected);
        }
    }
}
