//! Running ONNX models: feed, taps → values.
//!
//! [`load`] turns the bytes of a model into an [`Executor`], either in tract (built in) or in ONNX
//! Runtime (cargo feature `onnxruntime`, its shared library loaded at run time). Both see the same
//! file and give the same meaning to it: in tract the quantisation operators are [`vitq_tract`]'s,
//! because tract's own evaluate some graphs silently wrong.

mod error;
#[cfg(feature = "onnxruntime")]
mod ort;
pub(crate) mod panics;
mod signature;
pub(crate) mod tract;
pub(crate) mod vector;

use std::fmt;
use std::path::PathBuf;

pub use crate::input::Array;
pub use error::RunError;
use signature::Signature;

/// The program that evaluates a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Runtime {
    /// tract, built into this crate.
    Tract,
    /// ONNX Runtime, from its shared library (cargo feature `onnxruntime`).
    OnnxRuntime,
}

impl fmt::Display for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tract => "tract",
            Self::OnnxRuntime => "ONNX Runtime",
        })
    }
}

/// How a model is prepared and run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Threads inside one run of ONNX Runtime. tract runs on the caller's thread alone: run several
    /// samples at once there.
    pub threads: usize,
    /// Whether the runtime may rewrite the graph for speed.
    pub optimise: bool,
    /// The shared library of ONNX Runtime; without it the environment variable `ORT_DYLIB_PATH`
    /// says where it is. The first one loaded serves the whole process.
    pub library: Option<PathBuf>,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            optimise: true,
            library: None,
        }
    }
}

/// A loaded model; may be shared between threads.
pub trait Executor: Send + Sync {
    /// Evaluates the model on one set of named inputs, in any order, of the dims given at load.
    ///
    /// The values come in the order of [`outputs`](Self::outputs). [`Array`] has fewer element types
    /// than ONNX, so values of other types are widened to one that holds them: `INT8`, `INT16` and
    /// `UINT16` to `i32`; `UINT32` and `UINT64` to `i64`; `FLOAT16` and `DOUBLE` become `f32`.
    fn run(&self, inputs: &[(String, Array)]) -> Result<Vec<Array>, RunError>;

    /// The names of the values that [`run`](Self::run) gives: the graph's outputs, then the taps.
    fn outputs(&self) -> &[String];
}

/// Prepares an encoded `ModelProto`, its tensors inside (no external data), for running.
///
/// `input_dims` names every input that has no initialiser, with concrete extents. `taps` are names
/// of further values in the graph that are to be given after the graph's outputs.
pub fn load(
    runtime: Runtime,
    model: &[u8],
    input_dims: &[(String, Vec<usize>)],
    taps: &[String],
    options: &RunOptions,
) -> Result<Box<dyn Executor>, RunError> {
    let signature = Signature::read(model, input_dims, taps)?;
    match runtime {
        Runtime::Tract => Ok(Box::new(tract::TractModel::load(
            model, signature, options,
        )?)),
        #[cfg(feature = "onnxruntime")]
        Runtime::OnnxRuntime => Ok(Box::new(ort::OrtModel::load(model, signature, options)?)),
        #[cfg(not(feature = "onnxruntime"))]
        Runtime::OnnxRuntime => Err(RunError::FeatureMissing),
    }
}
