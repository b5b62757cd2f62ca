//! The graph of a vision transformer: recognition, exact rewrites, quantisation.
//!
//! Pure: a graph and numbers in, a graph and a report out; no I/O, no model is run.

pub mod check;
pub mod infer;
pub mod ir;
pub mod lower;
pub mod pattern;
pub mod plan;
pub mod quantise;
pub mod simplify;
pub mod structure;
pub mod target;
pub mod transform;
