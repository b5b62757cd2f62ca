//! Constants as numbers: one canonical form of the ways in which ONNX stores elements.

mod bits;
mod decode;
mod error;
mod minifloat;
mod new;
mod read;

use bytes::Bytes;

pub(crate) use decode::raw_len;
pub use error::{TensorError, TensorProblem};

use crate::{DataType, TensorMsg, pb::TensorProto};

/// A constant of a fixed-width type, in row-major order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tensor {
    /// Element type; never STRING or UNDEFINED.
    pub dtype: DataType,
    /// Shape; empty for a scalar.
    pub dims: Vec<usize>,
    /// The elements as `raw_data` has them: little-endian, BOOL one byte each; 6-, 4- and 2-bit types
    /// as one stream of bits, the first element in the low bits, the last byte filled with zeros.
    pub data: Bytes,
}

impl Tensor {
    /// Number of elements.
    pub fn len(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether a dimension is zero.
    pub fn is_empty(&self) -> bool {
        self.dims.contains(&0)
    }

    /// The message that holds this tensor, in `raw_data`, without a copy.
    pub fn to_proto(&self, name: &str) -> TensorMsg {
        TensorProto {
            name: Some(name.to_owned()),
            data_type: Some(self.dtype as i32),
            dims: self.dims.iter().map(|&dim| dim as i64).collect(),
            raw_data: Some(self.data.clone()),
            ..Default::default()
        }
        .into()
    }
}
