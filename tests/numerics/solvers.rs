//! Solvers of weights.

use serde_json::json;
use vitq::linalg::{add_gemm_tn, gemm};
use vitq::solve::{Grid, Spectrum, descend, gptq, refit, round_to_nearest, shrunk};
use vitq_passes::plan::Weight;

use crate::judge::{Random, ask, close, gram, numbers};

/// Inputs whose channels are correlated and of very different size, `[rows, k]`.
fn inputs(random: &mut Random, rows: usize, k: usize) -> Vec<f32> {
    let size: Vec<f32> = (0..k).map(|_| (2.0 * random.normal()).exp2()).collect();
    let mut x = Vec::with_capacity(rows * k);
    for _ in 0..rows {
        let shared = random.normal();
        x.extend(size.iter().map(|s| s * (shared + random.normal())));
    }
    x
}

/// `‖(Ŵ - W)X‖²` in double precision, `h = XᵀX`.
fn error(weight: &Weight, w: &[f32], h: &[f32], k: usize) -> f64 {
    let difference: Vec<f64> = weight
        .dequantise()
        .iter()
        .zip(w)
        .map(|(q, w)| f64::from(*q) - f64::from(*w))
        .collect();
    difference
        .chunks_exact(k)
        .map(|e| {
            let pairs = (0..k).flat_map(|i| (0..k).map(move |j| (i, j)));
            pairs
                .map(|(i, j)| e[i] * e[j] * f64::from(h[i * k + j]))
                .sum::<f64>()
        })
        .sum()
}

fn diagonal(h: &[f32], k: usize) -> Vec<f32> {
    (0..k).map(|i| h[i * k + i]).collect()
}

fn levels(grid: &Grid) -> Vec<i32> {
    let limit = (1 << (grid.bits - 1)) - 1;
    let table = grid.table.as_ref();
    table.map_or_else(
        || (-limit..=limit).collect(),
        |table| table.iter().map(|&l| i32::from(l)).collect(),
    )
}

/// Rows that came near no tie have the codes of Optimal Brain Quantization; how many those were.
fn same_codes(w: &[f32], k: usize, h: &[f32], grid: &Grid) -> usize {
    const DAMPING: f32 = 0.01;
    let given = gptq(w, k, &shrunk(h, k, DAMPING), grid).expect("a damped H is positive definite");
    let case = json!({"w": w, "h": h, "k": k, "damping": DAMPING, "scale": grid.scale, "levels": levels(grid)});
    let answer = ask("gptq", &case);
    let codes: Vec<i8> = numbers(&answer["codes"]).iter().map(|&c| c as i8).collect();
    let clear = numbers(&answer["margin"])
        .into_iter()
        .map(|margin| margin > 2e-3);
    let rows = given
        .codes
        .chunks_exact(k)
        .zip(codes.chunks_exact(k))
        .zip(clear);
    let mut compared = 0;
    for ((given, expected), _) in rows.filter(|(_, clear)| *clear) {
        assert_eq!(given, expected);
        compared += 1;
    }
    compared
}

#[test]
fn gptq_gives_the_codes_of_optimal_brain_quantization() {
    let (k, out) = (24, 37);
    let mut random = Random(11);
    let x = inputs(&mut random, 200, k);
    let h = gram(&x, k);
    let w = random.normals(out * k);
    for grid in [
        Grid::uniform(&w, k, 4, &diagonal(&h, k)),
        Grid::uniform(&w, k, 3, &diagonal(&h, k)),
        Grid::codebook(&w, k, 3, &diagonal(&h, k)),
    ] {
        let compared = same_codes(&w, k, &h, &grid);
        assert!(
            compared > out / 2,
            "only {compared} of {out} rows away from ties"
        );
    }
}

#[test]
fn many_values_get_the_codes_that_each_gets_alone() {
    let k = 64;
    let mut random = Random(5);
    let w = random.normals(8 * k);
    let cost = vec![1.0; k];
    for bits in 2..=8 {
        for grid in [
            Grid::uniform(&w, k, bits, &cost),
            Grid::codebook(&w, k, bits, &cost),
        ] {
            // Halves of the grid among them, which lie between two levels.
            let halves = (-600..600).map(|i| i as f32 / 4.0);
            let values: Vec<f32> = random.normals(3000).iter().map(|x| 50.0 * x).collect();
            let values: Vec<f32> = values.into_iter().chain(halves).collect();
            let alone: Vec<i8> = values.iter().map(|x| grid.nearest(*x)).collect();
            assert_eq!(grid.nearest_of_all(&values), alone, "{bits} bits");
        }
    }
}

