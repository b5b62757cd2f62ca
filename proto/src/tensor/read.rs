//! From the canonical form to numbers.

use half::{bf16, f16};

use super::{Tensor, TensorError, TensorProblem, bits, minifloat};
use crate::DataType;

impl Tensor {
    /// The elements as `f32`, from every real type: exact from floats of at most 32 bits and integers of
    /// at most 24, rounded to nearest from the others.
    ///
    /// # Errors
    ///
    /// Complex types, and a `data` that is not as long as type and shape ask.
    pub fn to_f32(&self) -> Result<Vec<f32>, TensorError> {
        self.check_length()?;
        Ok(match self.dtype {
            DataType::Float => self.elements(f32::from_le_bytes),
            DataType::Double => self.elements(|bytes| f64::from_le_bytes(bytes) as f32),
            DataType::Float16 => self.elements(|bytes| f16::from_le_bytes(bytes).to_f32()),
            DataType::Bfloat16 => self.elements(|bytes| bf16::from_le_bytes(bytes).to_f32()),
            DataType::Uint64 => self.elements(|bytes| u64::from_le_bytes(bytes) as f32),
            DataType::Complex64 | DataType::Complex128 => {
                return Err(self.wrong_type("real numbers"));
            }
            _ => match minifloat::table(self.dtype) {
                Some(table) => self.codes().map(|code| table[usize::from(code)]).collect(),
                None => self
                    .integers()?
                    .into_iter()
                    .map(|value| value as f32)
                    .collect(),
            },
        })
    }

    /// The elements as `i64`, from every integer type and BOOL (0 or 1).
    ///
    /// # Errors
    ///
    /// Float and complex types, UINT64 beyond 2^63 - 1, and a `data` that is not as long as type and
    /// shape ask.
    pub fn to_i64(&self) -> Result<Vec<i64>, TensorError> {
        self.check_length()?;
        self.integers()
    }

    /// The one element of a tensor of any rank, as [`to_f32`](Self::to_f32) reads it.
    ///
    /// # Errors
    ///
    /// None or several elements, and what `to_f32` refuses.
    pub fn scalar_f32(&self) -> Result<f32, TensorError> {
        self.scalar(Self::to_f32)
    }

    /// The one element of a tensor of any rank, as [`to_i64`](Self::to_i64) reads it.
    ///
    /// # Errors
    ///
    /// None or several elements, and what `to_i64` refuses.
    pub fn scalar_i64(&self) -> Result<i64, TensorError> {
        self.scalar(Self::to_i64)
    }

    fn scalar<T>(&self, read: fn(&Self) -> Result<Vec<T>, TensorError>) -> Result<T, TensorError> {
        let not_scalar = || TensorProblem::NotScalar(self.dims.clone());
        if self.dims.iter().any(|&dim| dim != 1) {
            return Err(not_scalar().into());
        }
        Ok(read(self)?.pop().ok_or_else(not_scalar)?)
    }

    fn integers(&self) -> Result<Vec<i64>, TensorError> {
        Ok(match self.dtype {
            DataType::Bool => self.codes().map(|code| i64::from(code != 0)).collect(),
            DataType::Uint2 | DataType::Uint4 => self.codes().map(i64::from).collect(),
            DataType::Int2 => self.codes().map(|code| sign_extended(code, 2)).collect(),
            DataType::Int4 => self.codes().map(|code| sign_extended(code, 4)).collect(),
            DataType::Uint8 => self.elements(|bytes| u8::from_le_bytes(bytes).into()),
            DataType::Int8 => self.elements(|bytes| i8::from_le_bytes(bytes).into()),
            DataType::Uint16 => self.elements(|bytes| u16::from_le_bytes(bytes).into()),
            DataType::Int16 => self.elements(|bytes| i16::from_le_bytes(bytes).into()),
            DataType::Uint32 => self.elements(|bytes| u32::from_le_bytes(bytes).into()),
            DataType::Int32 => self.elements(|bytes| i32::from_le_bytes(bytes).into()),
            DataType::Int64 => self.elements(i64::from_le_bytes),
            DataType::Uint64 => self
                .elements(u64::from_le_bytes)
                .into_iter()
                .map(i64::try_from)
                .collect::<Result<_, _>>()
                .map_err(|_| {
                    self.wrong_type("signed 64-bit integers: a value is beyond 2^63 - 1")
                })?,
            _ => return Err(self.wrong_type("integers")),
        })
    }

    /// Elements of whole bytes.
    fn elements<T, const N: usize>(&self, read: impl Fn([u8; N]) -> T) -> Vec<T> {
        let (elements, _) = self.data.as_chunks::<N>();
        elements.iter().map(|&bytes| read(bytes)).collect()
    }

    /// Codes of at most eight bits.
    fn codes(&self) -> impl Iterator<Item = u8> {
        bits::unpack(&self.data, self.dtype.bits().unwrap_or(8), self.len())
    }

    /// The fields are public: what reads by index checks them first.
    fn check_length(&self) -> Result<(), TensorError> {
        let elements = self.dims.iter().copied().try_fold(1, usize::checked_mul);
        let expected = elements.and_then(|elements| self.dtype.byte_len(elements));
        if expected == Some(self.data.len()) {
            return Ok(());
        }
        Err(TensorProblem::Length {
            dtype: self.dtype,
            dims: self.dims.clone(),
            expected: expected.unwrap_or(usize::MAX),
            found: self.data.len(),
            unit: "bytes",
        }
        .into())
    }

    fn wrong_type(&self, wanted: &'static str) -> TensorError {
        let dtype = self.dtype;
        TensorProblem::Type { dtype, wanted }.into()
    }
}

fn sign_extended(code: u8, bits: u32) -> i64 {
    let unused = 8 - bits;
    i64::from(((code << unused) as i8) >> unused)
}
