//! What is learned at a site, and how it becomes what the plan holds.
//!
//! A weight is `ŵ = s·T[nearest(u)]` with the latent `u [out, in]` in steps of its row: `∂u = s·∂ŵ` within the range of the
//! levels (straight through the rounding), `∂s = Σ T·∂ŵ`, and `∂T_j = Σ s·∂ŵ` over the weights at level `j` of a codebook. Scales and
//! steps are learned as logarithms. At the start `u` lies on the plan's own codes, so that nothing changes unless a step is taken.

use std::borrow::Cow;

use candle_core::{Device, Result, Tensor, Var};
use rayon::prelude::*;
use serde::Serialize;
use vitq_passes::plan::{Activation, Decision, LinearPlan, LowRank, Weight};

use super::adam::Parameter;
use super::backend::{Backend, home};
use super::kernels::{self, Total};
use crate::linalg::dot;
use crate::quant;
use crate::solve::Grid;

/// How fast each kind of number is learned.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Rates {
    /// Latent weights, in steps of their grid.
    pub weight: f32,
    /// Logarithm of a scale of the weight.
    pub scale: f32,
    /// Biases, in units of what one step of the input changes.
    pub bias: f32,
    /// Logarithm of an activation's step.
    pub step: f32,
    /// Lowest level of the interval that attention weights are focused on, in steps; 0 leaves it where it is.
    pub interval: f32,
    /// Factors of a low-rank branch, relative to their size.
    pub branch: f32,
    /// Levels of a weight's codebook, in units of its grid; 0 leaves them where they are.
    pub level: f32,
}

impl Rates {
    /// The same with levels of codebooks that learn.
    pub fn with_levels(self) -> Self {
        Self {
            level: 0.05,
            ..self
        }
    }

    /// The same with weights that stay as they were rounded: what AIQViT lets learn.
    pub fn with_frozen_weights(self) -> Self {
        Self {
            weight: 0.0,
            scale: 0.0,
            level: 0.0,
            ..self
        }
    }

    /// All of them `factor` times as fast.
    pub fn times(self, factor: f32) -> Self {
        Self {
            weight: factor * self.weight,
            scale: factor * self.scale,
            bias: factor * self.bias,
            step: factor * self.step,
            interval: factor * self.interval,
            branch: factor * self.branch,
            level: factor * self.level,
        }
    }
}

/// When a step is taken, and how large it may be.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// From 1.
    pub t: usize,
    /// Share of the rates.
    pub pace: f32,
    /// Share of its distance that a latent weight is drawn to its level by, in units of the rate.
    pub damping: f32,
}

/// What is learned at a site.
#[derive(Clone, Debug)]
pub enum State {
    /// Nothing.
    Fixed(Fixed),
    /// A Linear or patch embedding.
    Linear(Box<LinearState>),
    /// Q·Kᵀ or attention·V: the steps of both quantisers.
    Product(Box<[ActivationState; 2]>),
    /// A norm in front of Linears.
    Norm(Box<NormState>),
}

/// A site that stays float.
#[derive(Clone, Debug)]
pub struct Fixed {
    /// Weight `[out, in]` and bias `[out]`; none at an attention product.
    pub parameters: Option<(Tensor, Tensor)>,
}

/// An activation's quantiser.
#[derive(Clone, Debug)]
pub struct ActivationState {
    /// As planned.
    pub quantiser: Activation,
    /// Logarithm of the step over the planned one; empty where there is none to learn.
    factor: Parameter,
    /// Lowest level in steps; empty unless the interval learns.
    first: Parameter,
}

