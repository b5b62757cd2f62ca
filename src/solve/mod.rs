//! Solvers: arrays in, arrays out.

mod gptq;
mod refit;
mod weight;

pub use gptq::gptq;
pub use refit::refit;
pub use weight::{Grid, round_to_nearest};
