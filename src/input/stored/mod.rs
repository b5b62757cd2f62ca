//! Arrays in files: one array an input, samples along the first axis.

mod convert;
mod npy;
mod npz;
mod safetensors;

use std::borrow::Cow;
use std::fmt;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::array::Array;
use super::error::{InputError, listed};
use super::model_input::ModelInput;

/// Element types that files hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stored {
    F64,
    F32,
    F16,
    Bf16,
    I64,
    I32,
    I16,
    I8,
    U64,
    U32,
    U16,
    U8,
    Bool,
}

impl Stored {
    /// Bytes an element takes.
    fn size(self) -> usize {
        match self {
            Self::F64 | Self::I64 | Self::U64 => 8,
            Self::F32 | Self::I32 | Self::U32 => 4,
            Self::F16 | Self::Bf16 | Self::I16 | Self::U16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }
}

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

/// The shape and type of a stored array, its elements in row-major order.
#[derive(Clone, Debug, PartialEq)]
struct Layout {
    stored: Stored,
    big_endian: bool,
    /// Samples first.
    dims: Vec<usize>,
}

impl Layout {
    /// How many bytes the elements take, or `None` where no memory could hold them.
    fn bytes(&self) -> Option<usize> {
        self.dims
            .iter()
            .try_fold(self.stored.size(), |product, &dim| product.checked_mul(dim))
    }
}

/// Where the elements of a stored array lie.
enum Elements {
    /// In a file, from this byte on.
    File(PathBuf, u64),
    /// In memory, from this byte on.
    Memory(Vec<u8>, usize),
}

/// A stored array of which one sample can be read at a time.
struct Column {
    layout: Layout,
    elements: Elements,
}

impl Column {
    /// The bytes of sample `index`, which lies within the first axis.
    fn row(&self, index: usize) -> io::Result<Cow<'_, [u8]>> {
        let size = self.layout.dims[1..].iter().product::<usize>() * self.layout.stored.size();
        match &self.elements {
            Elements::Memory(bytes, start) => {
                let start = start + index * size;
                let row = bytes
                    .get(start..start + size)
                    .ok_or(io::ErrorKind::UnexpectedEof)?;
                Ok(Cow::Borrowed(row))
            }
            Elements::File(path, start) => {
                let mut file = File::open(path)?;
                file.seek(SeekFrom::Start(start + (index * size) as u64))?;
                let mut row = vec![0; size];
                file.read_exact(&mut row)?;
                Ok(Cow::Owned(row))
            }
        }
    }
}

/// The arrays of a file, one an input of the model.
pub(super) struct StoredArrays {
    path: PathBuf,
    columns: Vec<(ModelInput, Column)>,
    len: usize,
}

/// Opens an array file for a model with these inputs; the elements are read later where the format lets them.
pub(super) fn open(path: &Path, inputs: &[ModelInput]) -> Result<StoredArrays, InputError> {
    let extension = path
        .extension()
        .and_then(|extension| extension.to_str())
        .unwrap_or_default();
    let columns = match extension.to_ascii_lowercase().as_str() {
        "npy" => npy::open(path, inputs)?,
        "npz" => npz::open(path, inputs)?,
        "safetensors" => safetensors::open(path, inputs)?,
        _ => return Err(InputError::Kind { path: path.into() }),
    };
    let columns: Vec<_> = inputs.iter().cloned().zip(columns).collect();
    for (input, column) in &columns {
        check(path, input, &column.layout)?;
    }
    let len = common_length(path, &columns)?;
    Ok(StoredArrays {
        path: path.into(),
        columns,
        len,
    })
}

fn check(path: &Path, input: &ModelInput, layout: &Layout) -> Result<(), InputError> {
    let fits = layout
        .dims
        .split_first()
        .is_some_and(|(_, sample)| input.takes(sample) && !sample.contains(&0));
    if !fits {
        return Err(InputError::ArrayShape {
            path: path.into(),
            input: input.name.clone(),
            given: format!("{:?}", layout.dims),
            wanted: input.shape(),
        });
    }
    if !convert::possible(layout.stored, input.element) {
        return Err(InputError::ArrayType {
            path: path.into(),
            input: input.name.clone(),
            given: layout.stored.to_string(),
            wanted: input.element.to_string(),
        });
    }
    Ok(())
}

fn common_length(path: &Path, columns: &[(ModelInput, Column)]) -> Result<usize, InputError> {
    let lengths: Vec<usize> = columns
        .iter()
        .map(|(_, column)| column.layout.dims[0])
        .collect();
    let len = lengths.first().copied().unwrap_or(0);
    if lengths.iter().any(|&other| other != len) {
        let reason = format!(
            "the arrays hold {} samples, one number an input; save as many for each",
            listed(&lengths)
        );
        return Err(broken(path, reason));
    }
    if len == 0 {
        return Err(broken(
            path,
            "it holds no samples (the first axis is 0); save at least one",
        ));
    }
    Ok(len)
}

impl StoredArrays {
    pub fn len(&self) -> usize {
        self.len
    }

    /// The value of every input, batch axis 1, for sample `index`.
    pub fn sample(&self, index: usize) -> Result<Vec<(String, Array)>, InputError> {
        let value = |(input, column): &(ModelInput, Column)| {
            let row = column
                .row(index)
                .map_err(|source| InputError::io(&self.path, source))?;
            let mut dims = column.layout.dims.clone();
            dims[0] = 1;
            let array =
                convert::convert(&row, &column.layout, dims, input.element).map_err(|reason| {
                    InputError::Value {
                        path: self.path.clone(),
                        input: input.name.clone(),
                        sample: index,
                        reason,
                    }
                })?;
            Ok((input.name.clone(), array))
        };
        self.columns.iter().map(value).collect()
    }
}

fn broken(path: &Path, reason: impl Into<String>) -> InputError {
    InputError::ArrayFile {
        path: path.into(),
        reason: reason.into(),
    }
}

fn truncated(path: &Path, name: &str, has: u64, needs: impl fmt::Display) -> InputError {
    broken(
        path,
        format!(
            "{name} is cut off: {has} bytes where its header asks for {needs}; write the file again"
        ),
    )
}

fn no_array(path: &Path, input: &ModelInput, present: &[impl fmt::Display]) -> InputError {
    let present = if present.is_empty() {
        "none".into()
    } else {
        listed(present)
    };
    InputError::NoArray {
        path: path.into(),
        input: input.name.clone(),
        present,
    }
}