/// A Linear or patch embedding.
#[derive(Clone, Debug)]
pub struct LinearState {
    /// Quantiser of the input.
    pub activation: ActivationState,
    /// `[in]`
    pub pre_scale: Option<Tensor>,
    planned: LinearPlan,
    grid: Grid,
    /// `u`, `[out, in]`
    units: Parameter,
    /// Logarithm of `s` over the planned one, `[out]` or `[out, blocks]`.
    scale: Parameter,
    /// `b` less the planned one in units of what a step of the input changes, `[out]`.
    bias: Parameter,
    bias_unit: Vec<f32>,
    branch: Option<BranchState>,
    /// Levels of the codebook before they are rounded to its grid, ascending; empty unless they learn.
    levels: Parameter,
    /// Code of each weight, `[out, in]`; `None` after a change from outside, and where levels learn.
    known: Option<Vec<i8>>,
    /// Sign of each code's last move, `[out, in]`.
    moved: Vec<i8>,
    /// Codes that moved back against it.
    turned_back: usize,
    k: usize,
}

/// γ and β of a LayerNormalization, so of what its readers round: `γ' = γ·e^f`, `β' = β + v·unit`. RepQ-ViT's fold in closed form,
/// learned on.
#[derive(Clone, Debug)]
pub struct NormState {
    /// As planned, `[channels]`.
    planned: (Vec<f32>, Vec<f32>),
    /// `f`, `[channels]`
    scale: Parameter,
    /// `v`, `[channels]`; empty where there is no β.
    shift: Parameter,
    /// Finest step of a reader's quantiser.
    unit: f32,
}

/// A low-rank branch.
#[derive(Clone, Debug)]
struct BranchState {
    rank: usize,
    /// How it is stored.
    bits: u32,
    /// `A`, `[r, in]`
    down: Parameter,
    /// `B`, `[out, r]`
    up: Parameter,
}

/// The tensors of a site that candle differentiates.
pub enum Leaves {
    /// A Linear's or patch embedding's.
    Linear(LinearLeaves),
    /// Steps, and the lowest level where it learns.
    Product([Tensor; 2]),
    /// γ and β `[channels]`.
    Norm([Tensor; 2]),
    /// Weight and bias, if any.
    Fixed(Option<(Tensor, Tensor)>),
}

/// Those of a Linear or patch embedding.
pub struct LinearLeaves {
    /// `[out, in]`
    pub weight: Tensor,
    /// Where the gradient of the weight is added up; `None` where that does not learn.
    pub total: Option<Total>,
    /// Bias `[out]`, step; with a branch `A` `[r, in]` and `B` `[out, r]`.
    pub others: Vec<Tensor>,
}

impl Leaves {
    /// Those that candle gives gradients for, in the order of [`State::step`]; there the weight's stands before them.
    pub fn others(&self) -> &[Tensor] {
        match self {
            Leaves::Linear(leaves) => &leaves.others,
            Leaves::Product(leaves) | Leaves::Norm(leaves) => leaves,
            Leaves::Fixed(_) => &[],
        }
    }

    /// The same with a sum of their own for the weight's gradient.
    pub fn apart(&self) -> Leaves {
        match self {
            Leaves::Linear(it) => Leaves::Linear(LinearLeaves {
                weight: it.weight.clone(),
                total: it.total.as_ref().map(|_| Total::default()),
                others: it.others.clone(),
            }),
            Leaves::Product(it) => Leaves::Product(it.clone()),
            Leaves::Norm(it) => Leaves::Norm(it.clone()),
            Leaves::Fixed(it) => Leaves::Fixed(it.clone()),
        }
    }
}

