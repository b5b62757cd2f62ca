use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::RangeInclusive;
use std::path::Path;
use std::thread;

use bytes::{Buf, Bytes};
use prost::Message;

use super::{LoadError, external::DataFiles, visit::try_for_each_tensor};
use crate::Model;

/// A model in memory.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The model; every tensor holds its data.
    pub model: Model,
    /// Whether the file kept data of tensors in other files.
    pub external: bool,
}

/// Reads an ONNX file and the data files that it names.
///
/// Unknown fields are kept. Data files are looked for in the folder of the model and below; a
/// symbolic link there is followed. Checksums of data files are not checked.
///
/// # Errors
///
/// A file that cannot be read, is no ONNX model or lacks a graph, and external data that is missing,
/// too short or outside the folder.
pub fn load(path: impl AsRef<Path>) -> Result<Loaded, LoadError> {
    let path = path.as_ref();
    let bytes = read(path).map_err(|source| LoadError::Read {
        path: path.to_owned(),
        source,
    })?;
    let mut model = decode(path, bytes.into())?;
    let external = resolve(path, &mut model)?;
    Ok(Loaded { model, external })
}

/// Bytes of files that are read by several threads. Larger ones are no protobuf messages.
const SIDE_BY_SIDE: RangeInclusive<u64> = 64 << 20..=2 << 30;

/// All of a file. What takes time of a large one is that the system hands out fresh memory for it, so several threads ask.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path)?.len();
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let whole = usize::try_from(size).ok();
    let Some(whole) = whole.filter(|_| threads > 1 && SIDE_BY_SIDE.contains(&size)) else {
        return fs::read(path);
    };
    read_in_parts(path, whole, threads)
}

/// The first `whole` bytes, by so many threads.
fn read_in_parts(path: &Path, whole: usize, threads: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; whole];
    let length = whole.div_ceil(threads);
    let read_part = |place: usize, part: &mut [u8]| {
        let mut file = File::open(path)?;
        file.seek(SeekFrom::Start((place * length) as u64))?;
        file.read_exact(part)
    };
    thread::scope(|scope| {
        let parts = bytes.chunks_mut(length).enumerate();
        let readers = parts.map(|(place, part)| scope.spawn(move || read_part(place, part)));
        let readers: Vec<_> = readers.collect();
        let results = readers.into_iter().map(|reader| match reader.join() {
            Ok(result) => result,
            Err(_) => Err(io::Error::other("a thread that read it ended early")),
        });
        results.collect::<io::Result<()>>()
    })?;
    Ok(bytes)
}

fn decode(path: &Path, mut bytes: Bytes) -> Result<Model, LoadError> {
    let size = bytes.len();
    if size == 0 {
        return Err(LoadError::Empty(path.to_owned()));
    }
    if let Some((kind, mend)) = other_format(&bytes) {
        let path = path.to_owned();
        return Err(LoadError::OtherFormat { path, kind, mend });
    }
    let mut model = Model::default();
    model
        .merge(&mut bytes)
        .map_err(|source| LoadError::Decode {
            path: path.to_owned(),
            byte: size - bytes.remaining(),
            size,
            source,
        })?;
    if model.graph.is_none() {
        return Err(LoadError::NoGraph(path.to_owned()));
    }
    Ok(model)
}

/// What people hand over in place of a model, and what to do then.
fn other_format(bytes: &[u8]) -> Option<(&'static str, &'static str)> {
    let kinds: [(&[u8], _, _); 4] = [
        (
            b"version https://git-lfs",
            "a Git LFS pointer",
            "fetch the file with `git lfs pull`",
        ),
        (
            b"PK\x03\x04",
            "a zip archive",
            "unpack it, or export a PyTorch checkpoint to ONNX first",
        ),
        (b"<!DOCTYPE", "a web page", "download the file itself"),
        (b"<html", "a web page", "download the file itself"),
    ];
    if bytes.get(4..8) == Some(b"ORTM") {
        return Some((
            "an ORT format model",
            "use the ONNX file that it was made from",
        ));
    }
    let (_, kind, mend) = kinds.iter().find(|(start, ..)| bytes.starts_with(start))?;
    Some((kind, mend))
}

fn resolve(path: &Path, model: &mut Model) -> Result<bool, LoadError> {
    let mut files = DataFiles::beside(path);
    let mut external = false;
    try_for_each_tensor(model, |tensor| {
        external |= files
            .resolve(tensor)
            .map_err(|problem| LoadError::External {
                path: path.to_owned(),
                tensor: tensor.name().to_owned(),
                problem,
            })?;
        Ok(())
    })?;
    Ok(external)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn several_threads_read_what_one_does() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        let bytes: Vec<u8> = (0..1000u32).map(|i| (i * 7 % 251) as u8).collect();
        fs::write(&path, &bytes).unwrap();
        for threads in [2, 3, 7] {
            assert_eq!(read_in_parts(&path, 1000, threads).unwrap(), bytes);
        }
        let error = read_in_parts(&path, 1001, 3).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
