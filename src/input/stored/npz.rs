//! NumPy's `.npz`: a zip archive with one `.npy` an array.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use zip::ZipArchive;

use super::super::error::InputError;
use super::super::model_input::ModelInput;
use super::{Column, Elements, broken, no_array, npy};

/// The array of each input by name, loaded whole: a compressed member can only be read from its beginning.
pub(super) fn open(path: &Path, inputs: &[ModelInput]) -> Result<Vec<Column>, InputError> {
    let file = File::open(path).map_err(|source| InputError::io(path, source))?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|error| {
        broken(
            path,
            format!("no .npz or cut off ({error}); write it again with numpy.savez"),
        )
    })?;
    inputs
        .iter()
        .map(|input| column(path, &mut archive, input))
        .collect()
}

fn column(
    path: &Path,
    archive: &mut ZipArchive<BufReader<File>>,
    input: &ModelInput,
) -> Result<Column, InputError> {
    let member = format!("{}.npy", input.name);
    if archive.index_for_name(&member).is_none() {
        let names = archive.file_names().flatten();
        let present: Vec<_> = names
            .map(|name| name.trim_end_matches(".npy").to_owned())
            .collect();
        return Err(no_array(path, input, &present));
    }
    let mut bytes = Vec::new();
    archive
        .by_name(&member)
        .map_err(|error| error.to_string())
        .and_then(|mut file| {
            file.read_to_end(&mut bytes)
                .map_err(|error| error.to_string())
        })
        .map_err(|error| {
            broken(
                path,
                format!(
                    "array `{}` cannot be unpacked ({error}); write the file again",
                    input.name
                ),
            )
        })?;
    let (layout, start) = npy::header(bytes.as_slice())
        .map_err(|reason| broken(path, format!("array `{}`: {reason}", input.name)))?;
    npy::check_length(
        path,
        &format!("array `{}`", input.name),
        &layout,
        bytes.len() as u64 - start,
    )?;
    Ok(Column {
        layout,
        elements: Elements::Memory(bytes, start as usize),
    })
}
