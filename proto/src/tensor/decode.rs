//! From the message to the canonical form.

use bytes::Bytes;

use super::{Tensor, TensorError, TensorProblem, bits};
use crate::{
    DataType,
    pb::{TensorProto, tensor_proto::DataLocation},
};

impl Tensor {
    /// Reads a tensor from whichever field holds its elements; `raw_data` is shared, not copied.
    ///
    /// # Errors
    ///
    /// An unknown or STRING type, an impossible shape, data that do not fit shape or type, data that
    /// lie outside the file.
    pub fn from_proto(proto: &TensorProto) -> Result<Tensor, TensorError> {
        decode(proto).map_err(|problem| TensorError {
            tensor: proto.name().to_owned(),
            problem,
        })
    }
}

fn decode(proto: &TensorProto) -> Result<Tensor, TensorProblem> {
    let dtype = known_type(proto.data_type.unwrap_or(0))?;
    if proto.segment.is_some() {
        return Err(TensorProblem::Segment);
    }
    if proto.data_location() == DataLocation::External {
        return Err(TensorProblem::External);
    }
    let (dims, elements) = shape(&proto.dims)?;
    let source = Source {
        proto,
        dtype,
        dims: &dims,
        elements,
    };
    let data = match &proto.raw_data {
        Some(raw) if !raw.is_empty() => source.raw(raw)?,
        _ => source.typed()?,
    };
    Ok(Tensor { dtype, dims, data })
}

fn known_type(code: i32) -> Result<DataType, TensorProblem> {
    match DataType::try_from(code) {
        Ok(DataType::String) => Err(TensorProblem::String),
        Ok(DataType::Undefined) | Err(_) => Err(TensorProblem::UnknownType(code)),
        Ok(dtype) => Ok(dtype),
    }
}

/// The shape and its number of elements, which fits `usize` even without the zero dimensions.
fn shape(dims: &[i64]) -> Result<(Vec<usize>, usize), TensorProblem> {
    let impossible = || TensorProblem::Shape(dims.to_vec());
    let sizes = dims
        .iter()
        .map(|&dim| usize::try_from(dim))
        .collect::<Result<Vec<_>, _>>()
        .map_err(|_| impossible())?;
    let non_zero = sizes.iter().filter(|&&dim| dim > 0);
    let product = non_zero.copied().try_fold(1usize, usize::checked_mul);
    let product = product.ok_or_else(impossible)?;
    let elements = if sizes.contains(&0) { 0 } else { product };
    Ok((sizes, elements))
}

/// Bytes that a tensor's `raw_data` must have, where type and shape tell.
pub(crate) fn raw_len(proto: &TensorProto) -> Option<u64> {
    let dtype = known_type(proto.data_type.unwrap_or(0)).ok()?;
    let (_, elements) = shape(&proto.dims).ok()?;
    u64::try_from(dtype.byte_len(elements)?).ok()
}

struct Source<'a> {
    proto: &'a TensorProto,
    dtype: DataType,
    dims: &'a [usize],
    elements: usize,
}

