//! A Linear behind a given fold: its activation's quantiser, the weight's codes, the branch beside them and the bias.

use vitq_passes::plan::{Activation, LinearPlan, LowRank, Weight};
use vitq_passes::structure::Site;
use vitq_passes::target;

use super::branch;
use super::fold::{Channels, Fold};
use super::moments::{Moments, Source, by_group};
use super::operand::rows;
use super::parameters::Parameters;
use super::sensitivity::Rounded;
use super::{Branch, CalibrateError, Calibration, Part, Ranks};
use crate::linalg::{add_gemm_nt, dot};
use crate::quant::{self, FLOAT_BITS, Histogram, Points};
use crate::solve::{Grid, descend, gptq, pairs, refit, round_to_nearest, shrunk};
use crate::walk::Walk;

/// How far `H` is drawn towards its diagonal, and that towards its mean: far above GPTQ's 0.01, as 32 images are few. On 68
/// images that were not calibrated on, ViT-Tiny W4A8 gave 10.2 dB with 0.01, 10.6 with 0.1, 10.7 with 0.3, 10.5 with 1 (of
/// the mean alone), and 11.0 with 0.3 of both.
const DAMPING: f32 = 0.3;

/// Ridge of the re-fit, in units of the mean diagonal of `H`: strong, as tokens of one image are far from independent.
const RIDGE: f32 = 3.0;

/// A solved site: what the plan holds, and the arrays to run it.
#[derive(Clone, Debug)]
pub struct Solved {
    /// Change of the input before its quantiser.
    pub fold: Fold,
    /// The input's quantiser.
    pub activation: Activation,
    /// Codes.
    pub weight: Weight,
    /// What the codes and the branch stand for, `[out, in]`.
    dequantised: Vec<f32>,
    /// Corrected bias.
    pub(super) bias: Vec<f32>,
    /// The branch beside the codes.
    low_rank: Option<LowRank>,
    /// Share of the noise at the output that each rank of a branch takes away, falling; empty unless branches are asked for.
    pub carried: Vec<f64>,
    /// What of it is rounded.
    rounded: Rounded,
}

impl Solved {
    /// The quantised site on rows of its (unfolded) input.
    pub(super) fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut y = self.bias.repeat(x.len() / self.fold.r.len());
        self.add_product(x, &mut y);
        y
    }

    /// Adds the product, and the branch's, to the bias.
    pub(super) fn add_product(&self, x: &[f32], y: &mut [f32]) {
        let (k, out) = (self.fold.r.len(), self.bias.len());
        let mut x = x.to_vec();
        self.fold.apply(&mut x);
        let beside = self.low_rank.as_ref().map(|it| branch::forward(&x, it));
        if self.rounded != Rounded::Weight {
            quant::apply(&self.activation, &mut x);
        }
        add_gemm_nt(y, &x, &self.dequantised, x.len() / k, k, out);
        if let Some(beside) = beside {
            y.iter_mut().zip(beside).for_each(|(y, b)| *y += b);
        }
    }

    /// Price and worth of its low-rank branch.
    pub(super) fn branch(&self, tokens: usize) -> Option<Branch> {
        let LowRank { rank, .. } = self.low_rank.as_ref()?;
        let (k, out) = (self.fold.r.len(), self.bias.len());
        let total: f64 = self.carried.iter().sum();
        let rest: f64 = self.carried.iter().skip(*rank).sum();
        Some(Branch {
            rank: *rank,
            macs: (tokens * rank * (k + out)) as u64,
            gain_db: 10.0 * (total.max(f64::MIN_POSITIVE) / rest.max(1e-30 * total)).log10(),
        })
    }

    /// For the plan; `pre_scale` where the fold is not carried by a LayerNormalization.
    pub fn plan(&self, folded_upstream: bool) -> LinearPlan {
        let explicit = !folded_upstream && !self.fold.is_identity();
        LinearPlan {
            activation: self.activation.clone(),
            pre_scale: explicit.then(|| self.fold.r.iter().map(|r| 1.0 / r).collect()),
            weight: self.weight.clone(),
            bias: self.bias.clone(),
            low_rank: self.low_rank.clone(),
        }
    }
}

