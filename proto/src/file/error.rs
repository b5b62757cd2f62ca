use std::{io, path::PathBuf};

use thiserror::Error;

/// Why a model file cannot be read.
#[derive(Debug, Error)]
pub enum LoadError {
    /// The file system refused.
    #[error("cannot read {path}: {source}", path = .path.display())]
    Read {
        /// The model file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file has no bytes.
    #[error("{path} is empty; export or download the model again", path = .0.display())]
    Empty(PathBuf),
    /// The file is of another, well-known kind.
    #[error("{path} is {kind}, not an ONNX model; {mend}", path = .path.display())]
    OtherFormat {
        /// The model file.
        path: PathBuf,
        /// What it is.
        kind: &'static str,
        /// What to do.
        mend: &'static str,
    },
    /// The bytes are no ONNX model.
    #[error(
        "{path} cannot be decoded at byte {byte} of {size}: {source}; is it an ONNX file, and complete?",
        path = .path.display()
    )]
    Decode {
        /// The model file.
        path: PathBuf,
        /// How far reading came.
        byte: usize,
        /// Bytes in the file.
        size: usize,
        /// What protobuf said.
        source: prost::DecodeError,
    },
    /// The file decodes and holds no graph.
    #[error("{path} holds no graph; is it an ONNX model (and not a tensor or another protobuf)?", path = .0.display())]
    NoGraph(PathBuf),
    /// A tensor's data in another file cannot be had.
    #[error("{path}: tensor `{tensor}`: {problem}", path = .path.display())]
    External {
        /// The model file.
        path: PathBuf,
        /// Name of the tensor; empty where it has none.
        tensor: String,
        /// What is wrong.
        problem: ExternalProblem,
    },
}

/// Why a tensor's data in another file cannot be had.
#[derive(Debug, Error)]
pub enum ExternalProblem {
    /// `location` is missing or empty.
    #[error("says that its data is external and not where; export the model again")]
    NoLocation,
    /// `location` leads out of the model's folder, where a file from elsewhere must not reach.
    #[error(
        "data location {0:?} is not a path inside the model's folder; move the data beside the model and name it so"
    )]
    Outside(String),
    /// `offset` or `length` is no number.
    #[error("external data {key} {value:?} is not a number of bytes")]
    NotANumber {
        /// `offset` or `length`.
        key: &'static str,
        /// What stands there.
        value: String,
    },
    /// The file system refused.
    #[error("cannot read its data file {path}: {source}; keep it beside the model", path = .path.display())]
    Read {
        /// The data file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The data would end behind the file's end.
    #[error("needs {length} bytes from byte {offset} of {path}, which has {size}: it is cut short or belongs to another model", path = .path.display())]
    BeyondEnd {
        /// The data file.
        path: PathBuf,
        /// First byte.
        offset: u64,
        /// Number of bytes.
        length: u64,
        /// Bytes in the file.
        size: usize,
    },
}

/// Why a model file was not written; nothing is left behind where it was to be.
#[derive(Debug, Error)]
pub enum SaveError {
    /// The file system refused.
    #[error("cannot write {path}: {source}{mend}", path = .path.display(), mend = mend(.source))]
    Write {
        /// The file that was to be.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The target is a folder, a device or has no name that ONNX can hold.
    #[error("{path} cannot be a model file; name a file", path = .0.display())]
    NotAFile(PathBuf),
    /// A tensor still refers to a data file of the model that it came from.
    #[error("tensor `{0}` refers to external data that was not loaded; read the model with `load`")]
    Unresolved(String),
    /// Even with its tensors outside, the model is larger than protobuf allows.
    #[error("the model without its tensors takes {0} bytes, protobuf allows 2147483647")]
    TooLarge(usize),
}

fn mend(source: &io::Error) -> &'static str {
    match source.kind() {
        io::ErrorKind::NotFound => "; create the folder first",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "; choose a folder that is yours"
        }
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; free some space or choose another disk"
        }
        _ => "",
    }
}
