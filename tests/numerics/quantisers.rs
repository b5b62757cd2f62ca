//! What quantisers do to values, and how good the chosen ones are.

use serde_json::json;
use vitq::quant::{
    Points, apply, around_zero, codebook, from_range, log, segments, symmetric, uniform,
};
use vitq_passes::plan::{Activation, Segment};

use crate::judge::{Random, ask, numbers, same};

fn applied(quantiser: &Activation, values: &[f32]) -> Vec<f32> {
    let mut values = values.to_vec();
    apply(quantiser, &mut values);
    values
}

/// `Σ w·(x̂ - x)²` in double precision.
fn error(quantiser: &Activation, points: &Points) -> f64 {
    let quantised = applied(quantiser, &points.values);
    let terms = quantised.iter().zip(&points.values).zip(&points.weights);
    terms
        .map(|((q, x), w)| f64::from(*w) * (f64::from(*q) - f64::from(*x)).powi(2))
        .sum()
}

/// Random values beyond both ends of the codes, every tie, and values that saturate.
fn values(bits: u32, scale: f32, zero_point: u8) -> Vec<f32> {
    let codes = (1 << bits) as f32;
    let mut random = Random(u64::from(bits));
    let ends = (-f32::from(zero_point) - 3.0, codes + 3.0);
    let mut values: Vec<f32> = (0..2000)
        .map(|_| (ends.0 + (ends.1 - ends.0) * random.unit()) * scale)
        .collect();
    values.extend((-300..300).map(|code| (code as f32 + 0.5) * scale));
    values.extend([
        0.0,
        -0.0,
        1e30,
        -1e30,
        f32::MIN_POSITIVE,
        f32::MAX,
        f32::MIN,
    ]);
    values
}

#[test]
fn uniform_codes_are_onnxs() {
    for (bits, scale, zero_point) in [
        (8, 0.125, 0),
        (8, 0.25, 128),
        (8, 0.1, 255),
        (8, 0.037, 77),
        (4, 0.5, 7),
        (3, 0.3, 0),
        (2, 1.0, 3),
    ] {
        let x = values(bits, scale, zero_point);
        let quantiser = Activation::Uniform {
            bits,
            scale,
            zero_point,
        };
        let given = applied(&quantiser, &x);
        let case = json!({"x": x, "bits": bits, "scale": scale, "zero_point": zero_point});
        same(&given, &ask("quantised", &case));
        if bits == 8 {
            let case = json!({"x": x, "scale": scale, "zero_point": zero_point});
            same(&given, &ask("onnxruntime_quantised", &case));
        }
    }
}

#[test]
fn log_codes_are_the_papers() {
    let mut random = Random(3);
    // Softmax outputs: from one down to the smallest numbers, and none below zero.
    let mut x: Vec<f32> = (0..3000).map(|_| (-40.0 * random.unit()).exp2()).collect();
    x.extend([0.0, 1.0, 0.5, 0.25, f32::MIN_POSITIVE]);
    for (bits, step, shift) in [
        (4, 0.5, 0),
        (4, 0.5, 3),
        (3, 0.5, 1),
        (2, 0.5, 0),
        (6, 0.5, 7),
        (6, 0.125, 2),
        (5, 0.2, 0),
    ] {
        let given = applied(&Activation::Log { bits, step, shift }, &x);
        let answer = ask(
            "logarithmic",
            &json!({"x": x, "bits": bits, "step": step, "shift": shift}),
        );
        let (expected, ties) = (numbers(&answer["values"]), numbers(&answer["ties"]));
        let mut compared = 0;
        for i in (0..x.len()).filter(|&i| ties[i] > 1e-4) {
            let difference = (f64::from(given[i]) - expected[i]).abs();
            assert!(
                difference <= 1e-6 * expected[i],
                "{bits} bits, shift {shift}: {} gives {}, not {}",
                x[i],
                given[i],
                expected[i]
            );
            compared += 1;
        }
        assert!(compared > 2900, "{compared}");
    }
}

