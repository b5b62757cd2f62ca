use std::{
    fs,
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use bytes::Bytes;
use prost::Message;
use tempfile::NamedTempFile;

use super::{SaveError, external::DataFile, visit::try_for_each_tensor};
use crate::{Model, pb::tensor_proto::DataLocation};

/// The most that protobuf allows for one message, bytes.
const MAX_MESSAGE: usize = i32::MAX as usize;

/// How a model is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SaveOptions {
    /// Tensors of 1 kB and more go to `<file name>.data` beside the model. They go there in any case
    /// where the model would else exceed the 2 GB of protobuf.
    pub external_data: bool,
}

/// Writes a model, and its data file where there is one: all of it, or nothing.
///
/// Files are written under temporary names beside their places and renamed when complete. A file
/// that is there already is replaced.
///
/// # Errors
///
/// A target that is no plain file, a full disk and the like, and a model too large for protobuf even
/// without its tensors.
pub fn save(model: &Model, path: impl AsRef<Path>, options: &SaveOptions) -> Result<(), SaveError> {
    save_within(MAX_MESSAGE, model, path.as_ref(), options)
}

fn save_within(
    limit: usize,
    model: &Model,
    path: &Path,
    options: &SaveOptions,
) -> Result<(), SaveError> {
    let target = Target::new(path)?;
    // Raw data is shared between clones, so this costs little.
    let mut model = model.clone();
    refuse_unresolved(&mut model)?;
    let data = (options.external_data || model.encoded_len() > limit)
        .then(|| target.take_data(&mut model));
    let size = model.encoded_len();
    if size > limit {
        return Err(SaveError::TooLarge(size));
    }
    match data.filter(|data| !data.parts().is_empty()) {
        Some(data) => target.write_with_data(&model, &data),
        None => target.stage_model(&model)?.publish(),
    }
}

fn refuse_unresolved(model: &mut Model) -> Result<(), SaveError> {
    try_for_each_tensor(model, |tensor| match tensor.data_location() {
        DataLocation::Default => Ok(()),
        DataLocation::External => Err(SaveError::Unresolved(tensor.name().to_owned())),
    })
}

/// Where a model goes.
struct Target {
    model: PathBuf,
    data: PathBuf,
    /// The data file as the model names it.
    location: String,
}

impl Target {
    fn new(path: &Path) -> Result<Self, SaveError> {
        let not_a_file = || SaveError::NotAFile(path.to_owned());
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .ok_or_else(not_a_file)?;
        let location = format!("{name}.data");
        let data = path.with_file_name(&location);
        for file in [path, &data] {
            // A rename would replace a device, too.
            if fs::metadata(file).is_ok_and(|found| !found.is_file()) {
                return Err(SaveError::NotAFile(file.to_owned()));
            }
        }
        Ok(Self {
            model: path.to_owned(),
            data,
            location,
        })
    }

    /// Moves the model's large tensors to a data file.
    fn take_data(&self, model: &mut Model) -> DataFile {
        let mut data = DataFile::new(self.location.clone());
        let Ok(()) = try_for_each_tensor(model, |tensor| {
            data.take(tensor);
            Ok::<_, std::convert::Infallible>(())
        });
        data
    }

    fn write_with_data(&self, model: &Model, data: &DataFile) -> Result<(), SaveError> {
        let staged_data = Staged::new(&self.data, |file| write_parts(file, data.parts()))?;
        let staged_model = self.stage_model(model)?;
        let replaces = self.data.exists();
        staged_data.publish()?;
        staged_model.publish().inspect_err(|_| {
            if !replaces {
                // The error at hand says more than one about the clean-up would.
                let _ = fs::remove_file(&self.data);
            }
        })
    }

    fn stage_model(&self, model: &Model) -> Result<Staged, SaveError> {
        Staged::new(&self.model, |file| file.write_all(&model.encode_to_vec()))
    }
}

fn write_parts(file: &mut impl Write, parts: &[(u64, Bytes)]) -> io::Result<()> {
    let mut written = 0;
    for (offset, bytes) in parts {
        io::copy(&mut io::Read::take(io::repeat(0), offset - written), file)?;
        file.write_all(bytes)?;
        written = offset + bytes.len() as u64;
    }
    Ok(())
}

/// A complete file under a temporary name; it vanishes unless it is published.
struct Staged {
    file: NamedTempFile,
    path: PathBuf,
}

impl Staged {
    fn new(
        path: &Path,
        write: impl FnOnce(&mut BufWriter<&mut NamedTempFile>) -> io::Result<()>,
    ) -> Result<Self, SaveError> {
        let staged = || {
            let folder = path
                .parent()
                .filter(|folder| !folder.as_os_str().is_empty());
            let mut file = temporary(folder.unwrap_or(Path::new(".")))?;
            let mut writer = BufWriter::new(&mut file);
            write(&mut writer)?;
            writer.flush()?;
            drop(writer);
            Ok(file)
        };
        let path = path.to_owned();
        match staged() {
            Ok(file) => Ok(Self { file, path }),
            Err(source) => Err(SaveError::Write { path, source }),
        }
    }

    fn publish(self) -> Result<(), SaveError> {
        match self.file.persist(&self.path) {
            Ok(_) => Ok(()),
            Err(error) => Err(SaveError::Write {
                path: self.path,
                source: error.error,
            }),
        }
    }
}

fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".vitq-").suffix(".tmp");
    // Temporary files are private by default; a model is as public as the user's umask makes it.
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder.tempfile_in(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Tensor, load, pb};

    fn model(elements: usize) -> Model {
        let values = vec![0.5; elements];
        let initializer = |name| Tensor::from_f32(&[elements], &values).to_proto(name);
        let graph = pb::GraphProto {
            initializer: vec![initializer("a"), initializer("b")],
            ..Default::default()
        };
        pb::ModelProto {
            graph: Some(graph.into()),
            ..Default::default()
        }
        .into()
    }

    #[test]
    fn tensors_move_outside_at_the_limit_and_not_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("m.onnx");
        let data = folder.path().join("m.onnx.data");
        let model = model(1000);
        let size = model.encoded_len();

        save_within(size, &model, &path, &SaveOptions::default()).expect("fits");
        assert!(!data.exists() && !load(&path).expect("loads").external);
        save_within(size - 1, &model, &path, &SaveOptions::default())
            .expect("fits with a data file");
        assert_eq!(fs::metadata(&data).expect("a data file").len(), 4096 + 4000);
        let loaded = load(&path).expect("loads");
        assert!(loaded.external);
        assert_eq!(loaded.model, model);
    }

    #[test]
    fn a_model_too_large_without_its_tensors_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let refused = save_within(
            1000,
            &model(200),
            &folder.path().join("m.onnx"),
            &SaveOptions::default(),
        );
        assert!(
            matches!(refused, Err(SaveError::TooLarge(_))),
            "{refused:?}"
        );
        assert_eq!(fs::read_dir(folder.path()).expect("a folder").count(), 0);
    }
}
