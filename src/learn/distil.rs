//! Distillation (Hinton et al., arXiv 1503.02531): the quantised network, from its closed-form plan on, learns to give what its float original
//! gives on unlabelled samples and random views of them ([`super::views`]; multi-crop distillation, arXiv 2307.00331 §4.1). The teacher is at hand, so
//! that each view is a new one and its labels are the teacher's values, where the paper stores the best five classes of a few crops.
//!
//! What is learned: latent weights (straight through the rounding), each row's scale, biases, each activation's step, the affine parameters
//! of the LayerNormalizations before them, low-rank branches.
//! Some samples are held out; where learning brings the network no nearer to the teacher on them, the plan's own numbers are kept.

use std::ops::Range;

use rayon::prelude::*;
use serde::Serialize;
use vitq_passes::ir::Graph;
use vitq_passes::plan::Plan;
use vitq_passes::structure::Structure;

use super::LearnError;
use super::backend::{Backend, Device};
use super::checkpoint::{Checkpoint, Kept};
use super::draw::{Draw, Random, split};
use super::gradients::{self, Gradients};
use super::loss::{Loss, Objective, mean};
use super::network::Values;
use super::pair::Pair;
use super::state::{Leaves, Rates, State, Step};
use super::views::View;
use crate::calibrate::{Feeds, Progress};
use crate::report::{Check, Course};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Options {
    /// Steps.
    pub steps: usize,
    /// Views a step.
    pub batch: usize,
    /// What is learned.
    pub objective: Objective,
    /// The variation-aware regulariser at its strongest: share of its distance that a latent weight is drawn to its level by a step.
    pub damping: f32,
    /// Checks without a better one than before, after which learning stops; the best one's numbers are kept then.
    pub patience: Option<usize>,
    /// How fast each kind of number is learned.
    pub rates: Rates,
    /// Seed of order and views.
    pub seed: u64,
    /// Where it is computed.
    #[serde(skip)]
    pub device: Device,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            steps: 600,
            batch: 8,
            objective: Objective::Values,
            damping: 0.0,
            patience: None,
            rates: Rates {
                weight: 0.015,
                scale: 1e-3,
                bias: 0.01,
                step: 2e-3,
                interval: 0.0,
                branch: 3e-3,
                level: 0.0,
            },
            seed: 0,
            device: Device::Cpu,
        }
    }
}

/// Checks after the first.
const CHECKS: usize = 20;

/// Improves the numbers of a plan that was made for `graph`; calibration saw the first so many of the feeds.
///
/// # Errors
/// An operator has no gradient, a sample cannot be read, there are too few, or the loss is no number.
pub fn distil(
    (graph, structure): (&Graph, &Structure),
    plan: &mut Plan,
    (feeds, calibrated): (&dyn Feeds, usize),
    (options, checkpoint): (&Options, Option<&Checkpoint>),
    progress: &dyn Progress,
) -> Result<Course, LearnError> {
    let (backend, seen) = (Backend::of(options.device)?, (feeds, calibrated));
    let how = (options, checkpoint);
    distil_on(backend, (graph, structure), plan, seen, how, progress)
}

/// The same on a device that is ready.
pub(super) fn distil_on(
    backend: Backend,
    form: (&Graph, &Structure),
    plan: &mut Plan,
    (feeds, calibrated): (&dyn Feeds, usize),
    (options, checkpoint): (&Options, Option<&Checkpoint>),
    progress: &dyn Progress,
) -> Result<Course, LearnError> {
    if feeds.len() < 2 {
        return Err(LearnError::TooFew(feeds.len()));
    }
    let pair = Pair::new(form, plan, &feeds.feed(0)?, &options.rates, backend)?;
    let (held_out, learned_from) = split(feeds.len(), calibrated);
    let mut student = Student {
        pair,
        feeds,
        options,
        learned_from: &learned_from,
        held_out,
    };
    let kept = checkpoint.map(|it| Kept::new(it, plan, options, feeds.len()));
    let course = student.learn(kept.as_ref(), progress)?;
    student.pair.write(plan);
    Ok(course)
}

/// The way so far.
pub(super) struct Road {
    pub checks: Vec<Check>,
    /// Place of the best check, and what was known there.
    pub best: (usize, Vec<State>),
}

impl Road {
    fn pass(&mut self, check: Check, states: &[State]) {
        if check.held_out < self.checks[self.best.0].held_out {
            self.best = (self.checks.len(), states.to_vec());
        }
        self.checks.push(check);
    }

    fn since_the_best(&self) -> usize {
        self.checks.len() - 1 - self.best.0
    }
}

struct Student<'a> {
    pair: Pair<'a>,
    feeds: &'a dyn Feeds,
    options: &'a Options,
    learned_from: &'a [usize],
    held_out: Vec<usize>,
}

