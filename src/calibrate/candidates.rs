//! What a budget chooses from: each site's error at the model's outputs at each width, weights and activation apart, and
//! the work that it does.
//!
//! As [`super::sensitivity`] measures it: the site alone quantised, all else float, by calibration's own solvers. A site
//! whose activation the guard would mend with a scale per channel is measured so mended.

use vitq_passes::ir::Graph;
use vitq_passes::structure::{Site, Structure};

use super::bench::{Asked, Bench, at_each_site};
use super::fold::{Channels, Fold};
use super::guard::{FLOAT_MARGIN_DB, STRENGTHS, scalable, threshold_db};
use super::operand::{rows, tensor};
use super::sensitivity::Rounded;
use super::{CalibrateError, Calibration, Feeds, Part, Progress, Settings};
use crate::walk::{Walk, World};

/// Inputs that the outputs are compared on.
pub(super) const INPUTS: usize = 8;

/// What one site may become.
#[derive(Clone, Debug)]
pub struct SiteCandidates {
    /// Index in the structure.
    pub site: usize,
    /// One a width, one alone at an attention product, none where the site is not to be quantised.
    pub errors: Vec<WidthError>,
    /// Whether a scale per channel mends its activation.
    pub scaled: bool,
    /// Whether the guard would leave it float at 8 bits.
    pub spoils: bool,
    /// What it computes.
    pub work: Work,
}

/// Energies of the errors at the model's outputs, relative to the outputs' energy.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WidthError {
    /// Of weights and activation.
    pub bits: (u32, u32),
    /// With the weights alone rounded; 0 at an attention product.
    pub weight: f64,
    /// With the activation alone rounded.
    pub activation: f64,
}

/// Operations of a site in one run of the model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Multiply-accumulates.
    pub macs: u64,
    /// Elements of its operands and its result, weights apart.
    pub elements: u64,
}

/// Measures the sites that are `eligible` at each of the weights' `widths`, widest first; activations keep the width of
/// `settings`. Of the others it counts the work.
///
/// # Errors
/// There is nothing to measure on, an input cannot be read, or the float graph cannot be run.
pub fn measure(
    (graph, structure, feeds): (&Graph, &Structure, &dyn Feeds),
    settings: &Settings,
    widths: &[u32],
    progress: &dyn Progress,
    eligible: impl Fn(&Site) -> bool,
) -> Result<Vec<SiteCandidates>, CalibrateError> {
    let settings: Vec<Settings> = widths.iter().map(|&it| alone(settings, it)).collect();
    let model = (graph, structure, feeds);
    let ask = |bench: &mut Bench<'_>, walk: &Walk<'_>, index: usize| {
        let work = work(&bench.state, walk, index)?;
        if eligible(&structure.sites[index]) {
            return candidates(bench, walk, index, work);
        }
        Ok(SiteCandidates {
            site: index,
            errors: Vec::new(),
            scaled: false,
            spoils: false,
            work,
        })
    };
    at_each_site(model, (&settings, INPUTS), progress, |_| true, ask)
        .map(|Asked { sites, .. }| sites)
}

/// Each site stands alone in a float network.
fn alone(settings: &Settings, weight_bits: u32) -> Settings {
    let mut settings = settings.clone();
    settings.weight_bits = weight_bits;
    settings.without.extend([Part::Guard, Part::Sequential]);
    settings
}

fn candidates(
    bench: &mut Bench<'_>,
    walk: &Walk<'_>,
    index: usize,
    work: Work,
) -> Result<SiteCandidates, CalibrateError> {
    let Some(channels) = bench.channels(walk, index)? else {
        return product(bench, walk, index, work);
    };
    let mut errors: Vec<WidthError> = Vec::new();
    let mut before: Option<Mended> = None;
    for i in 0..bench.len() {
        let (error, mended) = bench.under(i, |bench| {
            linear(bench, walk, index, &channels, before.take())
        })?;
        // Sites at the edge may have one width of their own.
        if errors.iter().all(|it| it.bits != error.bits) {
            errors.push(error);
        }
        before = Some(mended);
    }
    let activation_db = before.as_ref().map_or(f64::INFINITY, |it| it.db);
    Ok(SiteCandidates {
        site: index,
        errors,
        scaled: before.is_some_and(|it| it.scaled),
        spoils: activation_db < threshold_db((8, 8)) - FLOAT_MARGIN_DB,
        work,
    })
}

