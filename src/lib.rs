//! Quantise an exported vision transformer (ONNX) and prove that it still does its job.
//!
//! The way of the data is the way of the modules: [`model`] (load → simplify → recognise) → [`calibrate`] (observe, search,
//! solve) → the plan, kept by [`plan_file`] → `vitq_passes::quantise` (fold, quantise, lower) → [`verify`] → [`report`].
//! [`pipeline`] is that road in one function; [`input`] and [`run`] feed and run models along it.

pub mod batches;
pub mod bench;
pub mod budget;
pub mod calibrate;
pub mod contract;
pub mod error;
pub mod input;
#[cfg(feature = "learn")]
pub mod learn;
pub mod linalg;
pub mod model;
pub mod output;
pub mod pipeline;
pub mod plan_file;
pub mod quant;
pub mod report;
pub mod run;
pub mod solve;
pub mod verify;
pub mod walk;

pub use budget::Budget;
pub use contract::{Contract, Source};
pub use error::Error;
pub use model::FloatModel;
#[cfg(feature = "learn")]
pub use pipeline::Learning;
pub use pipeline::{CALIBRATION_SAMPLES, Job, NoProgress, Quantizer};
