use ndarray::ArrayD;
use tract_onnx::prelude::*;

use crate::run::{Array, RunError};

/// Copies an array; its type must be the one that the model declares.
pub fn to_tract(name: &str, array: &Array, declared: DatumType) -> Result<Tensor, RunError> {
    let tensor = match array {
        Array::F32(a) => copy(a.iter().copied(), array.dims()),
        Array::I64(a) => copy(a.iter().copied(), array.dims()),
        Array::I32(a) => copy(a.iter().copied(), array.dims()),
        Array::Bool(a) => copy(a.iter().copied(), array.dims()),
        Array::U8(a) => copy(a.iter().copied(), array.dims()),
    };
    // tract computes with ONNX's INT64 as dimensions.
    let as_dimension = declared == DatumType::TDim && matches!(array, Array::I64(_));
    tensor
        .ok()
        .filter(|t| t.datum_type() == declared || as_dimension)
        .and_then(|t| Some(t.cast_to_dt(declared).ok()?.into_owned()))
        .ok_or_else(|| RunError::InputType {
            name: name.to_owned(),
            found: array.type_name(),
            expected: format!("{declared:?}"),
        })
}

fn copy<T: Datum + Copy>(elements: impl Iterator<Item = T>, dims: &[usize]) -> TractResult<Tensor> {
    Tensor::from_shape(dims, &elements.collect::<Vec<T>>())
}

/// Copies a tensor, widened as [`Executor::run`](crate::run::Executor::run) says.
pub fn from_tract(name: &str, tensor: &Tensor) -> Result<Array, RunError> {
    use DatumType as D;
    let array = match tensor.datum_type() {
        D::F32 | D::F16 | D::F64 => widened::<f32>(tensor).map(Array::from),
        D::I32 | D::I8 | D::I16 | D::U16 => widened::<i32>(tensor).map(Array::from),
        D::I64 | D::U32 | D::U64 | D::TDim => widened::<i64>(tensor).map(Array::from),
        D::U8 => widened::<u8>(tensor).map(Array::from),
        D::Bool => widened::<bool>(tensor).map(Array::from),
        _ => None,
    };
    array.ok_or_else(|| RunError::OutputType {
        name: name.to_owned(),
        found: format!("{:?}", tensor.datum_type()),
    })
}

fn widened<T: Datum + Copy>(tensor: &Tensor) -> Option<ArrayD<T>> {
    let tensor = tensor.cast_to::<T>().ok()?;
    let elements = tensor
        .try_as_plain_ram()
        .ok()?
        .as_slice::<T>()
        .ok()?
        .to_vec();
    ArrayD::from_shape_vec(tensor.shape(), elements).ok()
}