impl Calibration<'_> {
    /// Histograms of the folded input over all tokens of each group of lanes, an error in channel `j` weighted by what it costs at the output.
    fn histograms(
        &self,
        walk: &Walk<'_>,
        site: &Site,
        fold: &Fold,
        channels: &Channels,
        parameters: &Parameters,
    ) -> Result<Vec<Histogram>, CalibrateError> {
        let cost = parameters.column_energy();
        let (lo, hi) = channels.folded(fold);
        by_group(
            walk.len(),
            || Histogram::new(lo, hi),
            |histogram, lane| {
                let x = rows(walk, site, parameters.k, lane, self.world())?;
                if fold.is_identity() {
                    histogram.add(&x, &cost);
                } else {
                    let mut x = x.to_vec();
                    fold.apply(&mut x);
                    histogram.add(&x, &cost);
                }
                Ok(())
            },
        )
    }

    /// Solves the site behind a given fold.
    pub(super) fn solve(
        &self,
        walk: &Walk<'_>,
        index: usize,
        fold: &Fold,
        channels: &Channels,
        bits: (u32, u32),
    ) -> Result<Solved, CalibrateError> {
        let rounded = if bits.1 == FLOAT_BITS {
            Rounded::Weight
        } else {
            Rounded::Both
        };
        self.solve_part(walk, index, fold, channels, bits, rounded)
    }

    /// The same where only a part of it is to be rounded.
    pub(super) fn solve_part(
        &self,
        walk: &Walk<'_>,
        index: usize,
        fold: &Fold,
        channels: &Channels,
        (weight_bits, activation_bits): (u32, u32),
        rounded: Rounded,
    ) -> Result<Solved, CalibrateError> {
        let site = &self.structure.sites[index];
        let Some(parameters) = &self.parameters[index] else {
            return Err(CalibrateError::NoInputs);
        };
        let parameters = parameters.folded(fold);
        let tokens = self.tokens(walk, site, parameters.k)?;
        let activation = if activation_bits == FLOAT_BITS {
            Activation::Float
        } else {
            let groups = self.histograms(walk, site, fold, channels, &parameters)?;
            self.range(&groups, activation_bits, tokens)
        };
        let source = Source {
            walk,
            site,
            k: parameters.k,
            fold,
            activation: (rounded != Rounded::Weight).then_some(&activation),
            branches: self.settings.ranks != Ranks::None,
        };
        let moments = Moments::of(&source, self.recipe.solve && rounded != Rounded::Activation)?;
        if !moments
            .mean
            .iter()
            .chain(&moments.mean_quantised)
            .all(|m| m.is_finite())
        {
            return Err(CalibrateError::NotFinite {
                site: site.name.clone(),
            });
        }
        let blocks = (weight_bits, self.settings.block(site));
        let mut highest = channels.hi.clone();
        fold.apply(&mut highest);
        let tops = Some(&activation).filter(|_| self.settings.narrow_sums);
        let tops = tops.and_then(|activation| pairs::tops(activation, &highest));
        // Eight bits leave next to nothing over.
        let rank = if weight_bits < 8 {
            self.settings.ranks.of(site)
        } else {
            0
        };
        let carried = (self.settings.ranks != Ranks::None)
            .then(|| branch::carried(&parameters.weight, &moments, weight_bits))
            .flatten();
        let low_rank = carried.as_ref().and_then(|it| it.factors(rank));
        let low_rank = low_rank.filter(|_| rounded != Rounded::Activation);
        let tops = tops.as_deref();
        let (weight, low_rank) = self.weight(&parameters, &moments, blocks, tops, tokens, low_rank);
        let dequantised = match rounded {
            Rounded::Activation => parameters.weight.clone(),
            Rounded::Both | Rounded::Weight => weight.dequantise(),
        };
        let bias = if self.settings.has(Part::Bias) {
            corrected_bias(
                &parameters,
                &dequantised,
                low_rank.as_ref(),
                &moments,
                tokens,
            )
        } else {
            parameters.bias.clone()
        };
        Ok(Solved {
            fold: fold.clone(),
            activation,
            weight,
            dequantised,
            bias,
            low_rank,
            carried: carried.map_or_else(Vec::new, |it| it.energy),
            rounded,
        })
    }

    /// The activation's quantiser, wide enough for inputs that were not seen.
    pub(super) fn range(&self, groups: &[Histogram], bits: u32, tokens: usize) -> Activation {
        let chosen = self.activation(&Histogram::merged(groups).points(), bits);
        if !self.settings.has(Part::Margin) {
            return chosen;
        }
        let mut factor = margin(tokens);
        if !self.settings.codes.codebook(bits) {
            let choose = |others: &Histogram| self.activation(&others.points(), bits);
            factor = factor.max(quant::held_out_factor(groups, choose));
        }
        quant::widened(chosen, factor)
    }

    pub(super) fn activation(&self, points: &Points, bits: u32) -> Activation {
        if self.settings.target_codes == target::Codes::Symmetric {
            quant::symmetric(points, bits)
        } else if self.settings.codes.codebook(bits) {
            quant::codebook(points, bits)
        } else {
            quant::uniform(points, bits)
        }
    }

    /// The grid for weights `[out, in]` whose errors in column `j` cost `cost[j]`, with a scale for each `block` inputs or row.
    pub(super) fn grid(
        &self,
        w: &[f32],
        cost: &[f32],
        (bits, block): (u32, Option<usize>),
    ) -> Grid {
        match block {
            Some(block) => Grid::blocks(w, cost.len(), bits, cost, block),
            None if self.settings.codes.codebook(bits) => Grid::codebook(w, cost.len(), bits, cost),
            None => Grid::uniform(w, cost.len(), bits, cost),
        }
    }

    fn weight(
        &self,
        parameters: &Parameters,
        moments: &Moments,
        blocks: (u32, Option<usize>),
        tops: Option<&[f32]>,
        tokens: usize,
        branch: Option<LowRank>,
    ) -> (Weight, Option<LowRank>) {
        let k = parameters.k;
        let grid = |w: &[f32], cost: &[f32]| {
            let mut grid = self.grid(w, cost, blocks);
            if let Some(tops) = tops {
                pairs::widen(&mut grid, w, tops);
            }
            grid
        };
        // With few tokens H says little about what other inputs look like: trust it less.
        let doubt = k as f32 / tokens as f32;
        if moments.h.is_empty() {
            // Only eight bits are rounded without H, and they hardly depend on which error costs what.
            let cost = vec![1.0; k];
            let grid = grid(&parameters.weight, &cost);
            return (round_to_nearest(&parameters.weight, k, &grid), None);
        }
        let cost: Vec<f32> = (0..k).map(|i| moments.h[i * k + i]).collect();
        let ridge = RIDGE * (1.0 + 10.0 * doubt);
        let target = Some(Part::Refit)
            .filter(|part| self.settings.has(*part))
            .and_then(|_| refit(&parameters.weight, k, &moments.h, &moments.c, ridge))
            .unwrap_or_else(|| parameters.weight.clone());
        let whole = target;
        let rest = branch.as_ref().map(|it| branch::without(&whole, it));
        let target = rest.as_ref().unwrap_or(&whole);
        let grid = grid(target, &cost);
        let h = shrunk(&moments.h, k, DAMPING + 0.1 * doubt);
        let rounded = Some(Part::Gptq)
            .filter(|part| self.settings.has(*part))
            .and_then(|_| gptq(target, k, &h, &grid))
            .unwrap_or_else(|| round_to_nearest(target, k, &grid));
        let mut weight = if self.settings.has(Part::Descent) {
            descend(rounded, target, k, &h, &grid)
        } else {
            rounded
        };
        if let Some(tops) = tops {
            pairs::fit(&mut weight, tops);
        }
        let branch = branch.map(|it| {
            let fitted = branch::fitted(it, &whole, &weight.dequantise(), &h);
            fitted.stored_in(self.settings.branch_bits)
        });
        (weight, branch)
    }
}