#[test]
fn gptq_errs_less_than_rounding_to_nearest() {
    let (k, out) = (48, 40);
    for seed in 0..5 {
        let mut random = Random(seed);
        let x = inputs(&mut random, 300, k);
        let h = gram(&x, k);
        let w = random.normals(out * k);
        for bits in [2, 3, 4, 8] {
            for grid in [
                Grid::uniform(&w, k, bits, &diagonal(&h, k)),
                Grid::codebook(&w, k, bits, &diagonal(&h, k)),
            ] {
                let solved = gptq(&w, k, &shrunk(&h, k, 0.01), &grid)
                    .expect("a damped H is positive definite");
                let rounded = round_to_nearest(&w, k, &grid);
                let (solved, rounded) = (error(&solved, &w, &h, k), error(&rounded, &w, &h, k));
                assert!(solved <= rounded, "{bits} bits: {solved}, {rounded}");
            }
        }
    }
}

#[test]
fn descent_ends_where_no_single_code_and_no_scale_is_better() {
    let (k, out) = (24, 21);
    for seed in 0..4 {
        let mut random = Random(40 + seed);
        let x = inputs(&mut random, 90, k);
        let h = shrunk(&gram(&x, k), k, 0.05);
        let mut w = random.normals(out * k);
        w[..k].fill(0.0);
        for grid in [
            Grid::uniform(&w, k, 3, &diagonal(&h, k)),
            Grid::codebook(&w, k, 2, &diagonal(&h, k)),
        ] {
            let rounded = round_to_nearest(&w, k, &grid);
            let mut best = rounded.clone();
            // Each call makes a few sweeps; until the codes stand still.
            while {
                let next = descend(best.clone(), &w, k, &h, &grid);
                let moved = next.codes != best.codes;
                best = next;
                moved
            } {}
            assert!(error(&best, &w, &h, k) <= error(&rounded, &w, &h, k) * 1.0001);
            let case = json!({
                "w": w, "h": h, "k": k, "codes": best.codes, "scale": best.scale, "levels": levels(&grid)
            });
            let answer = ask("improvements", &case);
            let gains = numbers(&answer["gains"]);
            assert!(
                gains.len() == 2 * out && gains.iter().all(|g| *g < 1e-3),
                "{gains:?}"
            );
        }
    }
}

#[test]
fn gptq_answers_where_channels_are_dead_or_alike_or_rows_few() {
    let (rows, k) = (3, 16);
    let mut random = Random(6);
    let mut x = inputs(&mut random, rows, k);
    for row in x.chunks_exact_mut(k) {
        row[4] = 0.0;
        row[9] = row[2];
    }
    for out in [1, 17] {
        let w = random.normals(out * k);
        for h in [gram(&x, k), vec![0.0; k * k]] {
            let grid = Grid::uniform(&w, k, 4, &diagonal(&h, k));
            let weight =
                gptq(&w, k, &shrunk(&h, k, 0.01), &grid).expect("damping mends a singular H");
            assert_eq!(weight.codes.len(), w.len());
            let rounded = round_to_nearest(&w, k, &grid);
            // A dead channel has no say in the others and none has in it.
            let column = |weight: &Weight| -> Vec<i8> {
                weight.codes.iter().skip(4).step_by(k).copied().collect()
            };
            assert_eq!(column(&weight), column(&rounded));
            assert!(error(&weight, &w, &h, k) <= error(&rounded, &w, &h, k) * 1.001);
        }
    }
    let w = random.normals(k);
    let grid = Grid::uniform(&w, k, 4, &vec![1.0; k]);
    let h = vec![f32::NAN; k * k];
    assert_eq!(gptq(&w, k, &h, &grid), None, "nothing mends NaN");
}

#[test]
fn one_input_channel_is_rounded() {
    let w = [0.3, -1.0, 0.0];
    let grid = Grid::uniform(&w, 1, 8, &[1.0]);
    let solved = gptq(&w, 1, &[2.0], &grid);
    assert_eq!(solved, Some(round_to_nearest(&w, 1, &grid)));
}

