//! How the scale of a LayerNormalization is folded into the Linears that read it (RepQ-ViT §3.3).
//!
//! `x' = (x + shift) / r`, `W' = W·diag(r)`, `b' = b - W·shift`, `γ' = γ/r`, `β' = (β + shift)/r`.
//! RepQ-ViT: `r = s/s̃`, `shift = s ⊙ (z - z̃)` with an integer `z̃`. An RMSNorm takes no shift: its channels' larger ends are
//! brought together instead, `r = peak/mean(peak)`.

use vitq_passes::ir::Graph;
use vitq_passes::plan::NormPlan;
use vitq_passes::structure::Norm;

use crate::run::vector::vectorised;

/// Range of each channel over all tokens of all inputs, and in an input on average; zero included.
#[derive(Clone, Debug)]
pub struct Channels {
    /// `[channels]`, ≤ 0
    pub lo: Vec<f32>,
    /// `[channels]`, ≥ 0
    pub hi: Vec<f32>,
    /// Sum of each input's `lo`.
    lo_sum: Vec<f32>,
    /// Sum of each input's `hi`.
    hi_sum: Vec<f32>,
    inputs: usize,
}

impl Channels {
    /// Channels that saw nothing yet.
    pub fn new(channels: usize) -> Channels {
        Channels {
            lo: vec![0.0; channels],
            hi: vec![0.0; channels],
            lo_sum: vec![0.0; channels],
            hi_sum: vec![0.0; channels],
            inputs: 0,
        }
    }

    /// Widens the ranges by the rows of one input.
    pub fn add(&mut self, rows: &[f32]) {
        let channels = self.lo.len();
        let (mut lo, mut hi) = (vec![0.0f32; channels], vec![0.0f32; channels]);
        vectorised(|| {
            for row in rows.chunks_exact(channels.max(1)) {
                for ((x, lo), hi) in row.iter().zip(&mut lo).zip(&mut hi) {
                    *lo = lo.min(*x);
                    *hi = hi.max(*x);
                }
            }
        });
        self.merge(&Channels {
            lo_sum: lo.clone(),
            hi_sum: hi.clone(),
            lo,
            hi,
            inputs: 1,
        });
    }

    /// Lower and upper end of each channel in an input on average: what one odd input cannot stretch.
    fn typical(&self) -> (Vec<f32>, Vec<f32>) {
        let inputs = self.inputs.max(1) as f32;
        let mean = |sums: &[f32]| sums.iter().map(|s| s / inputs).collect();
        (mean(&self.lo_sum), mean(&self.hi_sum))
    }

    /// Widens the ranges by others.
    pub fn merge(&mut self, other: &Channels) {
        self.lo
            .iter_mut()
            .zip(&other.lo)
            .for_each(|(a, b)| *a = a.min(*b));
        self.hi
            .iter_mut()
            .zip(&other.hi)
            .for_each(|(a, b)| *a = a.max(*b));
        let add = |a: &mut [f32], b: &[f32]| a.iter_mut().zip(b).for_each(|(a, b)| *a += b);
        add(&mut self.lo_sum, &other.lo_sum);
        add(&mut self.hi_sum, &other.hi_sum);
        self.inputs += other.inputs;
    }

    /// Range of the whole activation behind a fold.
    pub fn folded(&self, fold: &Fold) -> (f32, f32) {
        let end = |values: &[f32], pick: fn(f32, f32) -> f32| {
            values
                .iter()
                .zip(&fold.shift)
                .zip(&fold.r)
                .map(|((x, s), r)| (x + s) / r)
                .fold(0.0, pick)
        };
        (end(&self.lo, f32::min), end(&self.hi, f32::max))
    }
}

/// A per-channel affine change of an activation that its reader undoes.
#[derive(Clone, Debug, PartialEq)]
pub struct Fold {
    /// `[channels]`, > 0
    pub r: Vec<f32>,
    /// `[channels]`
    pub shift: Vec<f32>,
}

impl Fold {
    /// Nothing changes.
    pub fn identity(channels: usize) -> Fold {
        Fold {
            r: vec![1.0; channels],
            shift: vec![0.0; channels],
        }
    }

    /// Whether nothing changes.
    pub fn is_identity(&self) -> bool {
        self.r.iter().all(|&r| r == 1.0) && self.shift.iter().all(|&s| s == 0.0)
    }

