//! Histograms that activations are streamed into.

use vitq::quant::{Histogram, apply, from_range};

use crate::judge::Random;

/// The step between bins, in units of the range.
const STEP: f64 = 1.0 / 4095.0;

#[test]
fn a_quantiser_errs_on_a_histogram_as_on_the_values() {
    let columns = 8;
    let values = Random(1).tailed(columns * 4000);
    let cost: Vec<f32> = (0..columns).map(|j| 0.1 + j as f32).collect();
    let (lo, hi) = values
        .iter()
        .fold((0.0f32, 0.0f32), |(lo, hi), &x| (lo.min(x), hi.max(x)));
    let mut histogram = Histogram::new(lo, hi);
    histogram.add(&values, &cost);
    let points = histogram.points();
    assert!(points.values.is_sorted());
    for bits in [2, 4, 8] {
        let quantiser = from_range(lo, hi * 0.7, bits);
        let mut quantised = values.clone();
        apply(&quantiser, &mut quantised);
        let expected: f64 = quantised
            .iter()
            .zip(&values)
            .enumerate()
            .map(|(i, (q, x))| f64::from(cost[i % columns]) * f64::from(q - x).powi(2))
            .sum();
        let given = points.error(&quantiser);
        assert!(
            (given / expected - 1.0).abs() < 0.02,
            "{bits} bits: {given}, {expected}"
        );
    }
}

#[test]
fn two_halves_merged_are_the_whole() {
    let values = Random(2).normals(6000);
    let new = || Histogram::new(-6.0, 6.0);
    let (mut whole, mut left, mut right) = (new(), new(), new());
    whole.add(&values, &[1.0]);
    left.add(&values[..1000], &[1.0]);
    right.add(&values[1000..], &[1.0]);
    left.merge(&right);
    let (a, b) = (whole.points(), left.points());
    assert_eq!(a.weights, b.weights);
    assert_eq!(a.weights.iter().sum::<f32>(), 6000.0);
    for (a, b) in a.values.iter().zip(&b.values) {
        assert!(f64::from((a - b).abs()) < 12.0 * STEP);
    }
}

#[test]
fn a_constant_is_one_point() {
    let mut histogram = Histogram::new(0.0, 0.0);
    histogram.add(&[0.0; 12], &[1.0, 2.0]);
    let points = histogram.points();
    assert_eq!((points.values, points.weights), (vec![0.0], vec![18.0]));
}

#[test]
fn counts_do_not_stand_still() {
    // An f32 that one is added to stands still at 2²⁴.
    let mut histogram = Histogram::new(0.0, 1.0);
    let zeros = vec![0.0; 1 << 20];
    for _ in 0..20 {
        histogram.add(&zeros, &[1.0]);
    }
    assert_eq!(histogram.points().weights, [20.0 * (1 << 20) as f32]);
}
