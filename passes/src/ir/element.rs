//! Names of element types in ONNX's textual syntax, and the field of a TensorProto that holds their values.

use vitq_onnx::pb::tensor_proto::DataType as Type;

/// The field that elements are listed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Store {
    Int32,
    Int64,
    Uint64,
    Float,
    Double,
    Text,
}

/// An element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Element {
    pub name: &'static str,
    /// `TensorProto.DataType`
    pub number: i32,
    pub bits: usize,
    pub store: Store,
}

const ELEMENTS: [(&str, Type, usize, Store); 24] = [
    ("float", Type::Float, 32, Store::Float),
    ("uint8", Type::Uint8, 8, Store::Int32),
    ("int8", Type::Int8, 8, Store::Int32),
    ("uint16", Type::Uint16, 16, Store::Int32),
    ("int16", Type::Int16, 16, Store::Int32),
    ("int32", Type::Int32, 32, Store::Int32),
    ("int64", Type::Int64, 64, Store::Int64),
    ("string", Type::String, 0, Store::Text),
    ("bool", Type::Bool, 8, Store::Int32),
    ("float16", Type::Float16, 16, Store::Int32),
    ("double", Type::Double, 64, Store::Double),
    ("uint32", Type::Uint32, 32, Store::Uint64),
    ("uint64", Type::Uint64, 64, Store::Uint64),
    ("bfloat16", Type::Bfloat16, 16, Store::Int32),
    ("float8e4m3fn", Type::Float8e4m3fn, 8, Store::Int32),
    ("float8e4m3fnuz", Type::Float8e4m3fnuz, 8, Store::Int32),
    ("float8e5m2", Type::Float8e5m2, 8, Store::Int32),
    ("float8e5m2fnuz", Type::Float8e5m2fnuz, 8, Store::Int32),
    ("uint4", Type::Uint4, 4, Store::Int32),
    ("int4", Type::Int4, 4, Store::Int32),
    ("float4e2m1", Type::Float4e2m1, 4, Store::Int32),
    ("float8e8m0", Type::Float8e8m0, 8, Store::Int32),
    ("uint2", Type::Uint2, 2, Store::Int32),
    ("int2", Type::Int2, 2, Store::Int32),
];

impl Element {
    fn find(test: impl Fn(&str, i32) -> bool) -> Option<Element> {
        ELEMENTS
            .iter()
            .find(|(name, number, ..)| test(name, *number as i32))
            .map(|&(name, number, bits, store)| Element {
                name,
                number: number as i32,
                bits,
                store,
            })
    }

    pub fn by_name(wanted: &str) -> Option<Element> {
        Element::find(|name, _| name == wanted)
    }

    pub fn by_number(wanted: i32) -> Option<Element> {
        Element::find(|_, number| number == wanted)
    }

    /// Values that a list for these dimensions has: packed types list bytes. `None` if that overflows.
    pub fn entries(&self, dims: &[i64]) -> Option<usize> {
        let elements = dims
            .iter()
            .try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))?;
        match self.bits {
            2 | 4 => Some(elements.checked_mul(self.bits)?.div_ceil(8)),
            _ => Some(elements),
        }
    }
}
