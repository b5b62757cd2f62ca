//! Running ONNX models: feed, taps → values.
//!
//! [`load`] turns the bytes of a model into an [`Executor`], either in tract (built in) or in ONNX
//! Runtime (cargo feature `onnxruntime`, its shared library loaded at run time). Both see the same
//! file and give the same meaning to it: in tract the quantisation operators are [`vitq_tract`]'s,
//! because tract's own evaluate some graphs silently wrong.

mod error;
#[cfg(feature = "onnxruntime")]
pub(crate) mod ort;
pub(crate) mod panics;
mod signature;
pub(crate) mod tract;
pub(crate) mod vector;

use std::fmt;
use std::path::{Path, PathBuf};

use prost::Message;
use vitq_onnx::Model;

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
    /// What tract is given of [`vitq_tract`].
    pub tract: TractForm,
    /// The shared library of ONNX Runtime; without it the environment variable `ORT_DYLIB_PATH`
    /// says where it is. The first one loaded serves the whole process.
    pub library: Option<PathBuf>,
}

/// How much of [`vitq_tract`] is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TractForm {
    /// Nothing: tract as it is. It refuses some quantised models and evaluates some silently wrong.
    Stock,
    /// Its quantisation operators, which do what ONNX says.
    Exact,
    /// Those, and quantised Linears multiplied in integers ([`vitq_tract::fuse`]), as in a program made for speed.
    Fused,
}

impl Default for RunOptions {
    fn default() -> Self {
        Self {
            threads: 1,
            optimise: true,
            tract: TractForm::Exact,
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

    /// How many Linears [`TractForm::Fused`] made integer ones; `None` where the runtime fuses by itself.
    fn fused(&self) -> Option<usize>;
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

/// Prepares a model file, data files beside it included, as a program that only runs it would.
pub fn load_file(
    runtime: Runtime,
    path: &Path,
    input_dims: &[(String, Vec<usize>)],
    options: &RunOptions,
) -> Result<Box<dyn Executor>, RunError> {
    match runtime {
        Runtime::Tract => load(runtime, &encoded(path)?, input_dims, &[], options),
        #[cfg(feature = "onnxruntime")]
        Runtime::OnnxRuntime => Ok(Box::new(ort::OrtModel::open(path, input_dims, options)?)),
        #[cfg(not(feature = "onnxruntime"))]
        Runtime::OnnxRuntime => Err(RunError::FeatureMissing),
    }
}

/// The graph that ONNX Runtime makes of a model file and executes.
#[cfg(feature = "onnxruntime")]
pub fn optimised_by_onnx_runtime(path: &Path, options: &RunOptions) -> Result<Model, RunError> {
    ort::optimised(path, options)
}

/// As the feature's function, which this build doesn't have.
#[cfg(not(feature = "onnxruntime"))]
pub fn optimised_by_onnx_runtime(_: &Path, _: &RunOptions) -> Result<Model, RunError> {
    Err(RunError::FeatureMissing)
}

/// The file's message with all tensors inside.
fn encoded(path: &Path) -> Result<Vec<u8>, RunError> {
    let model = vitq_onnx::load(path).map_err(|e| RunError::Decode(e.to_string()))?;
    Ok(model.model.encode_to_vec())
}
