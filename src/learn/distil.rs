//! Distillation (Hinton et al., arXiv 1503.02531): the quantised network, from its closed-form plan on, learns to give what its float original
//! gives on unlabelled samples and random crops of them (multi-crop distillation, arXiv 2307.00331 §4.1). The teacher is at hand, so
//! that each crop is a new one and its labels are the teacher's values, where the paper stores the best five classes of a few crops.
//!
//! What is learned: latent weights (straight through the rounding), each row's scale, biases, each activation's step, low-rank branches.
//! Some samples are held out; where learning brings the network no nearer to the teacher on them, the plan's own numbers are kept.

use std::ops::Range;

use candle_core::Tensor;
use rayon::prelude::*;
use vitq_passes::ir::Graph;
use vitq_passes::plan::Plan;
use vitq_passes::structure::Structure;

use super::LearnError;
use super::crop::crop;
use super::draw::{Draw, Random};
use super::kernels::{Drop, read};
use super::loss::{Loss, loss};
use super::network::{Value, Values};
use super::pair::Pair;
use super::state::{Leaves, Rates, State};
use crate::calibrate::{Feeds, Progress};
use crate::report::{Check, Course};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Options {
    /// Steps.
    pub steps: usize,
    /// Crops a step.
    pub batch: usize,
    /// Share of activations that stay float while the network learns (QDrop).
    pub drop: f32,
    /// How fast each kind of number is learned.
    pub rates: Rates,
    /// Seed of order, crops and dropped roundings.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            steps: 600,
            batch: 8,
            drop: 0.0,
            rates: Rates {
                weight: 0.015,
                scale: 1e-3,
                bias: 0.01,
                step: 2e-3,
                branch: 0.01,
            },
            seed: 0,
        }
    }
}

/// Of how many samples one is held out.
const HELD_OUT: usize = 8;
/// Share of crops; the others are seen whole, as they will be. Of crops alone the digits model learned nothing for whole digits.
const CROPPED: f32 = 0.5;
/// Checks after the first.
const CHECKS: usize = 20;

/// Improves the numbers of a plan that was made for `graph`.
///
/// # Errors
/// An operator has no gradient, a sample cannot be read, there are too few, or the loss is no number.
pub fn distil(
    (graph, structure): (&Graph, &Structure),
    plan: &mut Plan,
    feeds: &dyn Feeds,
    options: &Options,
    progress: &dyn Progress,
) -> Result<Course, LearnError> {
    if feeds.len() < 2 {
        return Err(LearnError::TooFew(feeds.len()));
    }
    let pair = Pair::new((graph, structure), plan, &feeds.feed(0)?, &options.rates)?;
    let is_held_out = |i: &usize| i % HELD_OUT == HELD_OUT.min(feeds.len()) - 1;
    let (held_out, learned_from) = (0..feeds.len()).partition::<Vec<_>, _>(is_held_out);
    let mut student = Student {
        pair,
        feeds,
        options,
        held_out,
    };
    let course = student.learn(&learned_from, progress)?;
    student.pair.write(plan);
    Ok(course)
}

struct Student<'a> {
    pair: Pair<'a>,
    feeds: &'a dyn Feeds,
    options: &'a Options,
    held_out: Vec<usize>,
}

/// Loss and gradients of crops, by site and leaf.
type Gradients = (f64, Vec<Vec<Vec<f32>>>);

