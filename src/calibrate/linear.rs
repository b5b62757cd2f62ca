//! A Linear or patch embedding: fold, activation quantiser, weight codes, bias.

use rayon::prelude::*;
use tract_onnx::prelude::{Tensor, TractError};
use vitq_passes::ir::Graph;
use vitq_passes::plan::{Activation, Decision, LinearPlan, LowRank, Plan, Weight};
use vitq_passes::structure::{Site, SiteKind};
use vitq_passes::target;

use super::branch;
use super::fold::{Channels, Fold};
use super::migrate::Migration;
use super::moments::{Moments, Source, by_group, over_lanes};
use super::operand::{rows, sample};
use super::sensitivity::Rounded;
use super::{Branch, CalibrateError, Calibration, Part, Ranks, SiteReport};
use crate::linalg::{add_gemm_nt, gemm_nt, square_sum};
use crate::quant::{self, FLOAT_BITS, Histogram, Points};
use crate::run::vector::all_finite;
use crate::solve::{Grid, descend, gptq, pairs, refit, round_to_nearest, shrunk};
use crate::walk::{SiteOutput, Walk, World};

/// How far `H` is drawn towards its diagonal, and that towards its mean: far above GPTQ's 0.01, as 32 images are few. On 68
/// images that were not calibrated on, ViT-Tiny W4A8 gave 10.2 dB with 0.01, 10.6 with 0.1, 10.7 with 0.3, 10.5 with 1 (of
/// the mean alone), and 11.0 with 0.3 of both.
const DAMPING: f32 = 0.3;

/// Ridge of the re-fit, in units of the mean diagonal of `H`: strong, as tokens of one image are far from independent.
const RIDGE: f32 = 3.0;

/// Error of a weaker fold, in units of the least, up to which it is preferred. On 68 images that were not calibrated on,
/// ViT-Tiny W4A8 gave 11.0 dB with a preference of 1, 11.3 with 1.1, 11.1 with 1.25, and W4A4 (all) 6.0, 5.7 and 5.1.
const FOLD_PREFERENCE: f64 = 1.1;

/// Weight and bias of a Linear or patch embedding.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// `[out, in]`
    pub weight: Vec<f32>,
    /// `[out]`, zeros where there is none.
    pub bias: Vec<f32>,
    /// `in`
    pub k: usize,
}

impl Parameters {
    /// Reads them from the graph; `None` at an attention product.
    pub fn load(graph: &Graph, site: &Site) -> Result<Option<Parameters>, CalibrateError> {
        let Some(parameters) = &site.parameters else {
            return Ok(None);
        };
        let read = |value| {
            graph
                .tensor(value)
                .and_then(|t| t.to_f32().ok())
                .ok_or_else(|| CalibrateError::Parameters {
                    site: site.name.clone(),
                    tensor: graph.name(value).to_owned(),
                })
        };
        let (k, out) = (parameters.inputs, parameters.outputs);
        let stored = read(parameters.weight)?;
        let weight = if site.kind == SiteKind::PatchEmbed {
            stored
        } else {
            transpose(&stored, k, out)
        };
        let bias = parameters.bias.map_or_else(|| Ok(vec![0.0; out]), read)?;
        let bias = if bias.len() == out {
            bias
        } else {
            vec![bias.first().copied().unwrap_or(0.0); out]
        };
        Ok(Some(Parameters { weight, bias, k }))
    }

    /// Number of rows.
    pub fn out(&self) -> usize {
        self.bias.len()
    }

    /// The same behind a fold.
    pub fn folded(&self, fold: &Fold) -> Parameters {
        let mut folded = self.clone();
        if !fold.is_identity() {
            fold.apply_linear(&mut folded.weight, &mut folded.bias);
        }
        folded
    }

    /// `x·Wᵀ + b`, `[rows, out]`.
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut y = self.bias.repeat(x.len() / self.k);
        self.add_product(x, &mut y);
        y
    }

    /// `y += x·Wᵀ`
    fn add_product(&self, x: &[f32], y: &mut [f32]) {
        add_gemm_nt(y, x, &self.weight, x.len() / self.k, self.k, self.out());
    }

    /// `Σ_o w_oj²`: what an error in input channel `j` costs at the output.
    fn column_energy(&self) -> Vec<f32> {
        let mut energy = vec![0.0f32; self.k];
        for row in self.weight.chunks_exact(self.k) {
            for (e, w) in energy.iter_mut().zip(row) {
                *e += w * w;
            }
        }
        energy
    }
}