impl State {
    /// From the plan; `parameters` are the graph's own weight `[out, in]` and bias.
    pub fn new(
        decision: Option<&Decision>,
        parameters: Option<(Vec<f32>, Vec<f32>)>,
        rates: &Rates,
        device: &Device,
    ) -> Result<State> {
        let fixed = |parameters: Option<(Vec<f32>, Vec<f32>)>| {
            let tensors = parameters.map(|(weight, bias)| {
                let (out, k) = (bias.len(), weight.len() / bias.len().max(1));
                let weight = Tensor::from_vec(weight, (out, k), device)?;
                Ok::<_, candle_core::Error>((weight, Tensor::from_vec(bias, out, device)?))
            });
            Ok(State::Fixed(Fixed {
                parameters: tensors.transpose()?,
            }))
        };
        match decision {
            None => fixed(parameters),
            Some(Decision::Float { replace, .. }) => fixed(replace.clone().or(parameters)),
            Some(Decision::Linear(plan)) => Ok(State::Linear(Box::new(LinearState::new(
                plan, rates, device,
            )?))),
            Some(Decision::Product { left, right }) => Ok(State::Product(Box::new([
                ActivationState::new(left, rates).focused(rates),
                ActivationState::new(right, rates),
            ]))),
        }
    }

    /// Of a norm that stays as it is.
    pub fn nothing() -> State {
        State::Fixed(Fixed { parameters: None })
    }

    /// What the next step differentiates.
    pub fn leaves(&self, learn: bool, backend: &Backend) -> Result<Leaves> {
        let how = (learn, &backend.device);
        Ok(match self {
            State::Norm(it) => Leaves::Norm(it.leaves(how)?),
            State::Fixed(it) => Leaves::Fixed(it.parameters.clone()),
            State::Linear(it) => Leaves::Linear(it.leaves(learn, backend)?),
            State::Product(it) => Leaves::Product([it[0].leaf(how)?, it[1].leaf(how)?]),
        })
    }

    /// A step of Adam against the gradients of the leaves.
    pub fn step(&mut self, gradients: &[Vec<f32>], step: Step) {
        match (self, gradients) {
            (State::Linear(it), [weight, bias, activation, branch @ ..]) => {
                it.step(weight, bias, step);
                it.activation.step(activation, step);
                if let (Some(it), [down, up]) = (&mut it.branch, branch) {
                    it.step(down, up, step);
                }
            }
            (State::Product(it), [left, right]) => {
                it[0].step(left, step);
                it[1].step(right, step);
            }
            (State::Norm(it), [scale, shift]) => it.step(scale, shift, step),
            _ => {}
        }
    }

    /// All that is learned, by name, and what oscillation is told by.
    pub fn parts(&mut self) -> (Vec<(&'static str, &mut Parameter)>, Option<&mut Vec<i8>>) {
        match self {
            State::Fixed(_) => (Vec::new(), None),
            State::Norm(it) => {
                let it = it.as_mut();
                (
                    vec![("scale", &mut it.scale), ("shift", &mut it.shift)],
                    None,
                )
            }
            State::Product(it) => {
                let [left, right] = it.as_mut();
                let parameters = vec![
                    ("left", &mut left.factor),
                    ("interval", &mut left.first),
                    ("right", &mut right.factor),
                ];
                (parameters, None)
            }
            State::Linear(it) => {
                let it = it.as_mut();
                it.known = None;
                let mut parameters = vec![
                    ("activation", &mut it.activation.factor),
                    ("units", &mut it.units),
                    ("scale", &mut it.scale),
                    ("bias", &mut it.bias),
                    ("levels", &mut it.levels),
                ];
                if let Some(branch) = &mut it.branch {
                    parameters.extend([("down", &mut branch.down), ("up", &mut branch.up)]);
                }
                (parameters, Some(&mut it.moved))
            }
        }
    }

    /// Weights whose code moved back against its last move since this was last asked, and all weights.
    pub fn turned_back(&mut self) -> Option<(usize, usize)> {
        match self {
            State::Linear(it) => Some((std::mem::take(&mut it.turned_back), it.units.values.len())),
            _ => None,
        }
    }

    /// γ and β of a norm that learned.
    pub fn affine(&self) -> Option<(Vec<f32>, Vec<f32>)> {
        match self {
            State::Norm(it) if it.moved() => Some(it.now()),
            _ => None,
        }
    }

    /// What was learned, for the plan; `None` where nothing is learned.
    pub fn decision(&self) -> Option<Decision> {
        match self {
            State::Fixed(_) | State::Norm(_) => None,
            State::Linear(it) => Some(Decision::Linear(it.plan())),
            State::Product(it) => Some(Decision::Product {
                left: it[0].now(),
                right: it[1].now(),
            }),
        }
    }
}

impl NormState {
    /// From γ and β `[channels]`; `unit`: the finest step of a reader's quantiser.
    pub fn new(planned: (Vec<f32>, Vec<f32>), unit: f32, rates: &Rates) -> Self {
        Self {
            scale: Parameter::new(vec![0.0; planned.0.len()], rates.scale),
            shift: Parameter::new(vec![0.0; planned.1.len()], rates.bias),
            planned,
            unit,
        }
    }

