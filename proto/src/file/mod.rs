//! Model files: read with their external data, written whole or not at all.

mod error;
mod external;
mod load;
mod save;
mod visit;

pub use error::{ExternalProblem, LoadError, SaveError};
pub use load::{Loaded, load};
pub use save::{SaveOptions, save};
