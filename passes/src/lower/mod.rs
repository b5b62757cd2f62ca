//! Rewrites of the finished graph that make it faster, or spell it as a target has it, and change no value that is left, one a file.

mod attention;
mod early_choice;
mod gelu;
mod gemm;
mod rows;
#[cfg(test)]
mod tests;

pub use attention::fuse_attentions;
pub use early_choice::choose_early;
pub use gelu::fuse_gelus;
pub use gemm::to_gemm;