    fn now(&self) -> (Vec<f32>, Vec<f32>) {
        let (scale, shift) = &self.planned;
        let scale = scale.iter().zip(&self.scale.values);
        let shift = shift.iter().zip(&self.shift.values);
        (
            scale.map(|(s, f)| s * f.exp()).collect(),
            shift.map(|(b, v)| b + v * self.unit).collect(),
        )
    }

    fn moved(&self) -> bool {
        let learned = self.scale.values.iter().chain(&self.shift.values);
        learned.into_iter().any(|v| *v != 0.0)
    }

    fn leaves(&self, how: (bool, &Device)) -> Result<[Tensor; 2]> {
        let (scale, shift) = self.now();
        let dims = [[scale.len()], [shift.len()]];
        Ok([leaf(scale, &dims[0], how)?, leaf(shift, &dims[1], how)?])
    }

    fn step(&mut self, scale: &[f32], shift: &[f32], step: Step) {
        let (now, _) = self.now();
        let logs: Vec<f32> = scale.iter().zip(&now).map(|(g, s)| g * s).collect();
        let shift: Vec<f32> = shift.iter().map(|g| g * self.unit).collect();
        self.scale.step(&logs, step.t, step.pace);
        self.shift.step(&shift, step.t, step.pace);
    }
}

impl ActivationState {
    fn new(quantiser: &Activation, rates: &Rates) -> Self {
        let learned = kernels::step(quantiser).map(|_| 0.0);
        Self {
            quantiser: quantiser.clone(),
            factor: Parameter::new(learned.into_iter().collect(), rates.step),
            first: Parameter::new(Vec::new(), rates.interval),
        }
    }

    /// Lets the interval learn where it begins, if it is one and that is asked for.
    fn focused(mut self, rates: &Rates) -> Self {
        let first = quant::first_level(&self.quantiser).filter(|_| rates.interval > 0.0);
        let first = first.map(f32::from).into_iter().collect();
        self.first = Parameter::new(first, rates.interval);
        self
    }

    fn step_now(&self) -> f32 {
        let planned = kernels::step(&self.quantiser).unwrap_or(1.0);
        self.factor
            .values
            .first()
            .map_or(planned, |f| planned * f.exp())
    }

    /// The step, and the lowest level where it learns.
    fn numbers(&self) -> Vec<f32> {
        let first = self.first.values.iter().copied();
        [self.step_now()].into_iter().chain(first).collect()
    }

    fn leaf(&self, how: (bool, &Device)) -> Result<Tensor> {
        let numbers = self.numbers();
        let count = numbers.len();
        leaf(numbers, &[count], how)
    }

    fn step(&mut self, gradient: &[f32], step: Step) {
        let now = self.step_now();
        let (scale, first) = gradient.split_at(gradient.len().min(1));
        let scale: Vec<f32> = scale.iter().map(|g| g * now).collect();
        self.factor.step(&scale, step.t, step.pace);
        self.first.step(first, step.t, step.pace);
        self.first.values.iter_mut().for_each(|m| *m = m.max(0.0));
    }

