//! What a model says about its inputs.

use std::fmt;

/// Element types that a sample can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ElementType {
    /// ONNX `FLOAT`.
    F32,
    /// ONNX `INT64`.
    I64,
    /// ONNX `INT32`.
    I32,
    /// ONNX `BOOL`.
    Bool,
    /// ONNX `UINT8`.
    U8,
}

impl fmt::Display for ElementType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::I64 => "i64",
            Self::I32 => "i32",
            Self::Bool => "bool",
            Self::U8 => "u8",
        })
    }
}

/// One graph input of the model.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelInput {
    /// The name in the graph.
    pub name: String,
    /// The extent of every axis, batch first; `None` where it is symbolic.
    pub dims: Vec<Option<usize>>,
    /// The element type.
    pub element: ElementType,
}

impl ModelInput {
    /// The shape as people read it: `[?, 3, 224, 224]`.
    pub(super) fn shape(&self) -> String {
        let dims: Vec<_> = self
            .dims
            .iter()
            .map(|dim| dim.map_or("?".into(), |d| d.to_string()))
            .collect();
        format!("[{}]", dims.join(", "))
    }

    /// Whether one sample of these dimensions (batch axis apart) can be fed.
    pub(super) fn takes(&self, sample: &[usize]) -> bool {
        self.dims.len() == sample.len() + 1
            && self.dims[1..]
                .iter()
                .zip(sample)
                .all(|(want, have)| want.is_none_or(|want| want == *have))
    }
}
