//! A float network in which one site at a time is quantised, under several settings, and its outputs are compared.

use std::collections::HashMap;

use vitq_passes::ir::Graph;
use vitq_passes::structure::{Site, Structure};

use super::fold::{Channels, Fold};
use super::guard::Guard;
use super::operand::tensor;
use super::product::{Rounding, heads};
use super::solution::Solved;
use super::{CalibrateError, Calibration, Feeds, Progress, Settings};
use crate::walk::{Program, Walk, World};

/// The walk's state, and what differs between the settings.
pub struct Bench<'a> {
    /// The settings in force are those of [`Bench::under`].
    pub state: Calibration<'a>,
    guard: Guard,
    /// Each with the folds that were chosen for it.
    settings: Vec<(&'a Settings, HashMap<usize, Fold>)>,
}

/// What [`at_each_site`] gives.
pub struct Asked<T> {
    /// Inputs that the outputs are compared on: the first ones of calibration.
    pub inputs: usize,
    /// The answers, in the graph's order.
    pub sites: Vec<T>,
}

/// Walks the float network and asks at each site that `chosen` names; outputs are compared on the first `inputs`.
///
/// # Errors
/// There are no inputs or no settings, an input cannot be read, or the float graph cannot be run.
pub fn at_each_site<T>(
    (graph, structure, feeds): (&Graph, &Structure, &dyn Feeds),
    (settings, inputs): (&[Settings], usize),
    progress: &dyn Progress,
    chosen: impl Fn(&Site) -> bool,
    ask: impl Fn(&mut Bench<'_>, &Walk<'_>, usize) -> Result<T, CalibrateError>,
) -> Result<Asked<T>, CalibrateError> {
    let Some(first) = settings.first().filter(|_| !feeds.is_empty()) else {
        return Err(CalibrateError::NoInputs);
    };
    let program = Program::new(graph, structure, &feeds.feed(0)?, first.executor)?;
    let mut walk = Walk::start(&program, feeds.len(), |i| {
        feeds.feed(i).map_err(CalibrateError::from)
    })?;
    let state = Calibration::new(graph, structure, first)?;
    let mut bench = Bench {
        guard: Guard::new(&state, &walk, inputs)?,
        state,
        settings: settings
            .iter()
            .map(|settings| (settings, HashMap::new()))
            .collect(),
    };
    progress.stage("measure", structure.sites.len() as u64);
    let mut sites = Vec::new();
    while let Some(index) = walk.advance()? {
        let carrier = bench.state.carrier(&walk, index)?;
        bench.state.carriers.extend(carrier);
        if chosen(&structure.sites[index]) {
            sites.push(ask(&mut bench, &walk, index)?);
        }
        walk.complete(|walk, lane| bench.state.float_output(walk, index, lane))?;
        progress.advance(1);
    }
    Ok(Asked {
        inputs: bench.guard.inputs(),
        sites,
    })
}

impl Bench<'_> {
    /// Number of settings.
    pub fn len(&self) -> usize {
        self.settings.len()
    }

    /// Does something under settings `i`.
    pub fn under<T>(&mut self, i: usize, act: impl FnOnce(&mut Self) -> T) -> T {
        let (settings, folds) = &mut self.settings[i];
        self.state.settings = settings;
        self.state.recipe = settings.recipe();
        std::mem::swap(&mut self.state.folds, folds);
        let done = act(self);
        std::mem::swap(&mut self.state.folds, &mut self.settings[i].1);
        done
    }

    /// Range of each channel of a Linear's input; `None` at an attention product.
    pub fn channels(
        &self,
        walk: &Walk<'_>,
        index: usize,
    ) -> Result<Option<Channels>, CalibrateError> {
        let site = &self.state.structure.sites[index];
        let parameters = self.state.parameters[index].as_ref();
        parameters
            .map(|it| self.state.channels(walk, site, it.k))
            .transpose()
    }

    /// dB at the model's outputs with the site that `walk` stands at replaced by a solution, all else float.
    pub fn linear_db(
        &self,
        walk: &Walk<'_>,
        index: usize,
        solved: &Solved,
    ) -> Result<f64, CalibrateError> {
        let state = &self.state;
        self.guard
            .sqnr_with(state, walk, 0..self.guard.inputs(), |walk, lane| {
                state.alone(walk, index, lane, solved)
            })
    }

    /// The same of an attention product with both operands quantised to `bits`.
    pub fn product_db(
        &self,
        walk: &Walk<'_>,
        index: usize,
        bits: u32,
    ) -> Result<f64, CalibrateError> {
        let (_, left, right) = self.state.product_quantisers(walk, index, bits)?;
        self.rounded_db(walk, index, (&left, &right, None))
    }

    /// The same with one head after the other quantised; nothing where there is but one.
    pub fn head_dbs(
        &self,
        walk: &Walk<'_>,
        index: usize,
        bits: u32,
    ) -> Result<Vec<f64>, CalibrateError> {
        let site = &self.state.structure.sites[index];
        let operand = tensor(walk, site, 0, 0, World::Float)?;
        let count = heads(operand.shape());
        if count < 2 {
            return Ok(Vec::new());
        }
        let (_, left, right) = self.state.product_quantisers(walk, index, bits)?;
        (0..count)
            .map(|head| self.rounded_db(walk, index, (&left, &right, Some(head))))
            .collect()
    }

    fn rounded_db(
        &self,
        walk: &Walk<'_>,
        index: usize,
        rounding: Rounding<'_>,
    ) -> Result<f64, CalibrateError> {
        let state = &self.state;
        self.guard
            .sqnr_with(state, walk, 0..self.guard.inputs(), |walk, lane| {
                state.product_alone(walk, index, lane, rounding)
            })
    }
}
