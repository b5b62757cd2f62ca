//! NumPy's `.npy`: a header in Python's notation, then the elements.
//!
//! Format: <https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html>. The header is read here, by a
//! parser that knows no nesting, as a general one for Python literals recurses and a hostile file can overflow it.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use super::super::error::{InputError, listed};
use super::super::model_input::ModelInput;
use super::{Column, Elements, Layout, Stored, broken, truncated};

const MAGIC: &[u8] = b"\x93NUMPY";

/// The longest header that is read; NumPy's own limit is 10,000 bytes.
const MAX_HEADER: u64 = 1 << 16;

/// The one array of a `.npy`, whose elements stay in the file until they are asked for.
pub(super) fn open(path: &Path, inputs: &[ModelInput]) -> Result<Vec<Column>, InputError> {
    let [_] = inputs else {
        let names: Vec<_> = inputs.iter().map(|input| &input.name).collect();
        let reason = format!(
            "a .npy holds one array, the model takes {} ({}); save them in one .npz by these names",
            names.len(),
            listed(&names)
        );
        return Err(broken(path, reason));
    };
    let file = File::open(path).map_err(|source| InputError::io(path, source))?;
    let size = file
        .metadata()
        .map_err(|source| InputError::io(path, source))?
        .len();
    let (layout, start) = header(BufReader::new(file)).map_err(|reason| broken(path, reason))?;
    check_length(path, "this .npy", &layout, size - start.min(size))?;
    Ok(vec![Column {
        layout,
        elements: Elements::File(path.into(), start),
    }])
}

/// Refuses an array whose elements reach beyond the `available` bytes.
pub(super) fn check_length(
    path: &Path,
    name: &str,
    layout: &Layout,
    available: u64,
) -> Result<(), InputError> {
    match layout.bytes() {
        Some(bytes) if bytes as u64 <= available => Ok(()),
        Some(bytes) => Err(truncated(path, name, available, bytes)),
        None => Err(truncated(
            path,
            name,
            available,
            "more than memory can hold",
        )),
    }
}

/// Reads a header: the layout, and how many bytes precede the elements.
pub(super) fn header(mut file: impl Read) -> Result<(Layout, u64), String> {
    const CUT: &str = "the file ends within its .npy header; write it again";
    let mut start = [0; 8];
    file.read_exact(&mut start).map_err(|_| CUT)?;
    let Some([major, _minor]) = start.strip_prefix(MAGIC) else {
        return Err(
            "the content is no .npy (it doesn't start with \\x93NUMPY); save it with numpy.save"
                .into(),
        );
    };
    let width: usize = match major {
        1 => 2,
        2 | 3 => 4,
        _ => {
            return Err(format!(
                ".npy version {major} is not known; save it with numpy.save"
            ));
        }
    };
    let mut length = [0; 4];
    file.read_exact(&mut length[..width]).map_err(|_| CUT)?;
    let length = u64::from(u32::from_le_bytes(length));
    if length > MAX_HEADER {
        return Err(format!(
            "a .npy header of {length} bytes is more than the limit of {MAX_HEADER}; save it with numpy.save"
        ));
    }
    let mut text = Vec::new();
    file.take(length)
        .read_to_end(&mut text)
        .map_err(|error| error.to_string())?;
    if text.len() as u64 != length {
        return Err(CUT.into());
    }
    let layout = layout(&String::from_utf8_lossy(&text))?;
    Ok((layout, (start.len() + width) as u64 + length))
}

/// `{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }`
fn layout(text: &str) -> Result<Layout, String> {
    let unreadable = |key: &str| {
        format!("`{key}` cannot be read from the .npy header; save a plain array with numpy.save")
    };
    let after = |key: &str| {
        let (_, rest) = text.split_once(&format!("'{key}'"))?;
        Some(rest.trim_start().strip_prefix(':')?.trim_start())
    };
    let order = after("fortran_order").ok_or_else(|| unreadable("fortran_order"))?;
    if !order.starts_with("False") {
        return Err(
            "the array is stored column by column; save numpy.ascontiguousarray of it".into(),
        );
    }
    let quoted = |rest: &str| Some(rest.strip_prefix('\'')?.split_once('\'')?.0.to_owned());
    let descr = after("descr")
        .and_then(quoted)
        .ok_or_else(|| unreadable("descr"))?;
    let (stored, big_endian) = element(&descr).ok_or_else(|| {
        format!("arrays of type `{descr}` are not read; convert it with `.astype(numpy.float32)`")
    })?;
    let dims = after("shape")
        .and_then(shape)
        .ok_or_else(|| unreadable("shape"))?;
    Ok(Layout {
        stored,
        big_endian,
        dims,
    })
}

fn shape(text: &str) -> Option<Vec<usize>> {
    let (inside, _) = text.strip_prefix('(')?.split_once(')')?;
    let dims = inside
        .split(',')
        .map(str::trim)
        .filter(|dim| !dim.is_empty());
    dims.map(|dim| dim.parse().ok()).collect()
}

fn element(descr: &str) -> Option<(Stored, bool)> {
    let (order, kind) = descr.split_at_checked(1)?;
    let stored = match kind {
        "f8" => Stored::F64,
        "f4" => Stored::F32,
        "f2" => Stored::F16,
        "i8" => Stored::I64,
        "i4" => Stored::I32,
        "i2" => Stored::I16,
        "i1" => Stored::I8,
        "u8" => Stored::U64,
        "u4" => Stored::U32,
        "u2" => Stored::U16,
        "u1" => Stored::U8,
        "b1" => Stored::Bool,
        _ => return None,
    };
    match order {
        "<" | "|" => Some((stored, false)),
        ">" => Some((stored, true)),
        _ => None,
    }
}