    /// RepQ-ViT's fold for `bits` from the range of each channel, its `r` to the power `strength` (1: the paper).
    /// The paper takes percentiles over all inputs; the mean of the inputs' ranges needs no sorting and is as robust.
    pub fn repq(channels: &Channels, bits: u32, strength: f32) -> Fold {
        let codes = ((1u32 << bits) - 1) as f32;
        let (lo, hi) = channels.typical();
        let channels = lo.len();
        let scale: Vec<f32> = lo
            .iter()
            .zip(&hi)
            .map(|(lo, hi)| (hi - lo) / codes)
            .collect();
        let mean = scale.iter().sum::<f32>() / channels as f32;
        if mean <= 0.0 {
            return Fold::identity(channels);
        }
        // A channel that hardly moves would blow its weights' column down to nothing; a hundredth of the mean is enough.
        let scale: Vec<f32> = scale.into_iter().map(|s| s.max(mean * 0.01)).collect();
        let zero: Vec<f32> = lo
            .iter()
            .zip(&scale)
            .map(|(lo, s)| (-lo / s).round())
            .collect();
        let zero_mean = (zero.iter().sum::<f32>() / channels as f32).round();
        Fold {
            r: scale.iter().map(|s| (s / mean).powf(strength)).collect(),
            shift: scale
                .iter()
                .zip(&zero)
                .map(|(s, z)| s * (z - zero_mean))
                .collect(),
        }
    }

    /// What [`Fold::repq`] is where nothing can take a shift: the larger end of every channel comes to their mean.
    pub fn peaks(channels: &Channels, strength: f32) -> Fold {
        let (lo, hi) = channels.typical();
        let peak: Vec<f32> = lo.iter().zip(&hi).map(|(lo, hi)| hi.max(-lo)).collect();
        let mean = peak.iter().sum::<f32>() / peak.len() as f32;
        if mean <= 0.0 {
            return Fold::identity(peak.len());
        }
        // As in `repq`: a channel that hardly moves keeps a hundredth of the mean.
        let r = peak.iter().map(|p| (p / mean).max(0.01).powf(strength));
        Fold {
            r: r.collect(),
            shift: vec![0.0; peak.len()],
        }
    }

    /// A scale per channel for an activation that no affine operator precedes (SmoothQuant's idea, channels above the median
    /// only): `r = (max|x_j| / median)^strength`, at least 1.
    pub fn outliers(channels: &Channels, strength: f32) -> Fold {
        let (lo, hi) = channels.typical();
        let peak: Vec<f32> = lo.iter().zip(&hi).map(|(lo, hi)| hi.max(-lo)).collect();
        let channels = peak.len();
        let mut sorted = peak.clone();
        sorted.sort_unstable_by(f32::total_cmp);
        let median = sorted.get(channels / 2).copied().unwrap_or(0.0);
        if median <= 0.0 {
            return Fold::identity(channels);
        }
        Fold {
            r: peak
                .iter()
                .map(|p| (p / median).max(1.0).powf(strength))
                .collect(),
            shift: vec![0.0; channels],
        }
    }

    /// Changes rows of the activation.
    pub fn apply(&self, rows: &mut [f32]) {
        if self.is_identity() {
            return;
        }
        let inverse: Vec<f32> = self.r.iter().map(|r| 1.0 / r).collect();
        vectorised(|| {
            for row in rows.chunks_exact_mut(self.r.len()) {
                for ((x, s), r) in row.iter_mut().zip(&self.shift).zip(&inverse) {
                    *x = (*x + s) * r;
                }
            }
        });
    }

    /// Changes the reader: `W' [out, in]`, `b' [out]`.
    pub fn apply_linear(&self, weight: &mut [f32], bias: &mut [f32]) {
        for (row, b) in weight.chunks_exact_mut(self.r.len()).zip(bias) {
            *b -= crate::linalg::dot(row, &self.shift) as f32;
            for (w, r) in row.iter_mut().zip(&self.r) {
                *w *= r;
            }
        }
    }

    /// New affine parameters of the norm, if anything changes.
    pub fn norm_plan(&self, graph: &Graph, norm: &Norm) -> Option<NormPlan> {
        if self.is_identity() {
            return None;
        }
        let parameter = |i: usize| {
            graph
                .input(norm.node, i)
                .and_then(|v| graph.tensor(v)?.to_f32().ok())
        };
        let gamma = parameter(norm.scale)?;
        let beta = norm.shift.and_then(parameter);
        let beta = beta.unwrap_or_else(|| vec![0.0; gamma.len()]);
        Some(NormPlan {
            norm: norm.name.clone(),
            gamma: gamma.iter().zip(&self.r).map(|(g, r)| g / r).collect(),
            beta: beta
                .iter()
                .zip(&self.shift)
                .zip(&self.r)
                .map(|((b, s), r)| (b + s) / r)
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests;
