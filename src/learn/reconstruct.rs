//! Learning without labels and without the whole network: block by block, each learns to give what the float network gives behind it
//! (BRECQ, arXiv 2102.05426). What a block reads comes from the quantised blocks before it, so that it mends their errors too. Values
//! between two blocks are kept for all samples, and only one block is differentiated at a time. What errors at each token cost
//! ([`super::importance`]) tells what is near: as a mean over all tokens every block of ViT-Tiny W4A4 came nearer, and the logits went from 8.6 to 8.1 dB.
//!
//! Two methods by what learns: everything ([`Options::default`]: the weights' codes, scales, biases, steps), or what AIQViT (arXiv 2502.04628) lets
//! learn ([`Options::aiqvit`]): low-rank branches beside frozen codes, steps, biases, the interval that attention weights are focused on,
//! from easy samples to hard ones.

use std::sync::Arc;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use vitq_passes::ir::Graph;
use vitq_passes::plan::Plan;
use vitq_passes::structure::Structure;

use super::LearnError;
use super::backend::{Backend, Device};
use super::checkpoint::{Checkpoint, Kept};
use super::distil::{self, pace};
use super::draw::{Random, split};
use super::gradients;
use super::loss::{Loss, Objective, mean};
use super::network::Values;
use super::pair::{Block, Pair};
use super::state::{Leaves, Rates, State, Step};
use super::store::Store;
use super::views::View;
use crate::calibrate::{Feeds, Progress};
use crate::report::{BlockReport, Reconstruction};

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Options {
    /// Steps of each block.
    pub steps: usize,
    /// Samples a step.
    pub batch: usize,
    /// Whether samples come from easy to hard: sorted by what the block leaves of error on each, the share that is drawn from grows
    /// along a line (AIQViT's curriculum).
    pub curriculum: bool,
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
            steps: 400,
            batch: 16,
            curriculum: false,
            // One block is a smaller problem than a network, and may be learned faster.
            rates: distil::Options::default().rates.times(4.0),
            seed: 0,
            device: Device::Cpu,
        }
    }
}

impl Options {
    /// The numbers that AIQViT lets learn.
    pub fn aiqvit() -> Self {
        let usual = Self::default();
        Self {
            curriculum: true,
            rates: Rates {
                interval: 0.02,
                ..usual.rates.with_frozen_weights()
            },
            ..usual
        }
    }
}

/// Views of a sample that is learned from: itself, and some drawn at random.
const VIEWS: usize = 8;
/// Most views of all samples together, as their values are kept.
const MOST: usize = 1024;
/// Share of the samples that the curriculum begins with.
const EASY: f32 = 0.25;

/// Improves the numbers of a plan that was made for `graph`; calibration saw the first so many of the feeds.
///
/// # Errors
/// An operator has no gradient, a sample cannot be read, there are too few, or the loss is no number.
pub fn reconstruct(
    (graph, structure): (&Graph, &Structure),
    plan: &mut Plan,
    (feeds, calibrated): (&dyn Feeds, usize),
    (options, checkpoint): (&Options, Option<&Checkpoint>),
    progress: &dyn Progress,
) -> Result<Reconstruction, LearnError> {
    if feeds.len() < 2 {
        return Err(LearnError::TooFew(feeds.len()));
    }
    let backend = Backend::of(options.device)?;
    let form = (graph, structure);
    let pair = Pair::new(form, plan, &feeds.feed(0)?, &options.rates, backend)?;
    let (held_out, learned_from) = split(feeds.len(), calibrated);
    let mut builder = Builder {
        // Without a step nothing is learned from.
        seen: match options.steps {
            0 => Vec::new(),
            _ => seen(&learned_from),
        },
        pair,
        feeds,
        options,
        held_out,
        learned_from,
    };
    let kept = checkpoint.map(|it| Kept::new(it, plan, options, feeds.len()));
    let report = builder.build(kept.as_ref(), progress)?;
    builder.pair.write(plan);
    Ok(report)
}

/// How far it is.
#[derive(Serialize, Deserialize)]
pub(super) struct Course {
    /// Error and agreement of the network in closed form.
    before: (f64, Option<f64>),
    /// Those that have learned, from the first one on.
    blocks: Vec<BlockReport>,
}

/// A sample as it is learned from: its number, and the number of its view.
type Seen = (usize, usize);

/// All samples as they are, then their views.
fn seen(samples: &[usize]) -> Vec<Seen> {
    let views = (0..VIEWS).flat_map(|view| samples.iter().map(move |&it| (it, view)));
    views.take(MOST.max(samples.len())).collect()
}

struct Builder<'a> {
    pair: Pair<'a>,
    feeds: &'a dyn Feeds,
    options: &'a Options,
    held_out: Vec<usize>,
    learned_from: Vec<usize>,
    seen: Vec<Seen>,
}

