use thiserror::Error;

use crate::DataType;

/// Why a tensor cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{}{problem}", named(.tensor))]
pub struct TensorError {
    /// Name of the tensor in the file; empty where it has none.
    pub tensor: String,
    /// What is wrong.
    pub problem: TensorProblem,
}

impl From<TensorProblem> for TensorError {
    fn from(problem: TensorProblem) -> Self {
        Self {
            tensor: String::new(),
            problem,
        }
    }
}

fn named(tensor: &str) -> String {
    if tensor.is_empty() {
        String::new()
    } else {
        format!("tensor `{tensor}`: ")
    }
}

/// What is wrong with a tensor.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum TensorProblem {
    /// `data_type` is absent, UNDEFINED or newer than this crate.
    #[error("element type {0} is unknown; ONNX up to IR version 14 is supported")]
    UnknownType(i32),
    /// STRING has no numbers.
    #[error("is a string tensor, numbers are needed")]
    String,
    /// A dimension is negative or the number of elements overflows.
    #[error("shape {0:?} is impossible")]
    Shape(Vec<i64>),
    /// The data and the shape disagree.
    #[error("{dtype} of shape {dims:?} needs {expected} {unit}, there are {found}", dtype = .dtype.name())]
    Length {
        /// Element type.
        dtype: DataType,
        /// Shape.
        dims: Vec<usize>,
        /// What the shape asks for.
        expected: usize,
        /// What is there.
        found: usize,
        /// What is counted: bytes of `raw_data` or entries of a typed field.
        unit: &'static str,
    },
    /// A number does not fit the type.
    #[error("value {value} does not fit {}", .dtype.name())]
    Range {
        /// Element type.
        dtype: DataType,
        /// The number.
        value: i64,
    },
    /// The elements lie in another file.
    #[error("its data lies outside the file; read the model with `load`, which fetches it")]
    External,
    /// The tensor is stored in parts, which no producer does and no runtime reads.
    #[error("is stored in segments, which are not supported")]
    Segment,
    /// The type has no such reading.
    #[error("{} cannot be read as {wanted}", .dtype.name())]
    Type {
        /// Element type.
        dtype: DataType,
        /// What was asked for.
        wanted: &'static str,
    },
    /// A scalar was asked for.
    #[error("has shape {0:?} where one element is needed")]
    NotScalar(Vec<usize>),
}
