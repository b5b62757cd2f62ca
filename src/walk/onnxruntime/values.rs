//! Tensors between tract, in whose form the walk keeps them, and ONNX Runtime.

use half::f16;
use ort::session::SessionInputValue;
use ort::value::{DynValue, PrimitiveTensorElementType, TensorElementType, TensorRef, ValueType};
use tract_onnx::prelude::{Datum, DatumType, IntoTValue, TValue, Tensor};
use vitq_onnx::DataType;

/// The functions below for every element type that all have, by the names that Rust, tract, ONNX Runtime and ONNX have for it.
macro_rules! element_types {
    ($($rust:ty, $tract:ident, $runtime:ident, $onnx:ident;)*) => {
        /// The tensor, not copied.
        pub fn to_ort(tensor: &Tensor) -> Result<SessionInputValue<'_>, String> {
            match tensor.datum_type() {
                $(DatumType::$tract => view::<$rust>(tensor),)*
                other => Err(unknown(&other)),
            }
        }

        /// A copy of the value.
        pub fn from_ort(value: &DynValue) -> Result<TValue, String> {
            match value.dtype() {
                $(ValueType::Tensor { ty: TensorElementType::$runtime, .. } => copy::<$rust>(value),)*
                other => Err(unknown(other)),
            }
        }

        /// Its element type in ONNX.
        pub fn data_type(tensor: &Tensor) -> Result<DataType, String> {
            match tensor.datum_type() {
                $(DatumType::$tract => Ok(DataType::$onnx),)*
                other => Err(unknown(&other)),
            }
        }
    };
}

element_types! {
    f32, F32, Float32, Float;
    f64, F64, Float64, Double;
    f16, F16, Float16, Float16;
    i8, I8, Int8, Int8;
    i16, I16, Int16, Int16;
    i32, I32, Int32, Int32;
    i64, I64, Int64, Int64;
    u8, U8, Uint8, Uint8;
    u16, U16, Uint16, Uint16;
    u32, U32, Uint32, Uint32;
    u64, U64, Uint64, Uint64;
    bool, Bool, Bool, Bool;
}

fn view<T: PrimitiveTensorElementType + Datum>(
    tensor: &Tensor,
) -> Result<SessionInputValue<'_>, String> {
    let plain = tensor.try_as_plain_ram().map_err(|e| format!("{e:#}"))?;
    let elements = plain.as_slice::<T>().map_err(|e| format!("{e:#}"))?;
    let view = TensorRef::from_array_view((tensor.shape(), elements));
    Ok(view.map_err(|e| e.to_string())?.into())
}

fn copy<T: PrimitiveTensorElementType + Datum + Copy>(value: &DynValue) -> Result<TValue, String> {
    let (shape, elements) = value.try_extract_tensor::<T>().map_err(|e| e.to_string())?;
    let shape: Vec<usize> = shape.iter().map(|&extent| extent as usize).collect();
    let tensor = Tensor::from_shape(&shape, elements).map_err(|e| format!("{e:#}"))?;
    Ok(tensor.into_tvalue())
}

fn unknown(kind: &dyn std::fmt::Debug) -> String {
    format!("values of type {kind:?} do not pass between sites")
}