#[test]
fn a_codebook_gives_the_nearest_level() {
    for tailed in [Random(8).tailed(4000), Random(9).normals(4000)] {
        let points = Points::equal(tailed);
        for bits in [2, 3, 4, 6] {
            let quantiser = codebook(&points, bits);
            let levels = levels(&quantiser);
            assert_eq!(levels.len(), 1 << bits, "{quantiser:?}");
            assert!(levels.contains(&0.0) && levels.is_sorted(), "{levels:?}");
            let given = applied(&quantiser, &points.values);
            for (x, given) in points.values.iter().zip(given) {
                let distance = |level: f64| (level - f64::from(*x)).abs();
                let nearest = levels.iter().map(|&l| distance(l)).reduce(f64::min);
                let (given, nearest) = (distance(f64::from(given)), nearest.expect("levels"));
                assert!(given <= nearest + 1e-6, "{x}: {given}, {nearest}");
            }
        }
    }
}

/// All levels of a codebook, ascending.
fn levels(codebook: &Activation) -> Vec<f64> {
    let Activation::Codebook { scale, segments } = codebook else {
        panic!("{codebook:?}")
    };
    let mut levels: Vec<i16> = segments
        .iter()
        .flat_map(|s| (s.from..=s.to).step_by(usize::from(s.step)))
        .collect();
    levels.dedup();
    levels
        .iter()
        .map(|&l| f64::from(l) * f64::from(*scale))
        .collect()
}

#[test]
fn segments_equal_all_choices_tried() {
    const STEPS: [i16; 10] = [1, 2, 3, 4, 6, 8, 12, 16, 24, 32];
    for (seed, lowest, most) in [(1, 0, 3), (2, 9, 1), (3, 14, 2), (4, 20, 3)] {
        let points = Points::equal(Random(seed).tailed(60).iter().map(|x| 4.0 * x).collect());
        let mut least = f64::INFINITY;
        for start in -lowest..=0 {
            for choice in 0..1000_usize {
                let steps = [choice % 10, choice / 10 % 10, choice / 100].map(|i| STEPS[i]);
                let mut chosen: Vec<Segment> = Vec::new();
                let mut at = start;
                for step in steps {
                    match chosen.last_mut() {
                        Some(last) if i16::from(last.step) == step => last.to += step,
                        _ => chosen.push(Segment {
                            step: step as u8,
                            from: at,
                            to: at + step,
                        }),
                    }
                    at += step;
                }
                let aligned = chosen
                    .iter()
                    .all(|s| s.from % i16::from(s.step) == 0 && s.to % i16::from(s.step) == 0);
                if aligned && at >= 0 && chosen.len() <= most {
                    let codebook = Activation::Codebook {
                        scale: 1.0,
                        segments: chosen,
                    };
                    least = least.min(error(&codebook, &points));
                }
            }
        }
        let (chosen, given) = segments(&points, (1.0, lowest as usize), 4, most).expect("a choice");
        assert!(
            (given - least).abs() <= 1e-5 * least,
            "{chosen:?}: {given}, {least}"
        );
    }
}

#[test]
fn a_uniform_quantiser_beats_min_max_and_every_percentile() {
    for (seed, tailed) in [(1, false), (2, true), (3, true)] {
        let mut random = Random(seed);
        let mut values = if tailed {
            random.tailed(20_000)
        } else {
            random.normals(20_000)
        };
        values.push(40.0);
        let points = Points::equal(values);
        let (sorted, last) = (&points.values, points.values.len() - 1);
        for bits in [2, 4, 6, 8] {
            let chosen = error(&uniform(&points, bits), &points);
            for tail in [0.0, 1e-5, 1e-4, 1e-3, 1e-2] {
                let cut = (tail * sorted.len() as f64) as usize;
                let candidate = from_range(sorted[cut], sorted[last - cut], bits);
                let other = error(&candidate, &points);
                assert!(
                    chosen <= other * (1.0 + 1e-5),
                    "{bits} bits: {chosen}, but {other} beyond {tail}"
                );
            }
        }
    }
}

