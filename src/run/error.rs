use thiserror::Error;

use super::Runtime;

/// Why a model could not be loaded or run.
#[derive(Debug, Error)]
pub enum RunError {
    /// The bytes are no ONNX model.
    #[error("not an ONNX model: {0}; is the file complete?")]
    Decode(String),
    /// Dims were given for an input that the graph does not have.
    #[error("the model has no input `{name}`; its inputs are {known}")]
    UnknownInput {
        /// The name that was asked for.
        name: String,
        /// The names that there are.
        known: String,
    },
    /// An input got no dims at load or no value at run.
    #[error("nothing was given for the model's input `{name}`")]
    MissingInput {
        /// The input without a value.
        name: String,
    },
    /// A value has other dims than the model was loaded for.
    #[error("input `{name}` has the dims {found:?}, but the model was loaded for {expected:?}")]
    InputDims {
        /// The input.
        name: String,
        /// What came.
        found: Vec<usize>,
        /// What [`load`](super::load) was told.
        expected: Vec<usize>,
    },
    /// A value has another element type than the model declares.
    #[error("input `{name}` is {found}, but the model declares {expected}; convert it first")]
    InputType {
        /// The input.
        name: String,
        /// What came.
        found: &'static str,
        /// What the model declares.
        expected: String,
    },
    /// A tap names no value of the graph.
    #[error("no value in the graph is named `{name}`, so it cannot be observed")]
    UnknownTap {
        /// The name that was asked for.
        name: String,
    },
    /// A value is of a type that no [`Array`](super::Array) holds.
    #[error("the value `{name}` is {found}, which cannot be given back as an array")]
    OutputType {
        /// The value.
        name: String,
        /// Its type, in the runtime's words.
        found: String,
    },
    /// A tensor of 4- or 2-bit numbers does not hold what its dims say.
    #[error(transparent)]
    Packed(#[from] vitq_tract::PackedLength),
    /// The runtime refused the model.
    #[error("{runtime} cannot load the model: {message}")]
    Load {
        /// Which runtime.
        runtime: Runtime,
        /// What it said.
        message: String,
    },
    /// The runtime failed while it evaluated the model.
    #[error("{runtime} failed while running the model: {message}")]
    Run {
        /// Which runtime.
        runtime: Runtime,
        /// What it said.
        message: String,
    },
    /// The runtime panicked, which it does on some malformed graphs.
    #[error("{runtime} panicked ({message}); is the graph valid? onnx.checker tells")]
    Panicked {
        /// Which runtime.
        runtime: Runtime,
        /// The panic's message.
        message: String,
    },
    /// ONNX Runtime was asked for in a build without it.
    #[error(
        "this build cannot run ONNX Runtime: build with the cargo feature `onnxruntime`, or use tract"
    )]
    FeatureMissing,
    /// The shared library of ONNX Runtime did not load.
    #[error(
        "ONNX Runtime is not available: {0}. Set ORT_DYLIB_PATH to its shared library; \
         the Python package has one (`pip install onnxruntime`, then \
         onnxruntime/capi/libonnxruntime.so.* inside the installed package)"
    )]
    LibraryMissing(String),
}
