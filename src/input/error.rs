//! What can be wrong with what a user feeds.

use std::fmt::Display;
use std::io;
use std::path::PathBuf;

use thiserror::Error;

use super::geometry::Size;

/// Why samples cannot be read; every message names the file and what to do.
#[derive(Debug, Error)]
pub enum InputError {
    /// A name that is none of the known ones.
    #[error("unknown {kind} `{name}`; give one of {known}")]
    UnknownName {
        /// What was to be named.
        kind: &'static str,
        /// What was given.
        name: String,
        /// What could have been given.
        known: String,
    },
    /// Numbers of the preprocessing that make no sense.
    #[error("preprocessing: {0}")]
    Preprocess(String),
    /// Nothing is at the path.
    #[error("{}: no such file or folder; check the path", path.display())]
    Missing {
        /// The path as given.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{}: cannot be read ({source}); check the permissions and the disk", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A file of a kind that holds no samples.
    #[error("{}: neither a folder of images nor an array file; give a folder, .npy, .npz or .safetensors", path.display())]
    Kind {
        /// The file.
        path: PathBuf,
    },
    /// A folder without images.
    #[error("{}: no images in this folder or in its sub-folders (searched one level deep for {extensions}); check the path", path.display())]
    NoImages {
        /// The folder.
        path: PathBuf,
        /// The extensions that count as images.
        extensions: String,
    },
    /// An image file that doesn't decode.
    #[error("{}: this image cannot be used: {reason}; repair the file or take it out of the folder", path.display())]
    Image {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// An image that declares more pixels than are decoded.
    #[error("{}: {size} pixels are more than the limit of {limit} pixels; scale the image down or take it out of the folder", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// What it declares.
        size: Size,
        /// The most that is decoded.
        limit: u64,
    },
    /// Images for a model that cannot take them.
    #[error("{}: images cannot be fed to this model: {reason}; give an array file (.npz or .safetensors) instead", path.display())]
    NotForImages {
        /// The folder.
        path: PathBuf,
        /// What about the model's inputs stands against it.
        reason: String,
    },
    /// Images without a statement of how they were preprocessed in training.
    #[error("{}: these are images, and how they become the numbers of input `{input}` is not stated; name a preprocessing ({presets})", path.display())]
    NoPreprocess {
        /// The folder.
        path: PathBuf,
        /// The model's input.
        input: String,
        /// The names known.
        presets: String,
    },
    /// Preprocessing that ends with another size than the model takes.
    #[error("{}: preprocessing gives {given} (channels, height, width) where input `{input}` takes {wanted}; set resize and crop to the model's size", path.display())]
    ImageSize {
        /// The image, or the folder where the size is the same for all.
        path: PathBuf,
        /// The model's input.
        input: String,
        /// Channels, height and width after preprocessing.
        given: String,
        /// The shape of the input.
        wanted: String,
    },
    /// Labels that cannot be had.
    #[error("{}: {reason}", path.display())]
    Labels {
        /// The class list or the folder.
        path: PathBuf,
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// An array file that is broken or of a form that isn't read.
    #[error("{}: {reason}", path.display())]
    ArrayFile {
        /// The file.
        path: PathBuf,
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// An input of the model for which the file holds nothing.
    #[error("{}: no array named `{input}`, which the model takes (the file holds {present}); save it under that name", path.display())]
    NoArray {
        /// The file.
        path: PathBuf,
        /// The model's input.
        input: String,
        /// The names in the file.
        present: String,
    },
    /// An array whose shape isn't the input's.
    #[error("{}: the array for input `{input}` has shape {given}, the model takes {wanted} (the first axis counts samples); reshape it before saving", path.display())]
    ArrayShape {
        /// The file.
        path: PathBuf,
        /// The model's input.
        input: String,
        /// The array's shape.
        given: String,
        /// The input's shape.
        wanted: String,
    },
    /// An array whose elements cannot become the input's.
    #[error("{}: the array for input `{input}` holds {given}, the model takes {wanted}; convert it with `.astype` before saving", path.display())]
    ArrayType {
        /// The file.
        path: PathBuf,
        /// The model's input.
        input: String,
        /// The stored type.
        given: String,
        /// The input's type.
        wanted: String,
    },
    /// A value that would change, or that isn't a number.
    #[error("{}: sample {sample} for input `{input}`: {reason}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The model's input.
        input: String,
        /// Index along the first axis, from 0.
        sample: usize,
        /// What is wrong and how to mend it.
        reason: String,
    },
    /// An index beyond the last sample.
    #[error("{}: sample {index} was asked for, but there are {len}", path.display())]
    Index {
        /// The folder or file.
        path: PathBuf,
        /// The index, from 0.
        index: usize,
        /// How many samples there are.
        len: usize,
    },
}

impl InputError {
    pub(super) fn unknown_name(kind: &'static str, name: &str, known: &[impl Display]) -> Self {
        Self::UnknownName {
            kind,
            name: name.into(),
            known: listed(known),
        }
    }

    /// The error of a path that was opened or listed.
    pub(super) fn io(path: impl Into<PathBuf>, source: io::Error) -> Self {
        let path = path.into();
        match source.kind() {
            io::ErrorKind::NotFound => Self::Missing { path },
            _ => Self::Io { path, source },
        }
    }
}

/// `a, b, c`.
pub(super) fn listed(items: &[impl Display]) -> String {
    let items: Vec<_> = items.iter().map(ToString::to_string).collect();
    items.join(", ")
}
