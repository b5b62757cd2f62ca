//! Learned quantisation: the numbers of a plan improved by gradients, on the float graph itself.
//!
//! candle differentiates one sample at a time on one core; samples stand side by side. What quantisers do to weights stays
//! outside of it: a weight is rounded once a step, and its gradient comes back summed over the samples.

mod adam;
mod kernels;
pub mod network;
mod reconstruct;
mod sites;
mod state;
#[cfg(test)]
mod tests;

use thiserror::Error;

pub use reconstruct::{Learned, Options, reconstruct};

use crate::input::InputError;

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
    /// candle failed outside of an operator.
    #[error("learning failed in {at}: {problem}")]
    Step {
        /// Segment.
        at: String,
        /// candle's words.
        problem: String,
    },
    /// The loss is no number.
    #[error(
        "{0}: the loss is no number any more; the float model's values are too large there, or the rates: try fewer steps"
    )]
    NotFinite(String),
    /// The plan is for another model.
    #[error("the plan does not fit the model: {0}")]
    Plan(String),
}