/// `[rows, cols]` → `[cols, rows]`
fn transpose(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    /// Side of the squares that are turned one after the other, so that both sides stay in the cache.
    const TILE: usize = 16;
    let mut out = vec![0.0; values.len()];
    for (r0, c0) in (0..rows)
        .step_by(TILE)
        .flat_map(|r| (0..cols).step_by(TILE).map(move |c| (r, c)))
    {
        for c in c0..cols.min(c0 + TILE) {
            for r in r0..rows.min(r0 + TILE) {
                out[c * rows + r] = values[r * cols + c];
            }
        }
    }
    out
}

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
    bias: Vec<f32>,
    /// The branch beside the codes.
    low_rank: Option<LowRank>,
    /// Share of the noise at the output that each rank of a branch takes away, falling; empty unless branches are asked for.
    pub carried: Vec<f64>,
    /// What of it is rounded.
    rounded: Rounded,
}

impl Solved {
    /// The quantised site on rows of its (unfolded) input.
    fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut y = self.bias.repeat(x.len() / self.fold.r.len());
        self.add_product(x, &mut y);
        y
    }

    /// Adds the product, and the branch's, to the bias.
    fn add_product(&self, x: &[f32], y: &mut [f32]) {
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
    fn branch(&self, tokens: usize) -> Option<Branch> {
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
    /// Decides a Linear and gives all lanes its result.
    pub(super) fn linear(
        &mut self,
        walk: &mut Walk<'_>,
        index: usize,
        report: &mut SiteReport,
    ) -> Result<Decision, CalibrateError> {
        let site = &self.structure.sites[index];
        let Some(k) = self.parameters[index].as_ref().map(|p| p.k) else {
            return self.keep_float(walk, index, "its weight is no constant".into());
        };
        let float = sample(walk, site, k, self.recipe.rows, World::Float)?;
        let channels = self.channels(walk, site, k)?;
        let upstream = self.upstream_fold(walk, index, &channels)?;
        let fold = upstream.clone().unwrap_or_else(|| Fold::identity(k));
        let solved = self.solve(walk, index, &fold, &channels, self.settings.bits(site))?;
        report.output_sqnr_db = Some(self.local_sqnr(index, &solved, &float));
        let tokens = self.tokens(walk, site, k)? / walk.len().max(1);
        report.macs = Some((tokens * k * solved.bias.len()) as u64);
        report.low_rank = solved.branch(tokens);
        let Some(guard) = self.guard.take() else {
            return self.keep(walk, index, &solved, upstream.is_some());
        };
        // While one core looks whether the site is harmless, the others go on as if it were.
        let mut ahead = walk.clone();
        let (glance, decision) = rayon::join(
            || guard.glance(self, walk, index, &solved),
            || self.keep(&mut ahead, index, &solved, upstream.is_some()),
        );
        if let Some(db) = glance? {
            report.network_sqnr_db = Some(db);
            self.guard = Some(guard);
            *walk = ahead;
            return decision;
        }
        drop(ahead);
        let choice = guard.judge(
            self,
            walk,
            index,
            solved,
            &channels,
            upstream.is_some(),
            report,
        );
        self.guard = Some(guard);
        match choice? {
            Choice::Float(reason) => {
                report.low_rank = None;
                self.keep_float(walk, index, reason)
            }
            Choice::Keep(solved) => {
                report.low_rank = solved.branch(tokens);
                self.keep(walk, index, &solved, upstream.is_some())
            }
        }
    }

    /// Goes on with the site quantised like this.
    fn keep(
        &self,
        walk: &mut Walk<'_>,
        index: usize,
        solved: &Solved,
        folded_upstream: bool,
    ) -> Result<Decision, CalibrateError> {
        walk.complete(|walk, lane| self.output(walk, index, lane, Some(solved)))?;
        Ok(Decision::Linear(solved.plan(folded_upstream)))
    }

    /// The world that quantisers are chosen in.
    pub(super) fn world(&self) -> World {
        if self.recipe.sequential {
            World::Quantised
        } else {
            World::Float
        }
    }

    /// Range of each input channel over all tokens; fails where one is no number, before anything is chosen on it.
    pub(super) fn channels(
        &self,
        walk: &Walk<'_>,
        site: &Site,
        k: usize,
    ) -> Result<Channels, CalibrateError> {
        over_lanes(
            walk.len(),
            || Channels::new(k),
            |channels, lane| {
                let rows = rows(walk, site, k, lane, self.world())?;
                if !all_finite(&rows) {
                    return Err(CalibrateError::NotFinite {
                        site: site.name.clone(),
                    });
                }
                channels.add(&rows);
                Ok(())
            },
            Channels::merge,
        )
    }

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

    /// Tokens that reach the site over all lanes.
    fn tokens(&self, walk: &Walk<'_>, site: &Site, k: usize) -> Result<usize, CalibrateError> {
        Ok(walk.len() * rows(walk, site, k, 0, World::Float)?.len() / k.max(1))
    }

    fn activation(&self, points: &Points, bits: u32) -> Activation {
        if self.settings.target_codes == target::Codes::Symmetric {
            quant::symmetric(points, bits)
        } else if self.settings.codes.codebook(bits) {
            quant::codebook(points, bits)
        } else {
            quant::uniform(points, bits)
        }
    }

    /// The grid for weights `[out, in]` whose errors in column `j` cost `cost[j]`, with a scale for each `block` inputs or row.
    fn grid(&self, w: &[f32], cost: &[f32], (bits, block): (u32, Option<usize>)) -> Grid {
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

    /// Energy at the output of rounding the weights to nearest: `Σ_oj (ŵ - w)²·Σ x_j²`; at 8 bits the expected one,
    /// `Σ_o s_o²/12 · Σ x²`.
    fn rounding_energy(&self, parameters: &Parameters, values: &[f32], bits: u32) -> f64 {
        let k = parameters.k;
        if bits == 8 {
            let steps = parameters.weight.chunks_exact(k).map(|row| {
                let scale = row.iter().fold(0.0f32, |m, w| m.max(w.abs())) / 127.0;
                f64::from(scale * scale) / 12.0
            });
            return steps.sum::<f64>() * square_sum(values);
        }
        let mut cost = vec![0.0f32; k];
        for row in values.chunks_exact(k) {
            cost.iter_mut().zip(row).for_each(|(c, x)| *c += x * x);
        }
        let grid = self.grid(&parameters.weight, &cost, (bits, None));
        let rounded = round_to_nearest(&parameters.weight, k, &grid).dequantise();
        let rows = rounded
            .chunks_exact(k)
            .zip(parameters.weight.chunks_exact(k));
        rows.map(|(q, w)| {
            let energy = q.iter().zip(w).zip(&cost);
            f64::from(energy.map(|((q, w), c)| c * (q - w) * (q - w)).sum::<f32>())
        })
        .sum()
    }

    /// dB of the site quantised alone, at its own output.
    fn local_sqnr(&self, index: usize, solved: &Solved, float: &[f32]) -> f64 {
        let Some(parameters) = &self.parameters[index] else {
            return f64::NAN;
        };
        let y = parameters.forward(float);
        sqnr(&y, &solved.forward(float))
    }

    /// The site's result in a lane; the float one where `solved` is absent.
    fn output(
        &self,
        walk: &Walk<'_>,
        index: usize,
        lane: usize,
        solved: Option<&Solved>,
    ) -> Result<SiteOutput, CalibrateError> {
        let site = &self.structure.sites[index];
        let Some(parameters) = &self.parameters[index] else {
            return self.product_output(walk, index, lane, None);
        };
        let at = |world, solved: Option<&Solved>| {
            let x = rows(walk, site, parameters.k, lane, world)?;
            match solved {
                Some(it) => shaped(site, x.shape(), &it.bias, |y| it.add_product(&x, y)),
                None => {
                    let bias = &parameters.bias;
                    shaped(site, x.shape(), bias, |y| parameters.add_product(&x, y))
                }
            }
        };
        let rounds = solved.is_some() && self.recipe.sequential;
        let quantised = (rounds || walk.differs(lane))
            .then(|| at(World::Quantised, solved))
            .transpose()?;
        Ok(SiteOutput {
            float: at(World::Float, None)?,
            quantised,
        })
    }

    /// The quantised result in place of the float one: what the rest of a float network makes of it.
    pub(super) fn alone(
        &self,
        walk: &Walk<'_>,
        index: usize,
        lane: usize,
        solved: &Solved,
    ) -> Result<SiteOutput, CalibrateError> {
        let site = &self.structure.sites[index];
        let Some(parameters) = &self.parameters[index] else {
            return self.product_output(walk, index, lane, None);
        };
        let x = rows(walk, site, parameters.k, lane, World::Float)?;
        Ok(SiteOutput {
            float: shaped(site, x.shape(), &solved.bias, |y| {
                solved.add_product(&x, y);
            })?,
            quantised: None,
        })
    }

    /// Lets the site stay float ([`Calibration::follow_folds`] changes its parameters in the end).
    pub(super) fn keep_float(
        &mut self,
        walk: &mut Walk<'_>,
        index: usize,
        reason: String,
    ) -> Result<Decision, CalibrateError> {
        walk.complete(|walk, lane| self.float_output(walk, index, lane))?;
        Ok(Decision::Float {
            reason,
            replace: None,
        })
    }

    /// Gives float sites the parameters that undo the folds of the LayerNormalizations that they read. In the end, as a site
    /// may have been left float before another reader chose the fold.
    pub(super) fn follow_folds(&self, plan: &mut Plan) {
        let sites = self.structure.sites.iter().zip(&self.parameters);
        for (site, parameters) in sites {
            let fold = site.norm.and_then(|norm| self.folds.get(&norm));
            let planned = plan.sites.iter_mut().find(|it| it.site == site.name);
            if let (Some(fold), Some(parameters), Some(planned)) = (fold, parameters, planned)
                && let Decision::Float { replace, .. } = &mut planned.decision
                && !fold.is_identity()
            {
                let folded = parameters.folded(fold);
                *replace = Some((folded.weight, folded.bias));
            }
        }
    }

    /// The float result of a Linear or product in a lane (both worlds).
    pub(super) fn float_output(
        &self,
        walk: &Walk<'_>,
        index: usize,
        lane: usize,
    ) -> Result<SiteOutput, CalibrateError> {
        self.output(walk, index, lane, None)
    }

    /// The fold that what lies before a site takes over: the LayerNormalization that it reads (decided at its first site
    /// for all of them), or the Linear that makes V.
    pub(super) fn upstream_fold(
        &mut self,
        walk: &Walk<'_>,
        index: usize,
        channels: &Channels,
    ) -> Result<Option<Fold>, CalibrateError> {
        let float_input = self.settings.bits(&self.structure.sites[index]).1 == FLOAT_BITS;
        if let Some(carrier) = self.carriers.get(&index).cloned().filter(|_| !float_input) {
            let fold = self.choose_fold(walk, &[index], index, channels, carrier.shifts)?;
            self.migrations.push(Migration {
                reader: index,
                carrier,
                fold: fold.clone(),
            });
            return Ok(Some(fold));
        }
        let Some(norm) = self.structure.sites[index].norm else {
            return Ok(None);
        };
        if self.structure.norms[norm].declined.is_some() || !self.settings.has(Part::Fold) {
            return Ok(None);
        }
        if !self.folds.contains_key(&norm) {
            let found = &self.structure.norms[norm];
            let shifts = found.shift.is_some();
            let fold = if float_input {
                Fold::identity(self.parameters[index].as_ref().map_or(1, |it| it.k))
            } else {
                self.choose_fold(walk, &found.sites, index, channels, shifts)?
            };
            self.folds.insert(norm, fold);
        }
        Ok(self.folds.get(&norm).cloned())
    }

    /// RepQ-ViT's fold at full, half or no strength: whichever leaves the least error behind all readers. `shifts`: what
    /// lies before can take a shift too.
    fn choose_fold(
        &self,
        walk: &Walk<'_>,
        readers: &[usize],
        index: usize,
        channels: &Channels,
        shifts: bool,
    ) -> Result<Fold, CalibrateError> {
        let site = &self.structure.sites[index];
        let (weight_bits, activation_bits) = self.settings.bits(site);
        let readers: Vec<&Parameters> = readers
            .iter()
            .filter_map(|&s| self.parameters[s].as_ref())
            .collect();
        let Some(k) = readers.first().map(|p| p.k) else {
            return Ok(Fold::identity(1));
        };
        let together = Parameters {
            weight: readers
                .iter()
                .flat_map(|p| p.weight.iter().copied())
                .collect(),
            bias: readers
                .iter()
                .flat_map(|p| p.bias.iter().copied())
                .collect(),
            k,
        };
        let seen = sample(walk, site, k, FOLD_ROWS, self.world())?;
        let candidates: Vec<(f64, Fold)> = [0.0, 0.5, 1.0]
            .into_par_iter()
            .map(|strength| {
                let fold = if strength == 0.0 {
                    Fold::identity(k)
                } else if !shifts {
                    Fold::peaks(channels, strength)
                } else {
                    Fold::repq(channels, activation_bits, strength)
                };
                let parameters = together.folded(&fold);
                let mut values = seen.clone();
                fold.apply(&mut values);
                let (lo, hi) = channels.folded(&fold);
                let mut histogram = Histogram::new(lo, hi);
                histogram.add(&values, &parameters.column_energy());
                let activation = self.activation(&histogram.points(), activation_bits);
                let mut error = values.clone();
                quant::apply(&activation, &mut error);
                error.iter_mut().zip(&values).for_each(|(q, x)| *q -= x);
                let behind = gemm_nt(
                    &error,
                    &parameters.weight,
                    error.len() / k,
                    k,
                    parameters.out(),
                );
                (
                    square_sum(&behind) + self.rounding_energy(&parameters, &values, weight_bits),
                    fold,
                )
            })
            .collect();
        let least = candidates
            .iter()
            .fold(f64::INFINITY, |least, (error, _)| least.min(*error));
        // The weakest that is about as good as the best: few rows flatter a strong one.
        let fold = candidates
            .into_iter()
            .find(|(error, _)| *error <= least * FOLD_PREFERENCE);
        Ok(fold.map_or_else(|| Fold::identity(k), |(_, fold)| fold))
    }
}

/// Rows that folds are compared on.
const FOLD_ROWS: usize = 128;

/// What the guard decided.
#[allow(clippy::large_enum_variant)] // One lives at a time.
pub enum Choice {
    /// Quantise like this.
    Keep(Solved),
    /// Stay float, for this reason.
    Float(String),
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
        let shift = crate::linalg::dot(w, &moments.mean)
            - crate::linalg::dot(q, &moments.mean_quantised)
            - f64::from(beside);
        b + (trust * shift) as f32
    })
    .collect()
}