impl Student<'_> {
    fn learn(
        &mut self,
        kept: Option<&Kept>,
        progress: &dyn Progress,
    ) -> Result<Course, LearnError> {
        let Options {
            steps, patience, ..
        } = *self.options;
        let every = steps.div_ceil(CHECKS).max(1);
        progress.stage("learning", steps as u64);
        let before = self.pair.quantised.states.clone();
        let mut road = Road {
            checks: Vec::new(),
            best: (0, before.clone()),
        };
        if let Some(kept) = kept {
            kept.load(&mut self.pair.quantised.states, &mut road)?;
        }
        if road.checks.is_empty() {
            road.checks.push(self.check(0, None)?);
        }
        let done = road.checks.last().map_or(0, |last| last.step);
        progress.advance(done as u64);
        let mut draw = Draw::new(self.learned_from, self.options.seed);
        (0..done).for_each(|_| drop(draw.batch(self.options.batch.max(1))));
        for from in (done..steps).step_by(every) {
            if patience.is_some_and(|most| road.since_the_best() >= most) {
                break;
            }
            let window = from..(from + every).min(steps);
            let loss = self.walk(window.clone(), &mut draw, progress)?;
            let check = self.check(window.end, Some(loss))?;
            tracing::info!(
                step = check.step,
                loss,
                held_out = check.held_out,
                agreement = check.agreement,
                "learned"
            );
            road.pass(check, &self.pair.quantised.states);
            if let Some(kept) = kept {
                kept.save(&mut self.pair.quantised.states, &mut road)?;
            }
        }
        let Road { checks, best } = road;
        // Without patience the last check counts: before, the pace is too high for one to mean much.
        let chosen = patience.map_or(checks.len() - 1, |_| best.0);
        let gained = checks[chosen].held_out < checks[0].held_out;
        if !gained {
            self.pair.quantised.states = before;
        } else if chosen == best.0 {
            self.pair.quantised.states = best.1;
        }
        Ok(Course {
            chosen: checks[chosen].step,
            checks,
            kept: gained,
            samples: (self.learned_from.len(), self.held_out.len()),
        })
    }

    /// Some steps; their mean loss.
    fn walk(
        &mut self,
        steps: Range<usize>,
        draw: &mut Draw<'_>,
        progress: &dyn Progress,
    ) -> Result<f64, LearnError> {
        let mut sum = 0.0;
        for t in steps.clone() {
            let crops = draw.batch(self.options.batch.max(1));
            let (loss, gradients) = self.gradients(&crops, t as u64)?;
            if !loss.is_finite() {
                return Err(self.not_finite(&crops, t + 1));
            }
            let place = (t + 1) as f32 / self.options.steps as f32;
            let step = Step {
                t: t + 1,
                pace: pace(place),
                damping: self.options.damping * damping(place),
            };
            let states = self.pair.quantised.states.par_iter_mut();
            let states = states.zip(&gradients);
            states.for_each(|(state, gradients)| state.step(gradients, step));
            sum += loss / crops.len() as f64;
            progress.advance(1);
        }
        Ok(sum / steps.len().max(1) as f64)
    }

    /// Where a loss that is no number comes from.
    fn not_finite(&self, samples: &[usize], step: usize) -> LearnError {
        let leaves = self.pair.quantised.leaves(false);
        let node = samples.iter().find_map(|&sample| {
            let inputs = self.pair.inputs(&self.feeds.feed(sample).ok()?).ok()?;
            self.pair.not_finite(&inputs, leaves.as_ref().ok()?)
        });
        let node = node.unwrap_or_else(|| "the loss itself".into());
        LearnError::NotFinite { node, step }
    }

    /// How near the network is on samples that it does not learn from.
    fn check(&mut self, step: usize, mean_loss: Option<f64>) -> Result<Check, LearnError> {
        let leaves = self.pair.quantised.leaves(false)?;
        let losses = self.held_out.par_iter().map(|&i| {
            let inputs = self.pair.inputs(&self.feeds.feed(i)?)?;
            let loss = self.loss(&inputs, &leaves)?;
            Ok((loss.value()?, loss.agrees))
        });
        let losses = losses.collect::<Result<Vec<_>, LearnError>>()?;
        let (held_out, agreement) = mean(&losses);
        Ok(Check {
            step,
            loss: mean_loss,
            held_out,
            agreement,
            oscillation: self.oscillation(),
        })
    }

    /// Share of weights that turned back since this was last asked.
    fn oscillation(&mut self) -> f64 {
        let states = self.pair.quantised.states.iter_mut();
        let (turned, all) = states
            .filter_map(State::turned_back)
            .fold((0, 0), |(a, b), (turned, all)| (a + turned, b + all));
        turned as f64 / all.max(1) as f64
    }

    fn loss(&self, inputs: &Values, leaves: &[Leaves]) -> Result<Loss, LearnError> {
        self.pair.loss(self.options.objective, inputs, leaves)
    }

    /// Loss and gradients of a step.
    fn gradients(&self, samples: &[usize], step: u64) -> Result<Gradients, LearnError> {
        let leaves = self.pair.quantised.leaves(true)?;
        gradients::sum(samples, &leaves, |place, sample, leaves| {
            let random = Random::new(&[self.options.seed, step, place as u64]);
            self.loss_of(sample, leaves, random)
        })
    }

    /// Loss of a view of the sample.
    fn loss_of(
        &self,
        sample: usize,
        leaves: &[Leaves],
        mut random: Random,
    ) -> Result<Loss, LearnError> {
        let other = (random.bits() % self.learned_from.len() as u64) as usize;
        let samples = (sample, self.learned_from[other]);
        let inputs = self.pair.view(self.feeds, samples, &View::new(random))?;
        self.loss(&inputs, leaves)
    }
}

/// Share of the rate at a place 0..1 of the way: up along a line, as Adam knows nothing of the gradients' size yet, and down
/// along a cosine.
pub(super) fn pace(place: f32) -> f32 {
    const WARM: f32 = 0.05;
    (place / WARM).min(1.0) * 0.5 * (1.0 + (std::f32::consts::PI * place).cos())
}

/// Share of the regulariser: none for a quarter of the way, then up along half a cosine (arXiv 2307.00331 §4.3).
fn damping(place: f32) -> f32 {
    const FROM: f32 = 0.25;
    let on = ((place - FROM) / (1.0 - FROM)).max(0.0);
    0.5 * (1.0 - (std::f32::consts::PI * on).cos())
}
