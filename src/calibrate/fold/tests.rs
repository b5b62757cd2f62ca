use proptest::prelude::*;

use super::*;

const CHANNELS: usize = 7;
const OUT: usize = 3;

/// `count` numbers in `±size`.
fn numbers(count: usize, size: f32) -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec(-size..size, count)
}

/// `x·Wᵀ + b` of one row in double precision, and the sum of the terms' magnitudes.
fn forward(row: &[f32], weight: &[f32], bias: &[f32]) -> Vec<(f64, f64)> {
    let outputs = weight.chunks_exact(row.len()).zip(bias);
    outputs
        .map(|(w, &b)| {
            let terms = w
                .iter()
                .zip(row)
                .map(|(w, x)| f64::from(*w) * f64::from(*x));
            terms
                .chain([f64::from(b)])
                .fold((0.0, 0.0), |(sum, size), t| (sum + t, size + t.abs()))
        })
        .collect()
}

fn channels(rows: &[f32]) -> Channels {
    let mut channels = Channels::new(CHANNELS);
    channels.add(rows);
    channels
}

/// What the fold does to rows is undone by what it does to their reader.
fn undone(fold: &Fold, rows: &[f32], weight: &[f32], bias: &[f32]) -> Result<(), TestCaseError> {
    let (mut rows_folded, mut weight_folded, mut bias_folded) =
        (rows.to_vec(), weight.to_vec(), bias.to_vec());
    fold.apply(&mut rows_folded);
    fold.apply_linear(&mut weight_folded, &mut bias_folded);
    for (row, folded) in rows
        .chunks_exact(CHANNELS)
        .zip(rows_folded.chunks_exact(CHANNELS))
    {
        let expected = forward(row, weight, bias);
        let given = forward(folded, &weight_folded, &bias_folded);
        for ((y, size), (z, size_folded)) in expected.into_iter().zip(given) {
            let limit = 1e-5 * size.max(size_folded);
            prop_assert!((y - z).abs() <= limit, "{y} became {z}, limit {limit}");
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn a_fold_is_undone_by_its_reader(
        rows in numbers(5 * CHANNELS, 4.0),
        size in prop::collection::vec(0.01f32..30.0, CHANNELS),
        weight in numbers(OUT * CHANNELS, 1.0),
        bias in numbers(OUT, 1.0),
        bits in 2u32..=8,
        strength in 0.0f32..=1.0,
    ) {
        let rows: Vec<f32> = rows.iter().zip(size.iter().cycle()).map(|(x, s)| x * s).collect();
        let channels = channels(&rows);
        for fold in [Fold::repq(&channels, bits, strength), Fold::peaks(&channels, strength), Fold::outliers(&channels, strength)] {
            prop_assert!(fold.r.iter().all(|r| r.is_finite() && *r > 0.0));
            undone(&fold, &rows, &weight, &bias)?;
        }
    }

    #[test]
    fn the_identity_changes_no_bit(
        rows in numbers(5 * CHANNELS, 4.0),
        weight in numbers(OUT * CHANNELS, 1.0),
        bias in numbers(OUT, 1.0),
    ) {
        let fold = Fold::identity(CHANNELS);
        prop_assert!(fold.is_identity());
        let (mut x, mut w, mut b) = (rows.clone(), weight.clone(), bias.clone());
        fold.apply(&mut x);
        fold.apply_linear(&mut w, &mut b);
        prop_assert_eq!((x, w, b), (rows, weight, bias));
    }

    #[test]
    fn the_range_behind_a_fold_holds_the_folded_rows(
        rows in numbers(5 * CHANNELS, 4.0),
        bits in 2u32..=8,
    ) {
        let channels = channels(&rows);
        let fold = Fold::repq(&channels, bits, 1.0);
        let (lo, hi) = channels.folded(&fold);
        let mut folded = rows;
        fold.apply(&mut folded);
        let slack = 1e-5 * (hi - lo);
        prop_assert!(folded.iter().all(|x| (lo - slack..=hi + slack).contains(x)));
    }

    #[test]
    fn peaks_bring_the_larger_ends_of_all_channels_together(rows in numbers(5 * CHANNELS, 4.0)) {
        let channels = channels(&rows);
        let peak = |j: usize| channels.hi[j].max(-channels.lo[j]);
        let mean = (0..CHANNELS).map(peak).sum::<f32>() / CHANNELS as f32;
        let fold = Fold::peaks(&channels, 1.0);
        prop_assert!(fold.shift.iter().all(|&s| s == 0.0));
        for j in 0..CHANNELS {
            // A channel below a hundredth of the mean stays below the others.
            let after = peak(j) / fold.r[j];
            prop_assert!(after <= mean * 1.001 && (after >= mean * 0.999 || peak(j) < mean * 0.0101));
        }
    }

    /// RepQ-ViT §3.3: behind the fold every channel has the mean scale and the mean zero point.
    #[test]
    fn repq_gives_all_channels_one_scale_and_zero_point(
        rows in numbers(5 * CHANNELS, 4.0),
        bits in 4u32..=8,
    ) {
        let channels = channels(&rows);
        let codes = ((1u32 << bits) - 1) as f32;
        let spans = channels.lo.iter().zip(&channels.hi).map(|(lo, hi)| hi - lo);
        let step = spans.sum::<f32>() / CHANNELS as f32 / codes;
        let fold = Fold::repq(&channels, bits, 1.0);
        let zeros: Vec<f32> = (0..CHANNELS).map(|j| -(channels.lo[j] + fold.shift[j]) / fold.r[j] / step).collect();
        for j in 0..CHANNELS {
            let span = (channels.hi[j] - channels.lo[j]) / fold.r[j];
            // A channel below a hundredth of the mean keeps a narrower range.
            prop_assert!(span <= codes * step * 1.001);
            prop_assert!((zeros[j] - zeros[0]).abs() < 1.01, "{zeros:?}");
        }
    }
}

#[test]
fn channels_that_never_moved_are_left_alone() {
    let still = Channels::new(CHANNELS);
    assert!(Fold::repq(&still, 4, 1.0).is_identity());
    assert!(Fold::peaks(&still, 1.0).is_identity());
    assert!(Fold::outliers(&still, 1.0).is_identity());
    assert_eq!(still.folded(&Fold::identity(CHANNELS)), (0.0, 0.0));
}

#[test]
fn ranges_of_two_halves_are_those_of_the_whole() {
    let rows: Vec<f32> = (0..10 * CHANNELS)
        .map(|i| ((i * 37) % 23) as f32 - 11.0)
        .collect();
    let (first, second) = rows.split_at(4 * CHANNELS);
    let mut merged = channels(first);
    merged.merge(&channels(second));
    let whole = channels(&rows);
    assert_eq!((merged.lo, merged.hi), (whole.lo.clone(), whole.hi.clone()));
    for j in 0..CHANNELS {
        let column = || rows.iter().skip(j).step_by(CHANNELS).copied();
        assert_eq!(whole.lo[j], column().fold(0.0, f32::min));
        assert_eq!(whole.hi[j], column().fold(0.0, f32::max));
    }
}
