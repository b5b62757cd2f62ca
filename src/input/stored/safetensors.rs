//! `.safetensors`: a JSON header, then the elements of every array.
//!
//! Format: <https://huggingface.co/docs/safetensors>.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use safetensors::tensor::TensorInfo;
use safetensors::{Dtype, SafeTensors};

use super::super::error::InputError;
use super::super::model_input::ModelInput;
use super::{Column, Elements, Layout, Stored, broken, no_array, npy};

/// The array of each input by name; the elements stay in the file until they are asked for.
pub(super) fn open(path: &Path, inputs: &[ModelInput]) -> Result<Vec<Column>, InputError> {
    let io_error = |source| InputError::io(path, source);
    let mut file = File::open(path).map_err(io_error)?;
    let size = file.metadata().map_err(io_error)?.len();
    let header = header(&mut file, size).map_err(|reason| broken(path, reason))?;
    let (length, metadata) = SafeTensors::read_metadata(&header).map_err(|error| {
        broken(
            path,
            format!("its .safetensors header cannot be read ({error}); write the file again"),
        )
    })?;
    let start = (8 + length) as u64;
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
        npy::check_length(
            path,
            &format!("array `{}`", input.name),
            &layout,
            size - first.min(size),
        )?;
        Ok(Column {
            layout,
            elements: Elements::File(path.into(), first),
        })
    };
    inputs.iter().map(column).collect()
}

/// The length and the text of the header, as they lie at the start of the file.
fn header(file: &mut File, size: u64) -> Result<Vec<u8>, String> {
    let mut bytes = vec![0; 8];
    file.read_exact(&mut bytes)
        .map_err(|_| "the file is shorter than a .safetensors header; write it again")?;
    let length = bytes
        .iter()
        .rev()
        .fold(0, |length, &byte| (length << 8) | u64::from(byte));
    if length > size - 8 {
        return Err(format!(
            "no .safetensors or cut off: a header of {length} bytes in a file of {size}; write it again"
        ));
    }
    file.take(length)
        .read_to_end(&mut bytes)
        .map_err(|error| error.to_string())?;
    Ok(bytes)
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