/// What the blocks before made of all samples: first those held out, then those that are learned from.
struct Stores {
    float: Store,
    quantised: Store,
    /// What errors at each token cost.
    importance: Store,
}

impl Builder<'_> {
    fn build(
        &mut self,
        kept: Option<&Kept>,
        progress: &dyn Progress,
    ) -> Result<Reconstruction, LearnError> {
        let closed_form = self.pair.quantised.states.clone();
        let known = kept.map(|it| it.load_blocks(&mut self.pair.quantised.states));
        let mut course = match known.transpose()?.flatten() {
            Some(course) => course,
            None => Course {
                before: self.network()?,
                blocks: Vec::new(),
            },
        };
        self.walk(&mut course, kept, progress)?;
        let Course { before, blocks } = course;
        let after = self.network()?;
        let gained = after.0 < before.0;
        if !gained {
            self.pair.quantised.states = closed_form;
        }
        Ok(Reconstruction {
            steps: self.options.steps,
            blocks,
            before: before.0,
            after: after.0,
            agreement: before.1.zip(after.1),
            kept: gained,
            samples: (self.learned_from.len(), self.held_out.len()),
        })
    }

    /// Lets block after block learn, behind those that have.
    fn walk(
        &mut self,
        course: &mut Course,
        kept: Option<&Kept>,
        progress: &dyn Progress,
    ) -> Result<(), LearnError> {
        let blocks = Arc::clone(&self.pair.blocks);
        if course.blocks.len() >= blocks.len() {
            return Ok(());
        }
        let count = self.held_out.len() + self.seen.len();
        progress.stage("weighing tokens", count as u64);
        let backend = &self.pair.backend;
        let mut stores = Stores {
            float: Store::new(count, backend, |i| self.inputs(i))?,
            quantised: Store::new(count, backend, |i| self.inputs(i))?,
            importance: Store::new(count, backend, |i| {
                let random = Random::new(&[self.options.seed, i as u64]);
                let importance = self.pair.importance(&self.inputs(i)?, random)?;
                progress.advance(1);
                Ok(importance)
            })?,
        };
        for (number, block) in blocks.iter().enumerate() {
            let pair = &self.pair;
            let teach = |values| pair.teach_block(block, values);
            stores.float.advance(teach)?;
            if number >= course.blocks.len() {
                let name = &block.quantised.name;
                let stage = format!("{name} ({} of {})", number + 1, blocks.len());
                progress.stage(&stage, self.options.steps as u64);
                let report = self.learn(block, number, &stores, progress)?;
                tracing::info!(block = %name, before = report.before, after = report.after, report.kept, "learned");
                course.blocks.push(report);
                if let Some(kept) = kept {
                    kept.save_blocks(&mut self.pair.quantised.states, course)?;
                }
            }
            let pair = &self.pair;
            let leaves = pair.quantised.leaves_of(&block.quantised.places, false)?;
            let pass = |values| pair.pass_block(block, values, &leaves);
            stores.quantised.advance(pass)?;
        }
        Ok(())
    }

    /// The network's inputs for a place in the stores.
    fn inputs(&self, place: usize) -> Result<Values, LearnError> {
        let held_out = self.held_out.len();
        let Some((sample, view)) = place.checked_sub(held_out).map(|i| self.seen[i]) else {
            return self.pair.inputs(&self.feeds.feed(self.held_out[place])?);
        };
        if view == 0 {
            return self.pair.inputs(&self.feeds.feed(sample)?);
        }
        let mut random = Random::new(&[self.options.seed, view as u64, sample as u64]);
        let other = (random.bits() % self.learned_from.len() as u64) as usize;
        let samples = (sample, self.learned_from[other]);
        self.pair.view(self.feeds, samples, &View::new(random))
    }

    /// Error at the outputs on the samples held out, and on which share of them the network decides as the float one does.
    fn network(&self) -> Result<(f64, Option<f64>), LearnError> {
        let leaves = self.pair.quantised.leaves(false)?;
        let losses = self.held_out.par_iter().map(|&i| {
            let inputs = self.pair.inputs(&self.feeds.feed(i)?)?;
            let loss = self.pair.loss_at_outputs(&inputs, &leaves)?;
            Ok((loss.value()?, loss.agrees))
        });
        let losses = losses.collect::<Result<Vec<_>, LearnError>>()?;
        Ok(mean(&losses))
    }

    /// Lets a block learn; its numbers from before stay where it comes no nearer to the float one on samples held out.
    fn learn(
        &mut self,
        block: &Block,
        number: usize,
        stores: &Stores,
        progress: &dyn Progress,
    ) -> Result<BlockReport, LearnError> {
        let held_out: Vec<usize> = (0..self.held_out.len()).collect();
        let mean = |losses: Vec<f64>| losses.iter().sum::<f64>() / losses.len().max(1) as f64;
        let before = mean(self.errors(block, &held_out, stores)?);
        let states = &self.pair.quantised.states;
        let sites = block.quantised.places.iter();
        let unlearned: Vec<(usize, State)> = sites.map(|&it| (it, states[it].clone())).collect();
        let order = self.order(block, stores)?;
        for t in 0..self.options.steps {
            self.step(block, (number, t), &order, stores)?;
            progress.advance(1);
        }
        let after = mean(self.errors(block, &held_out, stores)?);
        let kept = after < before;
        if !kept {
            for (site, state) in unlearned {
                self.pair.quantised.states[site] = state;
            }
        }
        Ok(BlockReport {
            name: block.quantised.name.clone(),
            before,
            after,
            kept,
        })
    }

    /// Places of the samples that are learned from, easy ones first where a curriculum is asked for.
    fn order(&self, block: &Block, stores: &Stores) -> Result<Vec<usize>, LearnError> {
        let first = self.held_out.len();
        let places: Vec<usize> = (first..first + self.seen.len()).collect();
        if !self.options.curriculum {
            return Ok(places);
        }
        let errors = self.errors(block, &places, stores)?;
        let mut sorted: Vec<(f64, usize)> = errors.into_iter().zip(places).collect();
        sorted.sort_by(|a, b| a.0.total_cmp(&b.0));
        Ok(sorted.into_iter().map(|(_, place)| place).collect())
    }

    fn step(
        &mut self,
        block: &Block,
        (number, t): (usize, usize),
        order: &[usize],
        stores: &Stores,
    ) -> Result<(), LearnError> {
        let options = self.options;
        let place = (t + 1) as f32 / options.steps as f32;
        let known = match options.curriculum {
            true => known(order.len(), place),
            false => order.len(),
        };
        let mut random = Random::new(&[options.seed, number as u64, t as u64]);
        let draw = |_| order[(random.bits() % known.max(1) as u64) as usize];
        let batch: Vec<usize> = (0..options.batch.max(1)).map(draw).collect();
        let sites = &block.quantised.places;
        let leaves = self.pair.quantised.leaves_of(sites, true)?;
        let (loss, gradients) = gradients::sum(&batch, &leaves, |_, sample, leaves| {
            self.loss(block, sample, leaves, stores)
        })?;
        if !loss.is_finite() {
            return Err(LearnError::NotFinite {
                node: block.quantised.name.clone(),
                step: t + 1,
            });
        }
        let step = Step {
            t: t + 1,
            pace: pace(place),
            damping: 0.0,
        };
        // Those of other blocks have no gradients.
        let states = self.pair.quantised.states.par_iter_mut();
        let states = states.zip(&gradients);
        states.for_each(|(state, gradients)| state.step(gradients, step));
        Ok(())
    }

    /// What a block leaves of error on each sample.
    fn errors(
        &self,
        block: &Block,
        samples: &[usize],
        stores: &Stores,
    ) -> Result<Vec<f64>, LearnError> {
        let leaves = self
            .pair
            .quantised
            .leaves_of(&block.quantised.places, false)?;
        let losses = samples.par_iter();
        losses
            .map(|&sample| self.loss(block, sample, &leaves, stores)?.value())
            .collect()
    }

    fn loss(
        &self,
        block: &Block,
        sample: usize,
        leaves: &[Leaves],
        stores: &Stores,
    ) -> Result<Loss, LearnError> {
        let targets = &block.quantised.writes;
        let values = stores.quantised.read(sample, &block.quantised.reads)?;
        let float = stores.float.read(sample, targets)?;
        let importance = stores.importance.read(sample, targets)?;
        let quantised = self.pair.pass_block(block, values, leaves)?;
        let compared = (&[][..], &targets[..]);
        self.pair.compare(
            Objective::Values,
            compared,
            &quantised,
            (&float, &importance),
        )
    }
}

/// How many of `all` samples are drawn from at a place 0..1 of the way.
fn known(all: usize, place: f32) -> usize {
    let share = EASY + (1.0 - EASY) * place;
    ((share * all as f32).ceil() as usize).clamp(1, all.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curriculum_ends_with_all_samples() {
        assert_eq!(known(100, 0.0), 25);
        assert_eq!(known(100, 0.5), 63);
        assert_eq!(known(100, 1.0), 100);
        assert_eq!(known(1, 0.0), 1);
    }

    #[test]
    fn every_sample_is_seen_as_it_is_and_views_are_bounded() {
        let few: Vec<usize> = (0..3).collect();
        assert_eq!(seen(&few)[..4], [(0, 0), (1, 0), (2, 0), (0, 1)]);
        assert_eq!(seen(&few).len(), 3 * VIEWS);
        let many: Vec<usize> = (0..700).collect();
        assert_eq!(seen(&many).len(), MOST);
        assert_eq!(seen(&many)[700], (0, 1));
    }
}