/// The input's fold, and what its quantiser alone costs behind it.
struct Mended {
    upstream: Fold,
    fold: Fold,
    scaled: bool,
    db: f64,
}

fn linear(
    bench: &mut Bench<'_>,
    walk: &Walk<'_>,
    index: usize,
    channels: &Channels,
    before: Option<Mended>,
) -> Result<(WidthError, Mended), CalibrateError> {
    let upstream = bench.state.upstream_fold(walk, index, channels)?;
    let site = &bench.state.structure.sites[index];
    let bits = bench.state.settings.bits(site);
    let fold = upstream
        .clone()
        .unwrap_or_else(|| Fold::identity(channels.lo.len()));
    // What was found at another width of the weights holds at this one, if the fold is the same.
    let mended = match before.filter(|it| it.upstream == fold) {
        Some(known) => known,
        None => mended(bench, walk, index, channels, (fold, upstream.is_some()))?,
    };
    let solved =
        bench
            .state
            .solve_part(walk, index, &mended.fold, channels, bits, Rounded::Weight)?;
    let error = WidthError {
        bits,
        weight: energy(bench.linear_db(walk, index, &solved)?),
        activation: energy(mended.db),
    };
    Ok((error, mended))
}

/// The activation's error, with a scale per channel where that is needed, possible, and helps.
fn mended(
    bench: &Bench<'_>,
    walk: &Walk<'_>,
    index: usize,
    channels: &Channels,
    (upstream, folded): (Fold, bool),
) -> Result<Mended, CalibrateError> {
    let state = &bench.state;
    let site = &state.structure.sites[index];
    let (_, activation_bits) = state.settings.bits(site);
    let db = |fold: &Fold| {
        let bits = (8, activation_bits);
        let solved = state.solve_part(walk, index, fold, channels, bits, Rounded::Activation)?;
        bench.linear_db(walk, index, &solved)
    };
    let mut best = Mended {
        db: db(&upstream)?,
        fold: upstream.clone(),
        upstream,
        scaled: false,
    };
    if !scalable(site, folded) || best.db >= threshold_db((8, activation_bits)) {
        return Ok(best);
    }
    for strength in STRENGTHS {
        let fold = Fold::outliers(channels, strength);
        let db = db(&fold)?;
        if db > best.db {
            (best.db, best.fold, best.scaled) = (db, fold, true);
        }
    }
    Ok(best)
}

fn product(
    bench: &mut Bench<'_>,
    walk: &Walk<'_>,
    index: usize,
    work: Work,
) -> Result<SiteCandidates, CalibrateError> {
    let db = bench.under(0, |bench| {
        let bits = bench.state.settings.activation_bits;
        bench.product_db(walk, index, bits).map(|db| (bits, db))
    });
    let (bits, db) = db?;
    let error = WidthError {
        bits: (bits, bits),
        weight: 0.0,
        activation: energy(db),
    };
    Ok(SiteCandidates {
        site: index,
        errors: vec![error],
        scaled: false,
        spoils: false,
        work,
    })
}

/// Of an error, relative to the signal; finite.
pub(super) fn energy(db: f64) -> f64 {
    10f64.powf(-db / 10.0).min(1e6)
}

/// What a site computes.
pub(super) fn work(
    state: &Calibration<'_>,
    walk: &Walk<'_>,
    index: usize,
) -> Result<Work, CalibrateError> {
    let site = &state.structure.sites[index];
    if let Some(parameters) = &state.parameters[index] {
        let (inputs, outputs) = (parameters.k, parameters.out());
        let tokens = rows(walk, site, inputs, 0, World::Float)?.len() / inputs.max(1);
        return Ok(Work {
            macs: (tokens * inputs * outputs) as u64,
            elements: (tokens * (inputs + outputs)) as u64,
        });
    }
    if site.second.is_none() {
        return Ok(Work::default());
    }
    let left = tensor(walk, site, 0, 0, World::Float)?;
    let right = tensor(walk, site, 0, 1, World::Float)?;
    // […, m, k] · […, k, n] → […, m, n]
    let n = right.shape().last().copied().unwrap_or(1);
    let k = left.shape().last().copied().unwrap_or(1).max(1);
    Ok(Work {
        macs: (left.len() * n) as u64,
        elements: (left.len() + right.len() + left.len() / k * n) as u64,
    })
}
