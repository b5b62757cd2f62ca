//! Tensors from numbers.

use bytes::Bytes;

use super::{Tensor, TensorError, TensorProblem, bits};
use crate::DataType;

macro_rules! from_numbers {
    ($($function:ident, $number:ty, $dtype:ident;)*) => {$(
        #[doc = concat!("A tensor of `", stringify!($number), "` in row-major order.")]
        ///
        /// # Panics
        ///
        /// Where `dims` and `values` disagree in the number of elements: a mistake of the caller.
        pub fn $function(dims: &[usize], values: &[$number]) -> Tensor {
            new(DataType::$dtype, dims, values.len(), bits::bytes_of(values, <$number>::to_le_bytes))
        }
    )*};
}

impl Tensor {
    from_numbers! {
        from_f32, f32, Float;
        from_i64, i64, Int64;
        from_i32, i32, Int32;
        from_i8, i8, Int8;
        from_u8, u8, Uint8;
        from_u16, u16, Uint16;
    }

    /// A tensor of BOOL in row-major order.
    ///
    /// # Panics
    ///
    /// Where `dims` and `values` disagree in the number of elements: a mistake of the caller.
    pub fn from_bool(dims: &[usize], values: &[bool]) -> Tensor {
        let data = values.iter().map(|&value| u8::from(value)).collect();
        new(DataType::Bool, dims, values.len(), data)
    }

    /// A tensor of INT4, UINT4, INT2 or UINT2 from one code an element, in row-major order.
    ///
    /// # Errors
    ///
    /// Another type, a code outside the type's range, a number of codes that is not the shape's.
    pub fn packed(dtype: DataType, dims: &[usize], codes: &[i16]) -> Result<Tensor, TensorError> {
        let range = code_range(dtype).ok_or(TensorProblem::Type {
            dtype,
            wanted: "packed codes",
        })?;
        let expected = dims.iter().copied().try_fold(1, usize::checked_mul);
        if expected != Some(codes.len()) {
            return Err(TensorProblem::Length {
                dtype,
                dims: dims.to_vec(),
                expected: expected.unwrap_or(usize::MAX),
                found: codes.len(),
                unit: "codes",
            }
            .into());
        }
        if let Some(&code) = codes.iter().find(|code| !range.contains(code)) {
            let value = code.into();
            return Err(TensorProblem::Range { dtype, value }.into());
        }
        let width = if range.end() - range.start() == 15 {
            4
        } else {
            2
        };
        let data = bits::pack(codes.iter().map(|&code| code as u8), width).into();
        Ok(new(dtype, dims, codes.len(), data))
    }
}

fn code_range(dtype: DataType) -> Option<std::ops::RangeInclusive<i16>> {
    match dtype {
        DataType::Uint2 => Some(0..=3),
        DataType::Int2 => Some(-2..=1),
        DataType::Uint4 => Some(0..=15),
        DataType::Int4 => Some(-8..=7),
        _ => None,
    }
}

fn new(dtype: DataType, dims: &[usize], count: usize, data: Bytes) -> Tensor {
    let elements: usize = dims.iter().product();
    assert_eq!(
        elements, count,
        "shape {dims:?} does not hold {count} elements"
    );
    Tensor {
        dtype,
        dims: dims.to_vec(),
        data,
    }
}