/// How much wider than the seen range a quantiser should be: `n` tokens of a normal channel reach about `√(2·ln n)`
/// standard deviations, and four should fit. Above a few thousand tokens nothing is added.
fn margin(tokens: usize) -> f32 {
    (4.0 / (2.0 * (tokens.max(2) as f32).ln()).sqrt()).max(1.0)
}

/// `b' = b + E[W·x - Ŵ·x̂ - B·A·x̂']` with `x̂'` what `x̂` is the quantised form of: the mean error of everything before, taken away.
fn corrected_bias(
    parameters: &Parameters,
    dequantised: &[f32],
    branch: Option<&LowRank>,
    moments: &Moments,
    tokens: usize,
) -> Vec<f32> {
    let k = parameters.k;
    // A mean over few tokens is mostly noise; believe it in proportion.
    let trust = tokens as f64 / (tokens as f64 + 256.0);
    let beside = branch.map_or_else(
        || vec![0.0; parameters.out()],
        |it| branch::forward(&moments.mean_before, it),
    );
    let rows = parameters
        .weight
        .chunks_exact(k)
        .zip(dequantised.chunks_exact(k))
        .zip(&parameters.bias)
        .zip(beside);
    rows.map(|(((w, q), b), beside)| {
        let shift = dot(w, &moments.mean) - dot(q, &moments.mean_quantised) - f64::from(beside);
        b + (trust * shift) as f32
    })
    .collect()
}