#[test]
fn a_grid_is_no_worse_than_its_largest_weights() {
    let k = 64;
    let mut random = Random(21);
    let mut w = random.tailed(10 * k);
    w[3 * k..4 * k].fill(0.0);
    let cost: Vec<f32> = (0..k).map(|_| random.unit()).collect();
    let mut h = vec![0.0; k * k];
    (0..k).for_each(|i| h[i * k + i] = cost[i]);
    for bits in [2, 3, 4, 8] {
        let searched = Grid::uniform(&w, k, bits, &cost);
        let mut plain = searched.clone();
        for (scale, row) in plain.scale.iter_mut().zip(w.chunks_exact(k)) {
            let peak = row.iter().fold(0.0f32, |m, v| m.max(v.abs()));
            *scale = if peak > 0.0 {
                peak / ((1 << (bits - 1)) - 1) as f32
            } else {
                1.0
            };
        }
        let error = |grid: &Grid| error(&round_to_nearest(&w, k, grid), &w, &h, k);
        assert!(error(&searched) <= error(&plain) * 1.0001, "{bits} bits");
        let free = Grid::codebook(&w, k, bits, &cost);
        if bits < 8 {
            assert!(error(&free) < error(&searched), "{bits} bits");
        }
        for grid in [searched, free] {
            assert!(grid.scale.iter().all(|s| s.is_finite() && *s > 0.0));
            let zero_row = &round_to_nearest(&w, k, &grid).dequantise()[3 * k..4 * k];
            if grid.table.is_none() {
                assert!(zero_row.iter().all(|v| *v == 0.0));
            }
            assert!(zero_row.iter().all(|v| v.is_finite()));
        }
    }
}

/// Rounded in blocks a weight errs no more than rounded in rows: to nearest by construction, solved for as a rule.
#[test]
fn blocks_err_no_more_than_rows() {
    let out = 20;
    for (seed, (k, block)) in [(96, 32), (100, 32), (128, 64), (70, 16)]
        .into_iter()
        .enumerate()
    {
        let mut random = Random(60 + seed as u64);
        let mut w = random.tailed(out * k);
        w[..block].fill(0.0);
        let h = shrunk(&gram(&inputs(&mut random, 300, k), k), k, 0.05);
        let cost = diagonal(&h, k);
        let mut alone = vec![0.0; k * k];
        (0..k).for_each(|i| alone[i * k + i] = cost[i]);
        for bits in [2, 3, 4, 8] {
            let rows = Grid::uniform(&w, k, bits, &cost);
            let blocks = Grid::blocks(&w, k, bits, &cost, block);
            assert_eq!(blocks.scale.len(), out * k.div_ceil(block));
            let nearest = |grid: &Grid| round_to_nearest(&w, k, grid);
            let solved = |grid: &Grid| gptq(&w, k, &h, grid).expect("a damped H");
            let descended = |grid: &Grid| descend(solved(grid), &w, k, &h, grid);
            let [by_rows, by_blocks] =
                [&rows, &blocks].map(|it| error(&nearest(it), &w, &alone, k));
            assert!(
                by_blocks <= by_rows * 1.0001,
                "{bits} bits: {by_blocks}, {by_rows}"
            );
            let [by_rows, by_blocks] = [&rows, &blocks].map(|it| error(&solved(it), &w, &h, k));
            assert!(by_blocks < by_rows, "{bits} bits: {by_blocks}, {by_rows}");
            let [better_rows, better_blocks] =
                [&rows, &blocks].map(|it| error(&descended(it), &w, &h, k));
            assert!(
                better_blocks < better_rows,
                "{bits} bits: {better_blocks}, {better_rows}"
            );
            assert!(
                better_blocks <= by_blocks * 1.0001,
                "{bits} bits: {better_blocks}, {by_blocks}"
            );
        }
    }
}

/// One block is the row: the same scales and codes, and a descent that goes as far.
#[test]
fn a_block_as_long_as_the_row_is_the_row() {
    let (k, out) = (40, 12);
    let mut random = Random(71);
    let w = random.normals(out * k);
    let h = shrunk(&gram(&inputs(&mut random, 200, k), k), k, 0.05);
    let cost = diagonal(&h, k);
    let row = Grid::uniform(&w, k, 3, &cost);
    let block = Grid::blocks(&w, k, 3, &cost, k);
    assert_eq!(row.scale, block.scale);
    let [row, block] = [row, block].map(|grid| {
        let solved = gptq(&w, k, &h, &grid).expect("a damped H is positive definite");
        let descended = descend(solved.clone(), &w, k, &h, &grid);
        (solved, error(&descended, &w, &h, k))
    });
    assert_eq!(row.0.codes, block.0.codes);
    assert!(
        (row.1 - block.1).abs() < 0.02 * row.1,
        "{}, {}",
        row.1,
        block.1
    );
}

#[test]
fn every_code_is_the_nearest_level() {
    let mut random = Random(31);
    let w = random.normals(4 * 32);
    for grid in [
        Grid::uniform(&w, 32, 4, &[1.0; 32]),
        Grid::codebook(&w, 32, 3, &[1.0; 32]),
    ] {
        for o in 0..4 {
            for v in random.normals(500).into_iter().chain([0.0, 1e30, -1e30]) {
                let x = f64::from(v / grid.scale[o]);
                let nearest = levels(&grid)
                    .into_iter()
                    .map(|l| (f64::from(l) - x).abs())
                    .fold(f64::INFINITY, f64::min);
                let given = (f64::from(grid.code(o, 0, v)) - x).abs();
                assert!(given <= nearest * (1.0 + 1e-6) + 1e-6, "{v} in row {o}");
            }
        }
    }
}

