//! The values that go into a model and come out of it.

use ndarray::{ArcArray, ArrayD, IxDyn};

/// A dense, row-major array of one of the element types that a vision model takes or gives.
///
/// Cloning is cheap: the elements are shared until someone writes to them.
#[derive(Clone, Debug, PartialEq)]
pub enum Array {
    /// ONNX `FLOAT`.
    F32(ArcArray<f32, IxDyn>),
    /// ONNX `INT64`.
    I64(ArcArray<i64, IxDyn>),
    /// ONNX `INT32`.
    I32(ArcArray<i32, IxDyn>),
    /// ONNX `BOOL`.
    Bool(ArcArray<bool, IxDyn>),
    /// ONNX `UINT8`.
    U8(ArcArray<u8, IxDyn>),
}

impl Array {
    /// The extent of every axis, outermost first; empty for a scalar.
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::F32(a) => a.shape(),
            Self::I64(a) => a.shape(),
            Self::I32(a) => a.shape(),
            Self::Bool(a) => a.shape(),
            Self::U8(a) => a.shape(),
        }
    }

    /// The element type, as people name it in messages: `f32`, `i64`, `i32`, `bool`, `u8`.
    pub fn type_name(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::I64(_) => "i64",
            Self::I32(_) => "i32",
            Self::Bool(_) => "bool",
            Self::U8(_) => "u8",
        }
    }

    /// The elements if they are `f32`, else `None`: nothing is converted.
    pub fn as_f32(&self) -> Option<&ArcArray<f32, IxDyn>> {
        match self {
            Self::F32(a) => Some(a),
            _ => None,
        }
    }
}

macro_rules! from_array {
    ($($element:ty => $variant:ident),*) => {$(
        impl From<ArrayD<$element>> for Array {
            fn from(array: ArrayD<$element>) -> Self {
                Self::$variant(array.into_shared())
            }
        }
        impl From<ArcArray<$element, IxDyn>> for Array {
            fn from(array: ArcArray<$element, IxDyn>) -> Self {
                Self::$variant(array)
            }
        }
    )*};
}

from_array!(f32 => F32, i64 => I64, i32 => I32, bool => Bool, u8 => U8);
