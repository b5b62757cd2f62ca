//! Why a plan cannot be applied.

use thiserror::Error;

use crate::transform::TransformError;

/// Why a plan cannot be applied; each names the place and the mend.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ApplyError {
    /// Written by another version of the program.
    #[error(
        "the plan has form version {found}, this program reads version {expected}: make the plan again"
    )]
    Version {
        /// The plan's.
        found: u32,
        /// This program's.
        expected: u32,
    },
    /// A site that the model does not have.
    #[error(
        "the plan names the site {0:?}, which the model does not have: make the plan again from this model"
    )]
    UnknownSite(String),
    /// A norm that the model does not have.
    #[error(
        "the plan names the LayerNormalization {0:?}, which the model does not have: make the plan again from this model"
    )]
    UnknownNorm(String),
    /// A site or norm whose numbers do not fit the graph.
    #[error(transparent)]
    Place(#[from] TransformError),
    /// The model's operator set cannot be raised to the one that the target needs.
    #[error(transparent)]
    Opset(#[from] crate::simplify::upgrade::UpgradeError),
    /// The target cannot run the model.
    #[error(transparent)]
    Target(#[from] crate::target::TargetError),
}
