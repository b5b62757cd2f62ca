//! Sums that tell how close two signals are.

use super::Score;

/// Values that are summed side by side, so that the loop uses the vector units; the order of the sums is fixed.
const LANES: usize = 8;

/// Sums over pairs of a reference value `x` and its approximation `y`.
#[derive(Clone, Debug, Default)]
pub struct Energy {
    signal: f64,
    noise: f64,
    other: f64,
    product: f64,
}

impl Energy {
    /// The sums of two slices of equal length.
    pub fn of(reference: &[f32], approximation: &[f32]) -> Self {
        let mut lanes = [[0.0f64; LANES]; 4];
        let (xs, ys) = (reference.chunks(LANES), approximation.chunks(LANES));
        for (xs, ys) in xs.zip(ys) {
            for (lane, (x, y)) in xs.iter().zip(ys).enumerate() {
                let (x, y) = (f64::from(*x), f64::from(*y));
                lanes[0][lane] += x * x;
                lanes[1][lane] += (x - y) * (x - y);
                lanes[2][lane] += y * y;
                lanes[3][lane] += x * y;
            }
        }
        let [signal, noise, other, product] = lanes.map(|lane| lane.iter().sum());
        Self {
            signal,
            noise,
            other,
            product,
        }
    }

    /// Adds the sums of further samples.
    pub fn merge(&mut self, more: &Self) {
        self.signal += more.signal;
        self.noise += more.noise;
        self.other += more.other;
        self.product += more.product;
    }

    /// The figures of a value.
    pub fn score(&self, name: &str) -> Score {
        let finite = |value: f64| value.is_finite().then_some(value);
        Score {
            name: name.into(),
            sqnr_db: finite(10.0 * (self.signal / self.noise).log10()),
            cosine: finite(self.product / (self.signal * self.other).sqrt()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tenth_of_the_amplitude_is_twenty_decibels() {
        let x: Vec<f32> = (0..1001).map(|i| (i as f32).sin()).collect();
        let y: Vec<f32> = x.iter().map(|x| x * 1.1).collect();
        let mut sum = Energy::of(&x[..500], &y[..500]);
        sum.merge(&Energy::of(&x[500..], &y[500..]));
        let score = sum.score("x");
        assert!((score.sqnr_db.unwrap() - 20.0).abs() < 1e-4, "{score:?}");
        assert!((score.cosine.unwrap() - 1.0).abs() < 1e-9, "{score:?}");
    }

    #[test]
    fn equal_signals_have_no_noise_to_state() {
        assert_eq!(
            Energy::of(&[1.0, 2.0], &[1.0, 2.0]).score("x").sqnr_db,
            None
        );
        assert_eq!(Energy::of(&[1.0], &[f32::NAN]).score("x").sqnr_db, None);
        assert_eq!(Energy::of(&[0.0], &[1.0]).score("x").cosine, None);
    }
}