#[test]
fn few_levels_placed_freely_beat_evenly_spaced_ones() {
    let points = Points::equal(Random(4).tailed(20_000));
    for bits in [2, 3, 4] {
        let (free, even) = (
            error(&codebook(&points, bits), &points),
            error(&uniform(&points, bits), &points),
        );
        assert!(free < even, "{bits} bits: {free}, {even}");
    }
}

#[test]
fn the_shift_of_log_codes_is_the_best_one() {
    let points = Points::equal((1..4000).map(|i| 0.2 * i as f32 / 4000.0).collect());
    let chosen = error(&log(&points, 3), &points);
    for shift in 0..8 {
        let other = error(
            &Activation::Log {
                bits: 3,
                step: 0.5,
                shift,
            },
            &points,
        );
        assert!(chosen <= other * (1.0 + 1e-5), "shift {shift}");
    }
}

#[test]
fn the_error_of_points_is_their_weighted_squared_error() {
    let mut random = Random(9);
    let mut points = Points::equal(random.normals(5000));
    points.weights = (0..5000).map(|_| random.unit()).collect();
    for bits in [2, 8] {
        let quantiser = from_range(-2.0, 3.0, bits);
        let (given, expected) = (points.error(&quantiser), error(&quantiser, &points));
        assert!(
            (given - expected).abs() <= 1e-5 * expected,
            "{given}, {expected}"
        );
    }
}

#[test]
fn ranges_hold_zero_exactly() {
    for (lo, hi) in [
        (-1.0, 3.0),
        (0.5, 2.0),
        (-3.0, -1.0),
        (0.0, 0.0),
        (-1e-38, 1e-38),
        (-1e30, 1e-3),
    ] {
        for bits in [2, 4, 8] {
            let quantiser = from_range(lo, hi, bits);
            let Activation::Uniform { scale, .. } = quantiser else {
                panic!("{quantiser:?}")
            };
            assert!(scale.is_normal() && scale > 0.0, "{scale}");
            assert_eq!(applied(&quantiser, &[0.0]), [0.0]);
        }
    }
}

/// Codes around zero that reach as far to both sides; clipped where few values lie far out.
#[test]
fn symmetric_codes_lie_around_zero() {
    let mut random = Random(3);
    let mut values: Vec<f32> = (0..4000).map(|_| 4.0 * random.unit() - 1.0).collect();
    values.push(30.0);
    let points = Points::equal(values);
    for bits in [4, 8] {
        let chosen = symmetric(&points, bits);
        let Activation::Uniform {
            scale, zero_point, ..
        } = chosen
        else {
            panic!("{chosen:?}")
        };
        let most = scale * ((1 << (bits - 1)) - 1) as f32;
        assert_eq!(u32::from(zero_point), 1 << (bits - 1));
        assert_eq!(applied(&chosen, &[99.0, -most]), [most, -most]);
        let wide = around_zero(30.0, bits);
        let ratio = error(&chosen, &points) / error(&wide, &points);
        assert!(
            (bits == 8 || ratio < 0.9) && ratio <= 1.0,
            "{bits}: {ratio}"
        );
    }
}

/// Nothing to choose on, a constant, values that are no numbers: an answer, and no search without end.
#[test]
fn degenerate_values_have_a_quantiser() {
    for values in [vec![], vec![0.0; 9], vec![3.0; 9], vec![f32::NAN; 9]] {
        let points = Points::equal(values);
        for bits in [2, 8] {
            for quantiser in [
                uniform(&points, bits),
                symmetric(&points, bits),
                codebook(&points, bits),
                log(&points, bits.min(7)),
            ] {
                assert!(applied(&quantiser, &[0.0])[0].is_finite(), "{quantiser:?}");
            }
        }
    }
}
