//! Learned quantisation: the numbers of a plan improved by gradients, on the float graph itself.
//!
//! candle differentiates one sample at a time on one core; samples stand side by side. What quantisers do to weights stays
//! outside of it: a weight is rounded once a step, and its gradient comes back summed over the samples.
//!
//! candle keeps threads of its own that spin while they wait for each other. Programs should run with `CANDLE_NUM_THREADS=1` in their
//! environment, as `vitq train` does: a step takes about half of the time then.

mod adam;
mod backend;
mod checkpoint;
mod distil;
mod draw;
mod gradients;
mod importance;
mod kernels;
mod loss;
pub mod network;
mod pair;
mod reconstruct;
mod sites;
mod state;
mod store;
#[cfg(test)]
mod tests;
mod views;

use std::path::PathBuf;

use thiserror::Error;

pub use backend::Device;
pub use checkpoint::Checkpoint;
pub use distil::{Options, distil};
pub use loss::Objective;
pub use reconstruct::{Options as BlockOptions, reconstruct};
pub use state::Rates;

use crate::input::InputError;
use crate::walk::WalkError;

/// Why learning failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum LearnError {
    /// An operator cannot be differentiated, or does not fit.
    #[error("{node}: {problem}")]
    Operator {
        /// Name of the node.
        node: String,
        /// What stands against it.
        problem: String,
    },
    /// A sample cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// Values between blocks cannot be kept.
    #[error(transparent)]
    Kept(#[from] WalkError),
    /// candle failed outside of an operator.
    #[error("learning failed: {0}")]
    Step(String),
    /// The loss is no number.
    #[error(
        "{node}: its result is no number any more at step {step}, and the loss with it: learn more slowly (--rate 0.5)"
    )]
    NotFinite {
        /// The first operator whose result is none.
        node: String,
        /// From 1.
        step: usize,
    },
    /// A checkpoint cannot be read or written, or belongs to other work.
    #[error("{}: {problem}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What stands against it, and what mends it.
        problem: String,
    },
    /// One sample is learned from, another one held out.
    #[error(
        "learning takes at least 2 samples to tell whether it helps, there are {0}: give more images"
    )]
    TooFew(usize),
    /// What it is to be computed on is not there.
    #[error("{0}")]
    Device(String),
    /// The plan is for another model.
    #[error("the plan does not fit the model: {0}")]
    Plan(String),
}

impl LearnError {
    fn step(error: &candle_core::Error) -> Self {
        LearnError::Step(message(error))
    }
}

/// candle's words without a backtrace.
fn message(error: &candle_core::Error) -> String {
    let text = error.to_string();
    text.lines().next().unwrap_or_default().to_owned()
}