    fn now(&self) -> Activation {
        kernels::learned(&self.quantiser, &self.numbers())
    }
}

impl LinearState {
    fn new(plan: &LinearPlan, rates: &Rates, device: &Device) -> Result<Self> {
        let Weight {
            bits,
            out,
            codes,
            block,
            scale,
            table,
            ..
        } = &plan.weight;
        let (out, k) = (*out, plan.weight.inputs());
        let step = kernels::step(&plan.activation).unwrap_or(1.0);
        let scales = scale.chunks_exact(plan.weight.scales_of_row(k));
        let norms = codes.chunks_exact(k.max(1)).zip(scales).map(|(row, s)| {
            let runs = row.chunks(block.unwrap_or(k).max(1)).zip(s);
            let norms = runs.map(|(run, s)| {
                let square: f32 = run.iter().map(|&c| f32::from(c) * f32::from(c)).sum();
                s * step * square.sqrt().max(1.0)
            });
            norms.fold(0.0, f32::hypot)
        });
        let pre_scale = plan.pre_scale.as_ref();
        let branch = plan.low_rank.as_ref().map(|it| BranchState::new(it, rates));
        // Steps of a codebook are wider than one unit of its grid.
        let width = table.as_ref().map_or(1.0, |table| {
            let span = table
                .last()
                .zip(table.first())
                .map_or(1, |(a, b)| i32::from(*a) - i32::from(*b));
            span as f32 / table.len().saturating_sub(1).max(1) as f32
        });
        Ok(Self {
            activation: ActivationState::new(&plan.activation, rates),
            pre_scale: pre_scale
                .map(|values| Tensor::from_vec(values.clone(), values.len(), device))
                .transpose()?,
            grid: Grid {
                bits: *bits,
                out,
                block: *block,
                scale: scale.clone(),
                table: table.clone(),
            },
            units: Parameter::new(
                codes.iter().map(|&c| f32::from(c)).collect(),
                rates.weight * width,
            ),
            scale: Parameter::new(vec![0.0; scale.len()], rates.scale),
            bias: Parameter::new(vec![0.0; out], rates.bias),
            bias_unit: norms.collect(),
            branch,
            levels: Parameter::new(
                table
                    .iter()
                    .flatten()
                    .filter(|_| rates.level > 0.0)
                    .map(|&level| f32::from(level))
                    .collect(),
                rates.level,
            ),
            known: Some(codes.clone()),
            moved: vec![0; codes.len()],
            turned_back: 0,
            k,
            planned: plan.clone(),
        })
    }

    /// Inputs that share a scale.
    fn run(&self) -> usize {
        self.grid.block.unwrap_or(self.k).max(1)
    }

    fn scales(&self) -> Vec<f32> {
        let planned = self.grid.scale.iter().zip(&self.scale.values);
        planned.map(|(s, f)| s * f.exp()).collect()
    }

    fn codes(&self) -> Cow<'_, [i8]> {
        match &self.known {
            Some(codes) => Cow::Borrowed(codes),
            None => Cow::Owned(self.nearest()),
        }
    }

    fn nearest(&self) -> Vec<i8> {
        self.grid().nearest_of_all(&self.units.values)
    }

    /// With the levels of now.
    fn grid(&self) -> Grid {
        let levels = self.levels.values.iter().map(|level| level.round() as i8);
        let levels: Vec<i8> = levels.collect();
        let mut grid = self.grid.clone();
        if !levels.is_empty() {
            grid.table = Some(levels);
        }
        grid
    }

    fn biases(&self) -> Vec<f32> {
        let learned = self.bias.values.iter().zip(&self.bias_unit);
        let biases = self.planned.bias.iter().zip(learned);
        biases.map(|(b, (v, unit))| b + v * unit).collect()
    }

    /// Whether the weight learns anything.
    fn weight_learns(&self) -> bool {
        let parts = [&self.units, &self.scale, &self.levels];
        parts.into_iter().any(Parameter::learns)
    }

