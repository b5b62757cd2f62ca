//! Levels of codebooks: the optimum, not a local one.

use vitq::quant::{Bin, best_levels};

use crate::judge::Random;

/// Values that fall on their nearest bin of `0..n` (`origin` on the value of bin 0), some bins empty.
fn bins(random: &mut Random, n: usize, origin: f64, values: usize) -> Vec<Bin> {
    let mut bins = vec![Bin::default(); n];
    for _ in 0..values {
        let x = f64::from(random.unit() * random.unit()) * (n - 1) as f64;
        let bin = &mut bins[x.round() as usize];
        let (w, x) = (f64::from(random.unit()), x + origin);
        bin.weight += w;
        bin.first += w * x;
        bin.second += w * x * x;
    }
    bins
}

/// Least error with these levels, each bin on the one that costs least.
fn error(bins: &[Bin], origin: f64, levels: &[usize]) -> f64 {
    let cost = |b: &Bin, level: usize| {
        let v = level as f64 + origin;
        b.second - 2.0 * v * b.first + v * v * b.weight
    };
    bins.iter()
        .map(|b| {
            levels
                .iter()
                .map(|&l| cost(b, l))
                .fold(f64::INFINITY, f64::min)
        })
        .sum()
}

/// Least error of all ways to choose `count` of `n` levels.
fn exhaustive(bins: &[Bin], origin: f64, count: usize) -> f64 {
    (0u32..1 << bins.len())
        .filter(|set| set.count_ones() as usize == count)
        .map(|set| {
            let levels: Vec<usize> = (0..bins.len()).filter(|i| set >> i & 1 == 1).collect();
            error(bins, origin, &levels)
        })
        .fold(f64::INFINITY, f64::min)
}

#[test]
fn small_cases_equal_all_choices_tried() {
    for (seed, origin) in [(0, 0.0), (1, -5.0), (2, 3.0), (3, -127.0)] {
        let mut random = Random(seed);
        for values in [3, 20, 400] {
            let bins = bins(&mut random, 12, origin, values);
            for count in 1..=5 {
                let (levels, given) = best_levels(&bins, origin, count);
                assert!(levels.len() <= count && levels.is_sorted());
                let expected = exhaustive(&bins, origin, count);
                assert!(
                    (given - expected).abs() < 1e-8 * (1.0 + origin * origin),
                    "{count} levels: {given}, {expected}"
                );
                let again = error(&bins, origin, &levels);
                assert!(
                    (given - again).abs() < 1e-8 * (1.0 + origin * origin),
                    "{given}, {again}"
                );
            }
        }
    }
}

/// Lloyd's iteration on the integer grid from random levels.
fn lloyd(random: &mut Random, bins: &[Bin], count: usize) -> f64 {
    let n = bins.len();
    let mut levels: Vec<usize> = (0..count)
        .map(|_| (random.unit() * n as f32) as usize)
        .collect();
    for _ in 0..100 {
        let mut sums = vec![(0.0, 0.0); count];
        for bin in bins.iter().filter(|b| b.weight > 0.0) {
            let mean = bin.first / bin.weight;
            let distance = |&i: &usize| (levels[i] as f64 - mean).abs();
            let near = (0..count).min_by(|a, b| distance(a).total_cmp(&distance(b)));
            let sum: &mut (f64, f64) = &mut sums[near.expect("a level")];
            *sum = (sum.0 + bin.weight, sum.1 + bin.first);
        }
        for (level, (weight, first)) in levels.iter_mut().zip(sums).filter(|(_, s)| s.0 > 0.0) {
            *level = (first / weight).round() as usize;
        }
    }
    error(bins, 0.0, &levels)
}

#[test]
fn no_start_of_lloyds_iteration_does_better() {
    let mut random = Random(17);
    let bins = bins(&mut random, 256, 0.0, 5000);
    for count in [4, 16] {
        let (levels, optimum) = best_levels(&bins, 0.0, count);
        let again = error(&bins, 0.0, &levels);
        assert!(
            (optimum - again).abs() < 1e-6 * optimum,
            "{optimum}, {again}"
        );
        for start in 0..50 {
            let local = lloyd(&mut random, &bins, count);
            assert!(
                optimum <= local * (1.0 + 1e-9),
                "start {start}: {local} below {optimum}"
            );
        }
    }
}

#[test]
fn a_level_for_every_bin_leaves_what_is_within_the_bins() {
    let bins = bins(&mut Random(2), 8, 0.0, 100);
    let (levels, given) = best_levels(&bins, 0.0, 16);
    let all: Vec<usize> = (0..8).collect();
    assert!((given - error(&bins, 0.0, &all)).abs() < 1e-9, "{levels:?}");
    assert_eq!(best_levels(&[Bin::default(); 8], 0.0, 4).1, 0.0);
}
