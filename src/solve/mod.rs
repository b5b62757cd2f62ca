//! Solvers: arrays in, arrays out.

mod descent;
mod gptq;
mod low_rank;
pub mod pairs;
mod refit;
mod shrink;
mod weight;

pub use descent::descend;
pub use gptq::gptq;
pub use low_rank::Spectrum;
pub use refit::refit;
pub use shrink::shrunk;
pub use weight::{Grid, round_to_nearest};
