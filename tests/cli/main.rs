//! The program as a user or a pipeline meets it: files in, files and exit codes out.

mod ablate;
mod analyze;
mod bad_input;
mod bench;
mod blocks;
mod budget;
mod end_to_end;
mod executor;
mod low_rank;
#[cfg(feature = "learn")]
mod reconstruct;
mod sensitivity;
mod targets;
#[cfg(feature = "learn")]
mod train;
mod vitq;
