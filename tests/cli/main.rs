//! The program as a user or a pipeline meets it: files in, files and exit codes out.

mod ablate;
mod bad_input;
mod bench;
mod budget;
mod end_to_end;
mod low_rank;
mod sensitivity;
mod targets;
#[cfg(feature = "learn")]
mod train;
mod vitq;
