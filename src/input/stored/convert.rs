//! Stored elements to the type that an input takes, where no value changes but by rounding to `f32`.

use half::{bf16, f16};
use ndarray::{ArrayD, IxDyn};

use super::super::array::Array;
use super::super::model_input::ElementType;
use super::{Layout, Stored};

/// A stored element, exactly.
#[derive(Clone, Copy)]
enum Number {
    Float(f64),
    Integer(i128),
}

/// Whether elements stored so can be fed to an input of this type: a fraction never goes to an integer.
pub(super) fn possible(stored: Stored, wanted: ElementType) -> bool {
    let float = matches!(
        stored,
        Stored::F64 | Stored::F32 | Stored::F16 | Stored::Bf16
    );
    match wanted {
        ElementType::F32 => true,
        ElementType::Bool => stored == Stored::Bool,
        ElementType::I64 | ElementType::I32 | ElementType::U8 => !float,
    }
}

/// Converts the bytes of `dims` elements; the error says which value doesn't fit, and the mend.
pub(super) fn convert(
    bytes: &[u8],
    layout: &Layout,
    dims: Vec<usize>,
    wanted: ElementType,
) -> Result<Array, String> {
    let numbers = decode(bytes, layout);
    match wanted {
        ElementType::F32 => shaped(dims, numbers, to_f32),
        ElementType::I64 => shaped(dims, numbers, to_integer::<i64>),
        ElementType::I32 => shaped(dims, numbers, to_integer::<i32>),
        ElementType::U8 => shaped(dims, numbers, to_integer::<u8>),
        ElementType::Bool => shaped(dims, numbers, to_bool),
    }
}

fn shaped<T>(
    dims: Vec<usize>,
    numbers: Vec<Number>,
    element: fn(Number) -> Result<T, String>,
) -> Result<Array, String>
where
    Array: From<ArrayD<T>>,
{
    let elements: Vec<T> = numbers.into_iter().map(element).collect::<Result<_, _>>()?;
    let array =
        ArrayD::from_shape_vec(IxDyn(&dims), elements).map_err(|error| error.to_string())?;
    Ok(array.into())
}

fn decode(bytes: &[u8], layout: &Layout) -> Vec<Number> {
    macro_rules! each {
        ($type:ty, $number:expr) => {
            bytes
                .as_chunks()
                .0
                .iter()
                .map(|&chunk| {
                    let value = if layout.big_endian {
                        <$type>::from_be_bytes(chunk)
                    } else {
                        <$type>::from_le_bytes(chunk)
                    };
                    $number(value)
                })
                .collect()
        };
    }
    match layout.stored {
        Stored::F64 => each!(f64, Number::Float),
        Stored::F32 => each!(f32, |value| Number::Float(f64::from(value))),
        Stored::F16 => each!(f16, |value| Number::Float(f64::from(value))),
        Stored::Bf16 => each!(bf16, |value| Number::Float(f64::from(value))),
        Stored::I64 => each!(i64, |value| Number::Integer(i128::from(value))),
        Stored::I32 => each!(i32, |value| Number::Integer(i128::from(value))),
        Stored::I16 => each!(i16, |value| Number::Integer(i128::from(value))),
        Stored::I8 => each!(i8, |value| Number::Integer(i128::from(value))),
        Stored::U64 => each!(u64, |value| Number::Integer(i128::from(value))),
        Stored::U32 => each!(u32, |value| Number::Integer(i128::from(value))),
        Stored::U16 => each!(u16, |value| Number::Integer(i128::from(value))),
        Stored::U8 | Stored::Bool => each!(u8, |value| Number::Integer(i128::from(value))),
    }
}

fn to_f32(number: Number) -> Result<f32, String> {
    match number {
        Number::Float(value) if value.is_nan() => {
            Err("it holds a NaN; look for the step that made it".into())
        }
        Number::Float(value) if value.is_finite() && (value as f32).is_infinite() => Err(format!(
            "{value:e} is beyond the range of f32; scale the data"
        )),
        Number::Float(value) => Ok(value as f32),
        Number::Integer(value) if (value as f32) as i128 == value => Ok(value as f32),
        Number::Integer(value) => Err(format!(
            "the integer {value} is no f32; convert the array to float32 before saving"
        )),
    }
}

fn to_integer<T: TryFrom<i128>>(number: Number) -> Result<T, String> {
    match number {
        Number::Integer(value) => T::try_from(value).map_err(|_| {
            format!("the integer {value} is beyond the range of the input's type; check the data")
        }),
        Number::Float(value) => Err(format!(
            "{value} is no integer; convert the array before saving"
        )),
    }
}

fn to_bool(number: Number) -> Result<bool, String> {
    to_integer::<u8>(number).map(|value| value != 0)
}
