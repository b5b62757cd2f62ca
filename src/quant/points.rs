//! What a quantiser is chosen on: values, and what an error at each costs.

use vitq_passes::plan::Activation;

use crate::run::vector::vectorised;

/// Weighted values, ascending.
#[derive(Clone, Debug, Default)]
pub struct Points {
    /// Values.
    pub values: Vec<f32>,
    /// Cost of a squared error at each.
    pub weights: Vec<f32>,
}

impl Points {
    /// Equally weighted values.
    pub fn equal(mut values: Vec<f32>) -> Points {
        values.sort_unstable_by(f32::total_cmp);
        Points {
            weights: vec![1.0; values.len()],
            values,
        }
    }

    /// `Σ weight·(x̂ - x)²`
    pub fn error(&self, quantiser: &Activation) -> f64 {
        let mut quantised = self.values.clone();
        super::apply(quantiser, &mut quantised);
        let error: Vec<f32> = quantised
            .iter()
            .zip(&self.values)
            .map(|(q, x)| q - x)
            .collect();
        let weighted: Vec<f32> = error
            .iter()
            .zip(&self.weights)
            .map(|(e, w)| e * w)
            .collect();
        crate::linalg::dot(&weighted, &error)
    }

    /// Candidate ranges: min/max and the percentiles 0.99999, 0.9999, 0.999 of RepQ-ViT, 0.99 beyond them (by weight).
    pub fn ranges(&self) -> Vec<(f32, f32)> {
        let total: f64 = self.weights.iter().map(|&w| f64::from(w)).sum();
        let mut ranges: Vec<(f32, f32)> = [0.0, 1e-5, 1e-4, 1e-3, 1e-2]
            .into_iter()
            .map(|tail| {
                let limit = tail * total;
                let lo = beyond(self.values.iter().zip(&self.weights), limit);
                (
                    lo,
                    beyond(self.values.iter().zip(&self.weights).rev(), limit),
                )
            })
            .collect();
        ranges.dedup();
        ranges
    }
}

/// The first value behind `limit` of the weight.
fn beyond<'a>(points: impl Iterator<Item = (&'a f32, &'a f32)>, limit: f64) -> f32 {
    let mut seen = 0.0;
    let mut last = 0.0;
    for (&value, &weight) in points {
        seen += f64::from(weight);
        last = value;
        if seen > limit {
            break;
        }
    }
    last
}

/// A histogram over a known range that many rows are streamed into; each bin keeps the mean of what fell into it.
#[derive(Clone, Debug)]
pub struct Histogram {
    lo: f32,
    inverse: f32,
    weight: Vec<f64>,
    first: Vec<f64>,
}

impl Histogram {
    /// Sixteen bins to a step of 8 bits.
    const BINS: usize = 4096;

    /// An empty histogram over `[lo, hi]`.
    pub fn new(lo: f32, hi: f32) -> Histogram {
        let inverse = if hi > lo {
            (Self::BINS - 1) as f32 / (hi - lo)
        } else {
            0.0
        };
        Histogram {
            lo,
            inverse,
            weight: vec![0.0; Self::BINS],
            first: vec![0.0; Self::BINS],
        }
    }

    /// Adds rows, an error in column `j` costing `cost[j]`.
    pub fn add(&mut self, rows: &[f32], cost: &[f32]) {
        // Fast sums of one call in f32; those of all calls would stand still in it. Both sums of a bin stand side by side.
        let mut sums = vec![[0.0f32; 2]; Self::BINS];
        vectorised(|| {
            for row in rows.chunks_exact(cost.len().max(1)) {
                for (&x, &c) in row.iter().zip(cost) {
                    let bin = ((x - self.lo) * self.inverse) as usize;
                    let [weight, first] = &mut sums[bin.min(Self::BINS - 1)];
                    *weight += c;
                    *first += c * x;
                }
            }
        });
        for ((weight, first), [w, f]) in self.weight.iter_mut().zip(&mut self.first).zip(sums) {
            *weight += f64::from(w);
            *first += f64::from(f);
        }
    }

    /// An empty one over the same range.
    pub fn emptied(&self) -> Histogram {
        Histogram {
            weight: vec![0.0; Self::BINS],
            first: vec![0.0; Self::BINS],
            ..*self
        }
    }

    /// All of them, which have one range, together.
    pub fn merged(groups: &[Histogram]) -> Histogram {
        let mut all = groups
            .first()
            .map_or_else(|| Histogram::new(0.0, 0.0), Histogram::emptied);
        for group in groups {
            all.merge(group);
        }
        all
    }

    /// Adds another histogram over the same range.
    pub fn merge(&mut self, other: &Histogram) {
        self.weight
            .iter_mut()
            .zip(&other.weight)
            .for_each(|(a, b)| *a += b);
        self.first
            .iter_mut()
            .zip(&other.first)
            .for_each(|(a, b)| *a += b);
    }

    /// The filled bins as points.
    pub fn points(&self) -> Points {
        let filled = self
            .weight
            .iter()
            .zip(&self.first)
            .filter(|(w, _)| **w > 0.0);
        let (values, weights) = filled.map(|(&w, &f)| ((f / w) as f32, w as f32)).unzip();
        Points { values, weights }
    }
}
