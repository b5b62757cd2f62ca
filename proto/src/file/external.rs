//! Tensor data outside the model file.

use std::{
    collections::HashMap,
    fs,
    path::{Component, Path, PathBuf},
};

use bytes::Bytes;

use super::error::ExternalProblem;
use crate::{
    Lossless, Tensor, TensorMsg,
    pb::{StringStringEntryProto, TensorProto, tensor_proto::DataLocation},
    tensor::raw_len,
};

/// Tensors of fewer bytes stay in the model: shapes and axes must be readable without the data.
const THRESHOLD: usize = 1024;
/// The specification asks for offsets of whole pages, which a runtime can map.
const PAGE: u64 = 4096;

/// The data files of one model, each read once and shared by its tensors.
pub(super) struct DataFiles {
    folder: PathBuf,
    files: HashMap<String, Bytes>,
}

impl DataFiles {
    pub(super) fn beside(model: &Path) -> Self {
        Self {
            folder: model.parent().unwrap_or(Path::new("")).to_owned(),
            files: HashMap::new(),
        }
    }

    /// Puts an external tensor's data into `raw_data`. Says whether the tensor was external.
    pub(super) fn resolve(&mut self, tensor: &mut TensorProto) -> Result<bool, ExternalProblem> {
        if tensor.data_location() != DataLocation::External {
            return Ok(false);
        }
        tensor.raw_data = Some(self.slice(tensor)?);
        tensor.data_location = None;
        tensor.external_data.clear();
        Ok(true)
    }

    fn slice(&mut self, tensor: &TensorProto) -> Result<Bytes, ExternalProblem> {
        let location = entry(tensor, "location").filter(|location| !location.is_empty());
        let location = location.ok_or(ExternalProblem::NoLocation)?;
        let offset = number(tensor, "offset")?.unwrap_or(0);
        let length = number(tensor, "length")?;
        let file = self.file(location)?;
        let size = file.len();
        let rest = (size as u64).saturating_sub(offset);
        // Without a length the tensor reaches as far as its shape says, and only else to the file's end.
        let length = length.or_else(|| raw_len(tensor)).unwrap_or(rest);
        if offset > size as u64 || length > rest {
            return Err(ExternalProblem::BeyondEnd {
                path: self.folder.join(location),
                offset,
                length,
                size,
            });
        }
        // Both are at most `size`, a usize.
        Ok(file.slice(offset as usize..(offset + length) as usize))
    }

    fn file(&mut self, location: &str) -> Result<Bytes, ExternalProblem> {
        if let Some(file) = self.files.get(location) {
            return Ok(file.clone());
        }
        let inside = |part| matches!(part, Component::Normal(_) | Component::CurDir);
        if !Path::new(location).components().all(inside) {
            return Err(ExternalProblem::Outside(location.to_owned()));
        }
        let path = self.folder.join(location);
        let bytes = fs::read(&path).map_err(|source| ExternalProblem::Read { path, source })?;
        let file = Bytes::from(bytes);
        self.files.insert(location.to_owned(), file.clone());
        Ok(file)
    }
}

fn entry<'a>(tensor: &'a TensorProto, key: &str) -> Option<&'a str> {
    tensor
        .external_data
        .iter()
        .find(|entry| entry.key() == key)
        .map(|entry| entry.value())
}

fn number(tensor: &TensorProto, key: &'static str) -> Result<Option<u64>, ExternalProblem> {
    let Some(value) = entry(tensor, key) else {
        return Ok(None);
    };
    value
        .parse()
        .map(Some)
        .map_err(|_| ExternalProblem::NotANumber {
            key,
            value: value.to_owned(),
        })
}

/// A data file to be: what lies in it, and where.
pub(super) struct DataFile {
    /// As the tensors name it, relative to the model.
    location: String,
    parts: Vec<(u64, Bytes)>,
    end: u64,
}

impl DataFile {
    pub(super) fn new(location: String) -> Self {
        Self {
            location,
            parts: Vec::new(),
            end: 0,
        }
    }

    /// Moves a tensor's data here unless it is small or not numbers.
    pub(super) fn take(&mut self, message: &mut TensorMsg) {
        let Ok(tensor) = Tensor::from_proto(message) else {
            return;
        };
        if tensor.data.len() < THRESHOLD {
            return;
        }
        let offset = self.end.next_multiple_of(PAGE);
        self.end = offset + tensor.data.len() as u64;
        clear_data(message);
        message.data_location = Some(DataLocation::External as i32);
        message.external_data = vec![
            string_entry("location", self.location.clone()),
            string_entry("offset", offset.to_string()),
            string_entry("length", tensor.data.len().to_string()),
        ];
        self.parts.push((offset, tensor.data));
    }

    /// Offset and bytes of each part, in the order of the file.
    pub(super) fn parts(&self) -> &[(u64, Bytes)] {
        &self.parts
    }
}

fn clear_data(tensor: &mut TensorProto) {
    tensor.raw_data = None;
    tensor.float_data.clear();
    tensor.int32_data.clear();
    tensor.int64_data.clear();
    tensor.double_data.clear();
    tensor.uint64_data.clear();
}

fn string_entry(key: &str, value: String) -> Lossless<StringStringEntryProto> {
    StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value),
    }
    .into()
}
