//! Solvers: arrays in, arrays out.

mod descent;
mod gptq;
mod refit;
mod shrink;
mod weight;

pub use descent::descend;
pub use gptq::gptq;
pub use refit::refit;
pub use shrink::shrunk;
pub use weight::{Grid, round_to_nearest};
