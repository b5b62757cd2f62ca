//! Exact rewrites of the float graph, one a file: the function that the model computes stays the same.

mod affine;
mod parameters;
pub mod repq;
mod rotate;
pub mod scale;
mod take_over;

pub use affine::{LinearParams, affine_fold};
pub use parameters::{apply_norm, replace_linear};
pub(crate) use parameters::{check_lengths, set_bias, transposed, weight_dims};
pub use rotate::{ROTATED, orthogonal, rotate, rotate_values};
pub(crate) use take_over::take_over;

use thiserror::Error;

/// A rewrite that cannot be done; the graph or the numbers at that place are as they were.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{at}: {problem}")]
pub struct TransformError {
    /// The node, site or array.
    pub at: String,
    /// What is wrong and how to mend it.
    pub problem: String,
}

impl TransformError {
    pub(crate) fn new(at: impl Into<String>, problem: impl Into<String>) -> Self {
        TransformError {
            at: at.into(),
            problem: problem.into(),
        }
    }
}