/// Signal to error, dB.
pub fn sqnr(signal: &[f32], other: &[f32]) -> f64 {
    10.0 * (square_sum(signal)
        / crate::linalg::squared_distance(signal, other).max(f64::MIN_POSITIVE))
    .log10()
}

/// The bias and what `add` adds to it as `[tokens, out]`, in the shape that the network goes on with.
fn shaped(
    site: &Site,
    input: &[usize],
    bias: &[f32],
    add: impl FnOnce(&mut [f32]),
) -> Result<Tensor, CalibrateError> {
    let out = bias.len();
    let patch = site.parameters.as_ref().and_then(|p| p.patch);
    let shape = match (patch, input) {
        (Some([ph, pw]), &[n, _, h, w]) => vec![n, out, h / ph.max(1), w / pw.max(1)],
        _ => {
            let leading = &input[..input.len().saturating_sub(1)];
            [leading, &[out]].concat()
        }
    };
    let write = || {
        if site.kind == SiteKind::PatchEmbed {
            let mut result = Tensor::zero::<f32>(&shape)?;
            let mut view = result.try_as_plain_ram_mut()?;
            let y = view.as_slice_mut::<f32>()?;
            let tokens = y.len() / out / shape[0].max(1);
            let mut rows = bias.repeat(y.len() / out);
            add(&mut rows);
            for (y, rows) in y
                .chunks_exact_mut(tokens * out)
                .zip(rows.chunks_exact(tokens * out))
            {
                y.copy_from_slice(&transpose(rows, tokens, out));
            }
            return Ok(result);
        }
        let mut result = Tensor::from_shape(&[out], bias)?.broadcast_to_shape(&shape)?;
        add(result.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        Ok(result)
    };
    write().map_err(|e: TractError| {
        crate::walk::WalkError::Site {
            site: site.name.clone(),
            message: format!("{e:#}"),
        }
        .into()
    })
}
