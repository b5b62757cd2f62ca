//! Whether the quantised model still does what the float model does: both run on the same samples.
//!
//! The float model is taken from its file as it is, so that every rewrite stands on trial, not only the rounding; only where
//! the runtime does not take the file, the simplified form stands in for it.

mod classifier;
mod energy;
mod pair;
mod rotation;

use std::path::Path;
use std::time::Instant;

use rayon::prelude::*;
use serde::Serialize;
use vitq_onnx::Model;

use crate::batches::Batches;
use crate::calibrate::{Feeds, Progress};
use crate::error::Error;
use crate::model::FloatModel;
use crate::run::Runtime;
pub use classifier::{Accuracy, Classifier};
use classifier::{Votes, labels_are_outputs};
use energy::Energy;
use pair::Pair;

/// Runs whose sums are kept apart before they are added up in order: memory stays flat, and the figures don't depend
/// on the number of threads.
const CHUNK: usize = 64;

/// What two models differ in, over all samples.
#[derive(Clone, Debug, Serialize)]
pub struct Verification {
    /// The samples, their labels and how they were prepared.
    pub data: String,
    /// How many samples.
    pub samples: usize,
    /// What ran both models.
    pub runtime: String,
    /// Wall time.
    pub seconds: f64,
    /// The graph outputs, in order.
    pub outputs: Vec<Score>,
    /// Results of sites, in order, as far as both models have them by name.
    pub layers: Vec<Score>,
    /// How decisions compare, where the first output is a classifier's (`[batch, classes]`).
    pub classifier: Option<Classifier>,
    /// What a reader should know about these figures.
    pub notes: Vec<String>,
}

/// How close one value of the quantised model comes to the float model's.
#[derive(Clone, Debug, Serialize)]
pub struct Score {
    /// The graph output's name, or the path of the site that gives the value.
    pub name: String,
    /// `10·log10(Σx² / Σ(x-y)²)` over all samples; `null` where nothing differs or a value is not finite.
    pub sqnr_db: Option<f64>,
    /// `Σxy / √(Σx²·Σy²)`; `null` where one of them is zero throughout.
    pub cosine: Option<f64>,
}

/// A model that claims to do what the float model does.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    /// Where it lies, for messages.
    pub path: &'a Path,
    /// What is run.
    pub message: &'a Model,
}

/// Runs the float and the quantised model on all samples and compares outputs, layers and decisions.
///
/// # Errors
/// A sample doesn't decode, a model doesn't run, an output of the float model is missing or has another shape in the
/// quantised one, or an output is not finite.
pub fn verify(
    float: &FloatModel,
    quantised: Candidate<'_>,
    data: &Batches<'_>,
    runtime: Runtime,
    progress: &dyn Progress,
) -> Result<Verification, Error> {
    let clock = Instant::now();
    let pair = Pair::load(float, quantised, &data.batch(0)?, runtime)?;
    let tally = tally(&pair, data, progress)?;
    let labels = data.dataset().labels();
    let classifier = tally.votes.finish(labels);
    let (outputs, layers) = tally.sums.split_at(pair.outputs.len());
    let layer_paths: Vec<_> = pair.layers.iter().map(|layer| layer.path.clone()).collect();
    let mut notes = Vec::new();
    if pair.simplified {
        notes.push(format!(
            "{runtime} does not run the float file as it stands; its simplified form stood in for it"
        ));
    }
    if layers.len() < float.structure.sites.len() {
        let (found, sites) = (layers.len(), float.structure.sites.len());
        notes.push(format!("{found} of {sites} sites have results that both files know by name; the others are not compared alone"));
    }
    if let Some(classifier) = &classifier {
        notes.extend(labels_are_outputs(labels, classifier.classes).err());
        notes.extend(classifier.doubt());
    }
    Ok(Verification {
        data: data.describe(),
        samples: data.samples(),
        runtime: runtime.to_string(),
        seconds: clock.elapsed().as_secs_f64(),
        outputs: scores(&pair.outputs, outputs),
        layers: scores(&layer_paths, layers),
        classifier,
        notes,
    })
}

/// Sums over samples.
#[derive(Default)]
struct Tally {
    /// Graph outputs, then layers.
    sums: Vec<Energy>,
    votes: Votes,
}

impl Tally {
    fn merge(&mut self, other: &Tally) {
        self.sums.resize_with(other.sums.len(), Energy::default);
        self.sums
            .iter_mut()
            .zip(&other.sums)
            .for_each(|(sum, more)| sum.merge(more));
        self.votes.merge(&other.votes);
    }
}

fn tally(pair: &Pair<'_>, data: &Batches<'_>, progress: &dyn Progress) -> Result<Tally, Error> {
    let runs = data.len();
    progress.stage("verify", runs as u64);
    let mut total = Tally::default();
    for start in (0..runs).step_by(CHUNK) {
        let one = |index| {
            let tally = pair.compare(&data.batch(index)?)?;
            progress.advance(1);
            Ok(tally)
        };
        let chunk = (start..runs.min(start + CHUNK))
            .into_par_iter()
            .map(one)
            .collect::<Result<Vec<_>, Error>>()?;
        chunk.iter().for_each(|part| total.merge(part));
    }
    Ok(total)
}

fn scores(names: &[String], sums: &[Energy]) -> Vec<Score> {
    names
        .iter()
        .zip(sums)
        .map(|(name, sum)| sum.score(name))
        .collect()
}
