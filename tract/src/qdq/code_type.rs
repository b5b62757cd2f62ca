use tract_core::prelude::DatumType;

/// An integer type that QuantizeLinear produces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeType {
    U2,
    I2,
    U4,
    I4,
    U8,
    I8,
    U16,
    I16,
}

impl CodeType {
    /// Reads a value of `TensorProto.DataType`.
    pub fn from_onnx(data_type: i32) -> Option<Self> {
        Some(match data_type {
            2 => Self::U8,
            3 => Self::I8,
            4 => Self::U16,
            5 => Self::I16,
            21 => Self::U4,
            22 => Self::I4,
            25 => Self::U2,
            26 => Self::I2,
            _ => return None,
        })
    }

    /// As [`from_onnx`](Self::from_onnx), but only the types of which several share a byte.
    pub fn packed(data_type: i32) -> Option<Self> {
        Self::from_onnx(data_type).filter(|code| code.bits() < 8)
    }

    /// The full range of a type of tract.
    pub fn of(datum_type: DatumType) -> Option<Self> {
        Some(match datum_type {
            DatumType::U8 => Self::U8,
            DatumType::I8 => Self::I8,
            DatumType::U16 => Self::U16,
            DatumType::I16 => Self::I16,
            _ => return None,
        })
    }

    /// The value of `TensorProto.DataType`.
    pub fn onnx(self) -> i32 {
        match self {
            Self::U8 => 2,
            Self::I8 => 3,
            Self::U16 => 4,
            Self::I16 => 5,
            Self::U4 => 21,
            Self::I4 => 22,
            Self::U2 => 25,
            Self::I2 => 26,
        }
    }

    /// The type of tract whose elements hold the codes.
    pub fn container(self) -> DatumType {
        match (self.bits(), self.is_signed()) {
            (16, false) => DatumType::U16,
            (16, true) => DatumType::I16,
            (_, false) => DatumType::U8,
            (_, true) => DatumType::I8,
        }
    }

    /// As [`container`](Self::container), as a value of `TensorProto.DataType`.
    pub fn container_onnx(self) -> i32 {
        Self::of(self.container()).map_or(self.onnx(), Self::onnx)
    }

    /// Bits of one code.
    pub fn bits(self) -> usize {
        match self {
            Self::U2 | Self::I2 => 2,
            Self::U4 | Self::I4 => 4,
            Self::U8 | Self::I8 => 8,
            Self::U16 | Self::I16 => 16,
        }
    }

    /// Whether codes may be negative.
    pub fn is_signed(self) -> bool {
        matches!(self, Self::I2 | Self::I4 | Self::I8 | Self::I16)
    }

    /// The least and the greatest code.
    pub fn range(self) -> (i32, i32) {
        let span = 1 << self.bits();
        if self.is_signed() {
            (-span / 2, span / 2 - 1)
        } else {
            (0, span - 1)
        }
    }
}
