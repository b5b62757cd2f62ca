//! Files that are to be written: checked before the work, written whole or not at all.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::error::Error;

/// Fails where `path` could not be written later, or where writing it would overwrite one of `sources`.
///
/// # Errors
/// [`Error::Output`] says why.
pub fn check(path: &Path, sources: &[&Path]) -> Result<(), Error> {
    let refuse = |reason: String| Error::Output {
        path: path.into(),
        reason,
    };
    if path.is_dir() || path.file_name().is_none() {
        return Err(refuse("it is a folder; name a file".into()));
    }
    if let Some(source) = sources.iter().find(|source| same_file(path, source)) {
        return Err(refuse(format!(
            "{} is read here and would be overwritten; choose another name",
            source.display()
        )));
    }
    let folder = folder(path);
    if !folder.is_dir() {
        return Err(refuse(format!(
            "there is no folder {}; make it first",
            folder.display()
        )));
    }
    NamedTempFile::new_in(folder).map(drop).map_err(|error| {
        refuse(format!(
            "{} takes no files ({error}); choose another folder",
            folder.display()
        ))
    })
}

/// The same for several files, none of which may be another one, or one of `sources`.
///
/// # Errors
/// [`Error::Output`] says why.
pub fn check_all<'p>(
    paths: impl IntoIterator<Item = &'p Path>,
    sources: &[&'p Path],
) -> Result<(), Error> {
    let mut taken = sources.to_vec();
    for path in paths {
        check(path, &taken)?;
        taken.push(path);
    }
    Ok(())
}

/// Writes beside and renames, so that no half-written file is ever seen under the name.
///
/// # Errors
/// What the system says; the file is as it was before.
pub fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = beside(path)?;
    file.write_all(bytes)?;
    file.persist(path).map_err(|error| error.error)?;
    Ok(())
}

/// Writes a drawing, if it could be made, whole or not at all.
///
/// # Errors
/// [`Error::Write`]: it could not be made, or the file cannot be written.
pub fn write_svg(path: &Path, svg: io::Result<String>) -> Result<(), Error> {
    svg.and_then(|svg| write(path, svg.as_bytes()))
        .map_err(|source| Error::Write {
            path: path.into(),
            source,
        })
}

/// Writes a value as JSON, whole or not at all.
///
/// # Errors
/// [`Error::Write`]: the file cannot be written.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<(), Error> {
    let failed = |source| Error::Write {
        path: path.into(),
        source,
    };
    let json = serde_json::to_vec_pretty(value).map_err(|error| failed(error.into()))?;
    write(path, &json).map_err(failed)
}

/// A temporary file with the permissions of an ordinary new one: the crate's own are for the owner alone.
#[cfg(unix)]
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    use std::os::unix::fs::PermissionsExt;
    tempfile::Builder::new()
        .permissions(fs::Permissions::from_mode(0o666))
        .tempfile_in(folder(path))
}

/// A temporary file.
#[cfg(not(unix))]
fn beside(path: &Path) -> io::Result<NamedTempFile> {
    NamedTempFile::new_in(folder(path))
}

fn folder(path: &Path) -> &Path {
    path.parent()
        .filter(|it| !it.as_os_str().is_empty())
        .unwrap_or(Path::new("."))
}

/// Whether both names lead to one file, through links too.
fn same_file(a: &Path, b: &Path) -> bool {
    match (fs::canonicalize(a), fs::canonicalize(b)) {
        (Ok(a), Ok(b)) => a == b,
        _ => a == b,
    }
}
