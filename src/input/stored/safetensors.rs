//! `.safetensors`: a JSON header, then the elements of every array.
//!
//! Format: <https://huggingface.co/docs/safetensors>.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};

use super::super::error::InputError;
use super::super::model_input::ModelInput;
use super::{Column, Elements, Layout, Stored, broken, no_array, truncated};

/// The array of each input by name; the elements stay in the file until they are asked for.
pub(super) fn open(path: &Path, inputs: &[ModelInput]) -> Result<Vec<Column>, InputError> {
    let io_error = |source| InputError::io(path, source);
    let file = File::open(path).map_err(io_error)?;
    let size = file.metadata().map_err(io_error)?.len();
    let (metadata, start) = header(file, size).map_err(|reason| broken(path, reason))?;
    let end = start.saturating_add(metadata.data_len() as u64);
    if end > size {
        return Err(truncated(path, "this .safetensors", size, end));
    }
    let arrays = metadata.tensors();
    let column = |input: &ModelInput| {
        let Some(info) = arrays.get(&input.name) else {
            let mut present: Vec<_> = arrays.keys().collect();
            present.sort();
            return Err(no_array(path, input, &present));
        };
        let layout = layout(info).ok_or_else(|| {
            broken(
                path,
                format!(
                    "array `{}` has type {:?}, which is not read; store it as F32",
                    input.name, info.dtype
                ),
            )
        })?;
        let first = start + info.data_offsets.0 as u64;
        Ok(Column {
            layout,
            elements: Elements::File(path.into(), first),
        })
    };
    inputs.iter().map(column).collect()
}

/// What the header says, offsets and sizes checked against each other, and how many bytes precede the elements.
fn header(mut file: File, size: u64) -> Result<(Metadata, u64), String> {
    let mut length = [0; 8];
    file.read_exact(&mut length)
        .map_err(|_| "the file is shorter than a .safetensors header; write it again")?;
    let length = u64::from_le_bytes(length);
    if length > size.saturating_sub(8) {
        return Err(format!(
            "no .safetensors or cut off: a header of {length} bytes in a file of {size}; write it again"
        ));
    }
    let mut text = Vec::new();
    file.take(length)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    let metadata = serde_json::from_slice(&text).map_err(|error| {
        format!("its .safetensors header cannot be read ({error}); write the file again")
    })?;
    Ok((metadata, 8 + length))
}

fn layout(info: &TensorInfo) -> Option<Layout> {
    let stored = match info.dtype {
        Dtype::F64 => Stored::F64,
        Dtype::F32 => Stored::F32,
        Dtype::F16 => Stored::F16,
        Dtype::BF16 => Stored::Bf16,
        Dtype::I64 => Stored::I64,
        Dtype::I32 => Stored::I32,
        Dtype::I16 => Stored::I16,
        Dtype::I8 => Stored::I8,
        Dtype::U64 => Stored::U64,
        Dtype::U32 => Stored::U32,
        Dtype::U16 => Stored::U16,
        Dtype::U8 => Stored::U8,
        Dtype::BOOL => Stored::Bool,
        _ => return None,
    };
    Some(Layout {
        stored,
        big_endian: false,
        dims: info.shape.clone(),
    })
}