impl Student<'_> {
    fn learn(&mut self, samples: &[usize], progress: &dyn Progress) -> Result<Course, LearnError> {
        let steps = self.options.steps;
        let every = steps.div_ceil(CHECKS).max(1);
        progress.stage("learning", steps as u64);
        let mut draw = Draw::new(samples, self.options.seed);
        let mut checks = vec![self.check(0, None)?];
        let before = self.pair.quantised.states.clone();
        for from in (0..steps).step_by(every) {
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
            checks.push(check);
        }
        // Between the ends the pace is too high for one check to mean much.
        let gained = checks
            .last()
            .is_some_and(|last| last.held_out < checks[0].held_out);
        if !gained {
            self.pair.quantised.states = before;
        }
        Ok(Course {
            checks,
            kept: gained,
            samples: (samples.len(), self.held_out.len()),
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
                return Err(LearnError::NotFinite(t + 1));
            }
            let factor = pace((t + 1) as f32 / self.options.steps as f32);
            let states = self.pair.quantised.states.iter_mut();
            for (state, gradients) in states.zip(&gradients) {
                state.step(gradients, t + 1, factor);
            }
            sum += loss / crops.len() as f64;
            progress.advance(1);
        }
        Ok(sum / steps.len().max(1) as f64)
    }

    /// How near the network is on samples that it does not learn from.
    fn check(&mut self, step: usize, mean_loss: Option<f64>) -> Result<Check, LearnError> {
        let leaves = self.pair.quantised.leaves(false)?;
        let losses = self.held_out.par_iter().map(|&i| {
            let inputs = self.pair.inputs(&self.feeds.feed(i)?)?;
            let loss = self.loss(&inputs, &leaves, Drop::NONE)?;
            let value = loss.sum.to_scalar::<f32>();
            let value = value.map_err(|e| LearnError::step(&e))?;
            Ok((f64::from(value), loss.agrees))
        });
        let losses = losses.collect::<Result<Vec<_>, LearnError>>()?;
        let count = losses.len() as f64;
        let votes: Option<Vec<bool>> = losses.iter().map(|(_, agrees)| *agrees).collect();
        let share = |votes: Vec<bool>| votes.iter().filter(|v| **v).count() as f64 / count;
        Ok(Check {
            step,
            loss: mean_loss,
            held_out: losses.iter().map(|(loss, _)| loss).sum::<f64>() / count,
            agreement: votes.map(share),
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

    fn loss(&self, inputs: &Values, leaves: &[Leaves], drop: Drop) -> Result<Loss, LearnError> {
        let float = self.pair.teach(inputs)?;
        let quantised = self.pair.try_out(inputs, leaves, drop)?;
        let compared = (&self.pair.outputs[..], &self.pair.features[..]);
        loss(compared, &quantised, &float).map_err(|e| LearnError::step(&e))
    }

    /// Loss and gradients of a step, added up in the samples' order, whatever the number of threads.
    fn gradients(&self, samples: &[usize], step: u64) -> Result<Gradients, LearnError> {
        let leaves = self.pair.quantised.leaves(true)?;
        let numbered: Vec<(usize, usize)> = samples.iter().copied().enumerate().collect();
        let mut sum: Option<Gradients> = None;
        // A few at a time, as each sample's gradients are as large as the weights.
        for some in numbered.chunks(4) {
            let parts = some.par_iter().map(|&(place, sample)| {
                let random = Random::new(&[self.options.seed, step, place as u64]);
                self.gradients_of(sample, &leaves, random)
            });
            for part in parts.collect::<Result<Vec<_>, _>>()? {
                sum = Some(match sum {
                    None => part,
                    Some(sum) => add(sum, &part),
                });
            }
        }
        sum.ok_or(LearnError::TooFew(0))
    }

    fn gradients_of(
        &self,
        sample: usize,
        leaves: &[Leaves],
        mut random: Random,
    ) -> Result<Gradients, LearnError> {
        let mut inputs = self.pair.inputs(&self.feeds.feed(sample)?)?;
        let cropped = random.unit() < CROPPED;
        for value in inputs.values_mut() {
            if let Value::Float(image) = value
                && image.rank() == 4
                && cropped
            {
                *image = crop(image, &mut random).map_err(|e| LearnError::step(&e))?;
            }
        }
        let drop = Drop {
            seed: random.bits(),
            probability: self.options.drop,
        };
        let loss = self.loss(&inputs, leaves, drop)?;
        backward(&loss.sum, leaves).map_err(|e| LearnError::step(&e))
    }
}

/// Share of the rate at a place 0..1 of the way: up along a line, as Adam knows nothing of the gradients' size yet, and down
/// along a cosine.
fn pace(place: f32) -> f32 {
    const WARM: f32 = 0.05;
    (place / WARM).min(1.0) * 0.5 * (1.0 + (std::f32::consts::PI * place).cos())
}

fn backward(loss: &Tensor, leaves: &[Leaves]) -> candle_core::Result<Gradients> {
    let store = loss.backward()?;
    let of = |leaf: &Tensor| match store.get(leaf) {
        Some(gradient) => read(gradient, <[f32]>::to_vec),
        None => Ok(vec![0.0; leaf.elem_count()]),
    };
    let sites = leaves.iter().map(|leaves| {
        let learned = leaves.learned().iter();
        learned.map(of).collect::<candle_core::Result<Vec<_>>>()
    });
    let gradients = sites.collect::<candle_core::Result<Vec<_>>>()?;
    Ok((f64::from(loss.to_scalar::<f32>()?), gradients))
}

fn add((loss, mut sites): Gradients, (other, parts): &Gradients) -> Gradients {
    for (sum, part) in sites.iter_mut().flatten().zip(parts.iter().flatten()) {
        sum.iter_mut().zip(part).for_each(|(s, p)| *s += p);
    }
    (loss + other, sites)
}