impl Source<'_> {
    fn raw(&self, raw: &Bytes) -> Result<Bytes, TensorProblem> {
        let expected = self
            .dtype
            .byte_len(self.elements)
            .ok_or_else(|| self.too_large())?;
        self.check(expected, raw.len(), "bytes")?;
        Ok(raw.clone())
    }

    /// Reads the field that the specification gives to the type.
    fn typed(&self) -> Result<Bytes, TensorProblem> {
        let proto = self.proto;
        match self.dtype {
            DataType::Float => self.copy(&proto.float_data, 1, f32::to_le_bytes),
            DataType::Complex64 => self.copy(&proto.float_data, 2, f32::to_le_bytes),
            DataType::Double => self.copy(&proto.double_data, 1, f64::to_le_bytes),
            DataType::Complex128 => self.copy(&proto.double_data, 2, f64::to_le_bytes),
            DataType::Int64 => self.copy(&proto.int64_data, 1, i64::to_le_bytes),
            DataType::Uint64 => self.copy(&proto.uint64_data, 1, u64::to_le_bytes),
            DataType::Int32 => self.copy(&proto.int32_data, 1, i32::to_le_bytes),
            DataType::Uint32 => self.uint32(),
            _ => self.narrow(),
        }
    }

    /// `parts` entries an element, each copied as it is.
    fn copy<T: Copy, const N: usize>(
        &self,
        entries: &[T],
        parts: usize,
        to_bytes: fn(T) -> [u8; N],
    ) -> Result<Bytes, TensorProblem> {
        let expected = self
            .elements
            .checked_mul(parts)
            .ok_or_else(|| self.too_large())?;
        self.check(expected, entries.len(), "entries")?;
        Ok(bits::bytes_of(entries, to_bytes))
    }

    fn uint32(&self) -> Result<Bytes, TensorProblem> {
        let entries = &self.proto.uint64_data;
        self.check(self.elements, entries.len(), "entries")?;
        let mut out = Vec::with_capacity(entries.len() * 4);
        for &entry in entries {
            let value = u32::try_from(entry).map_err(|_| self.out_of_range(entry as i64))?;
            out.extend_from_slice(&value.to_le_bytes());
        }
        Ok(out.into())
    }

    /// Types of at most 16 bits, in `int32_data`.
    fn narrow(&self) -> Result<Bytes, TensorProblem> {
        let entries = &self.proto.int32_data;
        match self.dtype.bits() {
            Some(16) => self.low_bytes::<2>(entries, self.elements),
            Some(8) if self.dtype == DataType::Bool => {
                self.check(self.elements, entries.len(), "entries")?;
                Ok(entries.iter().map(|&entry| u8::from(entry != 0)).collect())
            }
            Some(8) => self.low_bytes::<1>(entries, self.elements),
            Some(6) => self.six_bits(entries),
            // Packed bytes, one an entry.
            Some(width) => self.low_bytes::<1>(entries, self.elements.div_ceil(8 / width)),
            None => Err(TensorProblem::String),
        }
    }

    /// One code of six bits an entry, unlike the narrower types.
    fn six_bits(&self, entries: &[i32]) -> Result<Bytes, TensorProblem> {
        self.check(self.elements, entries.len(), "entries")?;
        if let Some(&wide) = entries.iter().find(|&&entry| !(0..64).contains(&entry)) {
            return Err(self.out_of_range(wide.into()));
        }
        Ok(bits::pack(entries.iter().map(|&entry| entry as u8), 6).into())
    }

    /// The `N` low bytes of each entry. Producers write a code as signed or as unsigned: both fit.
    fn low_bytes<const N: usize>(
        &self,
        entries: &[i32],
        expected: usize,
    ) -> Result<Bytes, TensorProblem> {
        self.check(expected, entries.len(), "entries")?;
        let width = 8 * N as u32;
        let fits = -(1 << (width - 1))..1 << width;
        let mut out = Vec::with_capacity(entries.len() * N);
        for &entry in entries {
            if !fits.contains(&entry) {
                return Err(self.out_of_range(entry.into()));
            }
            out.extend_from_slice(&entry.to_le_bytes()[..N]);
        }
        Ok(out.into())
    }

    fn check(
        &self,
        expected: usize,
        found: usize,
        unit: &'static str,
    ) -> Result<(), TensorProblem> {
        if expected == found {
            return Ok(());
        }
        Err(TensorProblem::Length {
            dtype: self.dtype,
            dims: self.dims.to_vec(),
            expected,
            found,
            unit,
        })
    }

    fn out_of_range(&self, value: i64) -> TensorProblem {
        TensorProblem::Range {
            dtype: self.dtype,
            value,
        }
    }

    fn too_large(&self) -> TensorProblem {
        TensorProblem::Shape(self.proto.dims.clone())
    }
}
