//! What can go wrong between a float model and a quantised one.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::budget::BudgetError;
use crate::calibrate::CalibrateError;
use crate::input::InputError;
use crate::plan_file::PlanFileError;
use crate::run::RunError;

/// Every message says what was wrong, where, and how to mend it.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// No samples to verify on.
    #[error(
        "there are no samples to verify on: calibration took all of --calib; give others with --eval, or fewer --samples"
    )]
    NothingToVerify,
    /// The file is no usable ONNX model.
    #[error(transparent)]
    Load(#[from] vitq_onnx::LoadError),
    /// The quantised model could not be written.
    #[error(transparent)]
    Save(#[from] vitq_onnx::SaveError),
    /// The file's graph is broken.
    #[error("{}: {source}", path.display())]
    Graph {
        /// The model.
        path: PathBuf,
        /// What is broken.
        source: vitq_passes::ir::ImportError,
    },
    /// The model is narrower than float32 and cannot be widened.
    #[error("{}: {source}", path.display())]
    Widen {
        /// The model.
        path: PathBuf,
        /// What stands in the way.
        source: vitq_passes::widen::WidenError,
    },
    /// The model cannot be fed or run.
    #[error("{}: {reason}", path.display())]
    Unusable {
        /// The model.
        path: PathBuf,
        /// Which input or node, and what about it.
        reason: String,
    },
    /// A constant holds NaN or an infinity.
    #[error("{}: the constant `{constant}` holds {value} at element {index}; the model was not trained or not exported soundly: repair it, then export it again", path.display())]
    NotFinite {
        /// The model.
        path: PathBuf,
        /// Name of the initialiser.
        constant: String,
        /// Which element, row-major, from 0.
        index: usize,
        /// What stands there.
        value: f32,
    },
    /// Nothing in the model can be quantised.
    #[error("{}: nothing here can be quantised: no product in scope was recognised{}", path.display(), listed(declined))]
    NoSites {
        /// The model.
        path: PathBuf,
        /// Candidates, each with the reason why it was declined.
        declined: Vec<String>,
    },
    /// Images for a model whose input has no fixed size.
    #[error("{}: input `{input}` fixes no height and width; say which with --crop", path.display())]
    NoImageSize {
        /// The model.
        path: PathBuf,
        /// The input.
        input: String,
    },
    /// A name that no site has.
    #[error("no site is named `{name}`; `vitq inspect` lists them{}", similar.as_ref().map_or_else(String::new, |it| format!(" (is it `{it}`?)")))]
    UnknownSite {
        /// The name as given.
        name: String,
        /// The name that comes closest.
        similar: Option<String>,
    },
    /// The result cannot be written where it was asked for.
    #[error("{}: cannot be written: {reason}", path.display())]
    Output {
        /// The file asked for.
        path: PathBuf,
        /// Why not, and what to do.
        reason: String,
    },
    /// A file could not be written.
    #[error("{}: cannot be written ({source}); check the folder, its permissions and the space left", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The images or arrays cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Calibration failed.
    #[error(transparent)]
    Calibrate(#[from] CalibrateError),
    /// Learning failed.
    #[cfg(feature = "learn")]
    #[error(transparent)]
    Learn(#[from] crate::learn::LearnError),
    /// The plan does not fit the model.
    #[error("{}: the plan cannot be applied: {source}", path.display())]
    Apply {
        /// The model.
        path: PathBuf,
        /// What does not fit.
        source: vitq_passes::quantise::ApplyError,
    },
    /// The target cannot run the model.
    #[error("{}: {source}", path.display())]
    Target {
        /// The model.
        path: PathBuf,
        /// What stands against it.
        source: vitq_passes::target::TargetError,
    },
    /// Weights with a scale a block where they cannot be had.
    #[error("--block {block}: {reason}")]
    Block {
        /// Inputs of a block.
        block: usize,
        /// What stands against it, and what to do.
        reason: &'static str,
    },
    /// A pass left a graph that is not sound.
    #[error("{}: the quantised graph is not sound ({}); this is a fault of vitq: please report it", path.display(), faults.join("; "))]
    Unsound {
        /// The model.
        path: PathBuf,
        /// What the check found.
        faults: Vec<String>,
    },
    /// A budget cannot be kept.
    #[error(transparent)]
    Budget(#[from] BudgetError),
    /// A plan file cannot be used.
    #[error(transparent)]
    Plan(#[from] PlanFileError),
    /// A model cannot be run.
    #[error("{}: {source}", path.display())]
    Run {
        /// The model.
        path: PathBuf,
        /// What the runtime said.
        source: RunError,
    },
    /// Two models that cannot be compared.
    #[error("{} and {} cannot be compared: {reason}", float.display(), quantised.display())]
    NotComparable {
        /// The float model.
        float: PathBuf,
        /// The other one.
        quantised: PathBuf,
        /// Why.
        reason: String,
    },
    /// A model's output is no number.
    #[error("{}: output `{output}` is not finite on {sample}; the model or its preprocessing is broken", path.display())]
    OutputNotFinite {
        /// The model.
        path: PathBuf,
        /// The graph output.
        output: String,
        /// Which sample.
        sample: String,
    },
    /// A bar that nothing can be measured against.
    #[error("{0}")]
    NoMeasure(String),
}

/// At most five lines, for a message.
fn listed(declined: &[String]) -> String {
    const SHOWN: usize = 5;
    let mut text: String = declined
        .iter()
        .take(SHOWN)
        .map(|line| format!("\n  {line}"))
        .collect();
    match declined.len() {
        0 => text.push_str("; is it a vision transformer with its weights inside?"),
        n if n > SHOWN => text.push_str(&format!(
            "\n  and {} more: `vitq inspect` lists them",
            n - SHOWN
        )),
        _ => {}
    }
    text
}