#[test]
fn refit_solves_the_least_squares_problem() {
    for (rows, k, out, ridge) in [(60, 12, 5, 0.1), (5, 12, 3, 1.0), (200, 30, 17, 0.01)] {
        let mut random = Random(k as u64 + rows as u64);
        let x = inputs(&mut random, rows, k);
        let quantised: Vec<f32> = x.iter().map(|v| (v * 2.0).round() / 2.0).collect();
        let w = random.normals(out * k);
        let h = gram(&quantised, k);
        let mut c = vec![0.0; k * k];
        add_gemm_tn(&mut c, &x, &quantised, rows, k, k);
        let given = refit(&w, k, &h, &c, ridge).expect("a damped H is positive definite");
        let case =
            json!({"w": w, "x": x, "quantised": quantised, "rows": rows, "k": k, "ridge": ridge});
        close(&given, &numbers(&ask("refit", &case)), 1e-4);
    }
}

#[test]
fn refit_changes_nothing_where_nothing_was_rounded() {
    let (rows, k) = (50, 10);
    let mut random = Random(2);
    let h = gram(&inputs(&mut random, rows, k), k);
    let w = random.normals(4 * k);
    assert_eq!(refit(&w, k, &h, &h, 0.1), Some(w.clone()));
    let zeros = vec![0.0; k * k];
    assert_eq!(refit(&w, k, &zeros, &zeros, 0.1), None, "nothing arrived");
}

#[test]
fn low_rank_gives_the_best_product_of_its_rank() {
    for (out, k) in [(40, 12), (9, 30), (16, 16)] {
        let mut random = Random((out * k) as u64);
        let x = inputs(&mut random, 200, k);
        let h = shrunk(&gram(&x, k), k, 0.05);
        let e = random.normals(out * k);
        let spectrum = Spectrum::new(&e, k, &h).expect("a damped H is positive definite");
        for rank in [1, 3, out.min(k)] {
            let branch = spectrum.factors(rank).expect("a rank above 0");
            assert_eq!(branch.rank, rank);
            let product = gemm(&branch.up, &branch.down, out, rank, k);
            let case = json!({"e": e, "h": h, "k": k, "rank": rank});
            let answer = ask("low_rank", &case);
            close(&product, &numbers(&answer["product"]), 1e-3);
            let energy: Vec<f32> = spectrum.energy.iter().map(|&it| it as f32).collect();
            close(&energy, &numbers(&answer["energy"]), 1e-5);
        }
        let noise: Vec<f32> = random.normals(k).iter().map(|x| x * x + 0.01).collect();
        let mut diagonal = vec![0.0; k * k];
        (0..k).for_each(|i| diagonal[i * k + i] = noise[i]);
        let spectrum = Spectrum::weighted(&e, &noise).expect("all noise is a number");
        let branch = spectrum.factors(3).expect("a rank above 0");
        let answer = ask(
            "low_rank",
            &json!({"e": e, "h": diagonal, "k": k, "rank": 3}),
        );
        close(
            &gemm(&branch.up, &branch.down, out, 3, k),
            &numbers(&answer["product"]),
            1e-3,
        );
        let energy: Vec<f32> = spectrum.energy.iter().map(|&it| it as f32).collect();
        close(&energy, &numbers(&answer["energy"]), 1e-5);
    }
}

#[test]
fn low_rank_answers_where_there_is_nothing_to_take_away() {
    let k = 6;
    let h = gram(&Random(1).normals(40 * k), k);
    let spectrum = Spectrum::new(&vec![0.0; 4 * k], k, &h).expect("no error is an error, too");
    assert!(spectrum.energy.iter().all(|it| *it == 0.0));
    assert_eq!(spectrum.factors(0), None);
    let dead = Spectrum::weighted(&vec![1.0; 4 * k], &vec![0.0; k]);
    assert!(dead.is_some_and(|it| it.energy.iter().all(|it| it.is_finite())));
    let branch = spectrum.factors(100).expect("as many ranks as there are");
    assert_eq!(
        (branch.rank, branch.up.len(), branch.down.len()),
        (4, 16, 24)
    );
    assert!(Spectrum::new(&vec![1.0; 4 * k], k, &vec![f32::NAN; k * k]).is_none());
    assert!(Spectrum::new(&vec![f32::NAN; 4 * k], k, &h).is_none());
}