    fn leaves(&self, learn: bool, backend: &Backend) -> Result<LinearLeaves> {
        let how = (learn, &backend.device);
        let weight_learns = learn && self.weight_learns();
        let of_candle = weight_learns && backend.kernels.leaves_weights_to_candle();
        let (out, k) = (self.bias.values.len(), self.k);
        let scales = self.scales();
        let mut weight: Vec<f32> = self.codes().iter().copied().map(f32::from).collect();
        let rows = weight.chunks_exact_mut(k);
        let runs = rows.flat_map(|row| row.chunks_mut(self.run()));
        for (run, s) in runs.zip(&scales) {
            run.iter_mut().for_each(|w| *w *= s);
        }
        let mut others = vec![
            leaf(self.biases(), &[out], how)?,
            self.activation.leaf(how)?,
        ];
        if let Some(LowRank { rank, down, up, .. }) = self.branch.as_ref().map(BranchState::plan) {
            others.push(leaf(down, &[rank, k], how)?);
            others.push(leaf(up, &[out, rank], how)?);
        }
        Ok(LinearLeaves {
            weight: leaf(weight, &[out, k], (of_candle, &backend.device))?,
            total: weight_learns.then(Total::default),
            others,
        })
    }

    fn step(&mut self, weight: &[f32], bias: &[f32], step: Step) {
        if self.weight_learns() {
            self.step_weight(weight, step);
        }
        let bias = bias.iter().zip(&self.bias_unit);
        let bias: Vec<f32> = bias.map(|(g, u)| g * u).collect();
        self.bias.step(&bias, step.t, step.pace);
    }

    fn step_weight(&mut self, weight: &[f32], step: Step) {
        let Step { t, pace, damping } = step;
        let (scales, codes) = (self.scales(), self.codes().into_owned());
        let end = self.grid.table.as_ref().map_or_else(
            || ((1i32 << (self.grid.bits - 1)) - 1) as f32 + 0.5,
            |table| {
                table
                    .iter()
                    .map(|&l| f32::from(l).abs())
                    .fold(0.0, f32::max)
            },
        );
        let mut units = weight.to_vec();
        let mut logs = Vec::with_capacity(scales.len());
        let (k, run) = (self.k, self.run());
        let rows = units
            .chunks_exact_mut(k)
            .zip(codes.chunks_exact(k))
            .zip(self.units.values.chunks_exact(k));
        let runs = rows.flat_map(|((units, codes), latent)| {
            let codes = codes.chunks(run).zip(latent.chunks(run));
            units.chunks_mut(run).zip(codes)
        });
        for ((units, (codes, latent)), scale) in runs.zip(&scales) {
            let levels: Vec<f32> = codes.iter().map(|&c| f32::from(c)).collect();
            logs.push(dot(units, &levels) as f32 * scale);
            for (g, u) in units.iter_mut().zip(latent) {
                *g *= if u.abs() <= end { *scale } else { 0.0 };
            }
        }
        self.units.step(&units, t, pace);
        self.damp(pace * damping);
        let after = self.nearest();
        self.watch(&codes, &after);
        self.step_levels(weight, &codes, step);
        self.known = self.levels.values.is_empty().then_some(after);
        self.scale.step(&logs, t, pace);
    }

    /// Moves the levels of the codebook, and with them the weights that lie on them: their codes are not counted as moved.
    fn step_levels(&mut self, weight: &[f32], codes: &[i8], step: Step) {
        if self.levels.values.is_empty() {
            return;
        }
        // By code.
        let mut sums = [0.0f32; 256];
        let scales = self.scales();
        let runs = weight.chunks_exact(self.k).zip(codes.chunks_exact(self.k));
        let runs = runs.flat_map(|(g, codes)| g.chunks(self.run()).zip(codes.chunks(self.run())));
        for ((gradients, codes), scale) in runs.zip(&scales) {
            for (g, code) in gradients.iter().zip(codes) {
                sums[usize::from(code.cast_unsigned())] += g * scale;
            }
        }
        let table = self.grid().table.into_iter().flatten();
        let gradient = table.map(|level| sums[usize::from(level.cast_unsigned())]);
        let gradient: Vec<f32> = gradient.collect();
        self.levels.step(&gradient, step.t, step.pace);
        spread(&mut self.levels.values, &self.planned.weight);
    }

