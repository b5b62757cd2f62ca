pub use crate::pb::tensor_proto::DataType;

impl DataType {
    /// Bits that one element takes in `raw_data`; `None` for STRING and UNDEFINED.
    pub fn bits(self) -> Option<usize> {
        Some(match self {
            Self::Undefined | Self::String => return None,
            Self::Uint2 | Self::Int2 => 2,
            Self::Uint4 | Self::Int4 | Self::Float4e2m1 => 4,
            Self::Float6e2m3 | Self::Float6e3m2 => 6,
            Self::Uint8 | Self::Int8 | Self::Bool => 8,
            Self::Float8e4m3fn
            | Self::Float8e4m3fnuz
            | Self::Float8e5m2
            | Self::Float8e5m2fnuz
            | Self::Float8e8m0 => 8,
            Self::Uint16 | Self::Int16 | Self::Float16 | Self::Bfloat16 => 16,
            Self::Uint32 | Self::Int32 | Self::Float => 32,
            Self::Uint64 | Self::Int64 | Self::Double | Self::Complex64 => 64,
            Self::Complex128 => 128,
        })
    }

    /// Real floating-point types of any width.
    pub fn is_float(self) -> bool {
        matches!(
            self,
            Self::Float
                | Self::Double
                | Self::Float16
                | Self::Bfloat16
                | Self::Float8e4m3fn
                | Self::Float8e4m3fnuz
                | Self::Float8e5m2
                | Self::Float8e5m2fnuz
                | Self::Float8e8m0
                | Self::Float6e2m3
                | Self::Float6e3m2
                | Self::Float4e2m1
        )
    }

    /// Integer types of any width; BOOL is none.
    pub fn is_integer(self) -> bool {
        self.is_signed_integer() || self.is_unsigned_integer()
    }

    /// Integer types in two's complement.
    pub fn is_signed_integer(self) -> bool {
        matches!(
            self,
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Int16 | Self::Int32 | Self::Int64
        )
    }

    /// Unsigned integer types; BOOL is none.
    pub fn is_unsigned_integer(self) -> bool {
        matches!(
            self,
            Self::Uint2 | Self::Uint4 | Self::Uint8 | Self::Uint16 | Self::Uint32 | Self::Uint64
        )
    }

    /// The name as ONNX spells it: `FLOAT`, `INT8`, `FLOAT8E4M3FN`.
    pub fn name(self) -> &'static str {
        self.as_str_name()
    }

    /// Bytes that `elements` elements take in `raw_data`; `None` for types without a fixed width and
    /// where the number overflows.
    pub fn byte_len(self, elements: usize) -> Option<usize> {
        Some(elements.checked_mul(self.bits()?)?.div_ceil(8))
    }
}
