//! Mixed precision: widths chosen site by site, so that a budget is kept with the least error.
//!
//! [`candidates`](crate::calibrate::candidates) measures what each site's error does to the model's outputs, `size` and
//! `speed` say what its widths cost, [`mod@allocate`] chooses, `quality` tries several choices out. Errors of many sites are
//! predicted as the sum of their energies.

pub mod allocate;
mod quality;
mod size;
pub(crate) mod speed;
mod table;
mod word;

use std::collections::BTreeMap;

use serde::Serialize;
use thiserror::Error;
use vitq_passes::target::Values;

use crate::calibrate::{Outcome, Progress};
use crate::error::Error;
use crate::input::Dataset;
use crate::model::{FloatModel, Written};
use crate::pipeline::Quantizer;

/// What is to be kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    /// Most bytes of the quantised file.
    Size(Size),
    /// Percent of samples that may be decided otherwise than by the float model: so many points of top-1 at most are lost
    /// on them. The smallest file with that.
    Drop(f64),
    /// Least signal to error of the first output, dB. The smallest file with that.
    Sqnr(f64),
    /// Least ratio of the float model's time to the quantised one's, as the target's cost model predicts it.
    Speedup(f64),
}

/// Room for a file.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Size {
    /// Of the float file.
    Fraction(f64),
    /// Bytes.
    Bytes(u64),
}

/// A budget, and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// As it was asked for: `size=3MB`
    pub budget: String,
    /// How many sites have which widths: `w4a8`, `w8a8`, `float`
    pub widths: BTreeMap<String, usize>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Signal to error at the outputs if the energies of the sites' errors just add up, dB.
    pub predicted_sqnr_db: f64,
    /// No other choice of widths within the limit has a higher `predicted_sqnr_db` than this.
    pub bound_sqnr_db: f64,
    /// Float time over quantised time by the target's cost model, for `speedup`.
    pub predicted_speedup: Option<f64>,
    /// What was tried out on samples held out, for `drop` and `sqnr`.
    pub trials: Vec<Trial>,
    /// Those samples.
    pub held_out: Option<String>,
}

/// A choice of widths, calibrated and compared with the float model.
#[derive(Clone, Debug, Serialize)]
pub struct Trial {
    /// Bytes of the file.
    pub bytes: u64,
    /// As of [`Kept`].
    pub predicted_sqnr_db: f64,
    /// Of the first output, dB; `null` where nothing differs.
    pub sqnr_db: Option<f64>,
    /// Samples decided as by the float model, percent; `null` where the output is no classifier's.
    pub agreement: Option<f64>,
    /// Whether the budget is kept.
    pub kept: bool,
}

/// Why a budget cannot be kept.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BudgetError {
    /// Even the narrowest widths take more.
    #[error(
        "--budget {budget} cannot be kept: with every site as narrow as it may be ({narrowest}) the file has {least} bytes{}",
        fraction(*.least, *.float)
    )]
    Size {
        /// As asked for.
        budget: Budget,
        /// The widths.
        narrowest: String,
        /// Bytes.
        least: u64,
        /// Bytes of the float file.
        float: u64,
    },
    /// Even with everything quantised the cost model predicts less.
    #[error(
        "--budget {budget} cannot be kept: with every site in scope quantised the cost model predicts {most:.2}"
    )]
    Speedup {
        /// As asked for.
        budget: Budget,
        /// The most.
        most: f64,
    },
    /// The cost model does not know these codes.
    #[error(
        "--budget {0}: the cost model knows no codebooks of activations; give activations 7 or 8 bits, or --codes uniform"
    )]
    Unpriced(Budget),
    /// The target has no cost model.
    #[error(
        "--budget speedup= needs a cost model, and there is none of the target {0}: give --target onnxruntime, or --budget size="
    )]
    NoCosts(&'static str),
    /// The target's file has more in it than widths.
    #[error(
        "--budget {0}: there are none for the target {1}, which quantises what lies between sites too; give --bits and --keep-float"
    )]
    Target(Budget, &'static str),
    /// The widest widths err too much.
    #[error(
        "--budget {budget} cannot be kept: the widest widths reach {reached} on the samples held out; try --effort balanced, or --keep-float for the dearest sites (`vitq sensitivity`)"
    )]
    Quality {
        /// As asked for.
        budget: Budget,
        /// `drop=3.1` or `sqnr=18.2`
        reached: String,
    },
    /// Calibration takes all samples.
    #[error(
        "--budget {0} is judged on samples of --calib that calibration leaves over, and there are none: give more images, or fewer --samples"
    )]
    NothingHeldOut(Budget),
    /// The output is no class scores.
    #[error("--budget {0} needs a classifier: the first output is no [batch, classes]; use sqnr=")]
    NoClassifier(Budget),
}

fn fraction(least: u64, float: u64) -> String {
    format!(", {:.3} of the float file", least as f64 / float as f64)
}

/// Calibrates with widths that keep the budget.
///
/// # Errors
/// It cannot be kept, or calibration fails.
pub(crate) fn plan(
    quantizer: &Quantizer,
    budget: Budget,
    (model, calibration): (&FloatModel, &Dataset),
    progress: &dyn Progress,
) -> Result<Outcome, Error> {
    if quantizer.target.values == Values::All {
        return Err(BudgetError::Target(budget, quantizer.target.name).into());
    }
    let job = Job {
        quantizer,
        budget,
        model,
        written: model.written(quantizer.rotation(model))?,
        calibration,
        progress,
    };
    match budget {
        Budget::Size(size) => size::plan(&job, size),
        Budget::Speedup(speedup) => speed::plan(&job, speedup),
        Budget::Drop(_) | Budget::Sqnr(_) => quality::plan(&job),
    }
}

/// What all budgets are given.
struct Job<'a> {
    quantizer: &'a Quantizer,
    budget: Budget,
    model: &'a FloatModel,
    /// The form of it that plans are made for.
    written: Written<'a>,
    calibration: &'a Dataset,
    progress: &'a dyn Progress,
}

/// Signal to error, dB.
fn db(error: f64) -> f64 {
    -10.0 * error.max(f64::MIN_POSITIVE).log10()
}