    /// The variation-aware regulariser (arXiv 2307.00331 §4.3): latent weights are drawn to their levels, so that fewer stand where
    /// every step turns them over. Beside the gradient and not in it, as Adam would scale the one by the other.
    fn damp(&mut self, share: f32) {
        if share > 0.0 {
            let codes = self.nearest();
            let latent = self.units.values.par_iter_mut().zip(codes);
            latent.for_each(|(u, code)| *u -= share * (*u - f32::from(code)));
        }
    }

    /// Counts codes that moved back, given those from before and after the step.
    fn watch(&mut self, before: &[i8], after: &[i8]) {
        for ((moved, before), after) in self.moved.iter_mut().zip(before).zip(after) {
            let sign = (i16::from(*after) - i16::from(*before)).signum() as i8;
            if sign != 0 {
                self.turned_back += usize::from(sign == -*moved);
                *moved = sign;
            }
        }
    }

    fn plan(&self) -> LinearPlan {
        LinearPlan {
            activation: self.activation.now(),
            weight: Weight {
                codes: self.codes().into_owned(),
                scale: self.scales(),
                table: self.grid().table,
                ..self.planned.weight.clone()
            },
            bias: self.biases(),
            low_rank: self.branch.as_ref().map(BranchState::plan),
            pre_scale: self.planned.pre_scale.clone(),
        }
    }
}

impl BranchState {
    fn new(branch: &LowRank, rates: &Rates) -> Self {
        let size = |values: &[f32]| {
            let square: f32 = values.iter().map(|v| v * v).sum();
            (square / values.len().max(1) as f32).sqrt()
        };
        // A branch that is nothing yet learns at the pace of one that is not.
        let unit = (size(&branch.down) * size(&branch.up)).sqrt().max(1e-4);
        Self {
            rank: branch.rank,
            bits: branch.bits,
            down: Parameter::new(
                branch.down.clone(),
                rates.branch * size(&branch.down).max(unit),
            ),
            up: Parameter::new(branch.up.clone(), rates.branch * size(&branch.up).max(unit)),
        }
    }

    fn step(&mut self, down: &[f32], up: &[f32], step: Step) {
        self.down.step(down, step.t, step.pace);
        self.up.step(up, step.t, step.pace);
    }

    /// As it is stored; gradients go straight through the rounding.
    fn plan(&self) -> LowRank {
        let learned = LowRank {
            rank: self.rank,
            bits: 32,
            down: self.down.values.clone(),
            up: self.up.values.clone(),
        };
        learned.stored_in(self.bits)
    }
}

/// Keeps levels a unit of the grid apart, and within the largest of the planned ones: sums of products were made to fit with those.
fn spread(levels: &mut [f32], planned: &Weight) {
    let table = planned.table.iter().flatten();
    let most = table.fold(0.0f32, |most, &level| most.max(f32::from(level).abs()));
    let mut least = -most;
    for level in levels.iter_mut() {
        *level = level.max(least);
        least = *level + 1.0;
    }
    let mut greatest = most;
    for level in levels.iter_mut().rev() {
        *level = level.min(greatest);
        greatest = *level - 1.0;
    }
}

/// Numbers to compute with, and to differentiate by where they learn.
fn leaf(values: Vec<f32>, dims: &[usize], (learn, device): (bool, &Device)) -> Result<Tensor> {
    let device = home(&values, device);
    if learn {
        return Ok(Var::from_vec(values, dims, device)?.into_inner());
    }
    Tensor::from_vec(values, dims, device)
}
