//! The middle of what was measured, and how far it scatters.

use serde::Serialize;

/// Quartiles.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Spread {
    /// A quarter lies below.
    pub low: f64,
    /// Half lies below.
    pub median: f64,
    /// A quarter lies above.
    pub high: f64,
}

impl Spread {
    /// Of values that are numbers; `None` where there are none.
    pub fn of(values: impl Iterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let (below, above) = (sorted[place as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Self {
            low: at(0.25),
            median: at(0.5),
            high: at(0.75),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Spread;

    #[test]
    fn quartiles_lie_between_the_values() {
        let spread = |values: &[f64]| Spread::of(values.iter().copied());
        let of = |low, median, high| Some(Spread { low, median, high });
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[3.0]), of(3.0, 3.0, 3.0));
        assert_eq!(spread(&[5.0, 1.0, 3.0, 2.0, 4.0]), of(2.0, 3.0, 4.0));
        assert_eq!(spread(&[2.0, 1.0]), of(1.25, 1.5, 1.75));
    }
}
