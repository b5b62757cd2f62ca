//! Values that wait in temporary files, so that memory does not grow with the number of calibration inputs.
//!
//! A file that nobody needs any more is written over by the next value of its size: making and removing one each time took half of calibration,
//! and one of another size leaves memory of the system's to what is never read.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tempfile::TempDir;
use tract_onnx::prelude::{DatumType, Tensor};

use super::WalkError;

/// A folder of values.
pub(crate) struct Spill {
    folder: TempDir,
    made: AtomicUsize,
    /// By the elements that they hold.
    free: Mutex<HashMap<usize, Vec<PathBuf>>>,
}

/// An f32 tensor in a file.
pub(crate) struct OnDisk {
    file: PathBuf,
    shape: Vec<usize>,
    spill: Arc<Spill>,
}

impl Spill {
    pub(crate) fn new() -> Result<Arc<Self>, WalkError> {
        let folder = tempfile::tempdir().map_err(|e| WalkError::Spill(std::env::temp_dir(), e))?;
        Ok(Arc::new(Spill {
            folder,
            made: AtomicUsize::new(0),
            free: Mutex::default(),
        }))
    }

    /// Writes a large f32 tensor to a file; `None` of what is not worth one.
    pub(crate) fn put(self: &Arc<Self>, tensor: &Tensor) -> Result<Option<OnDisk>, WalkError> {
        const SMALL: usize = 1024;
        if tensor.datum_type() != DatumType::F32 || tensor.len() < SMALL {
            return Ok(None);
        }
        let free = self.free().get_mut(&tensor.len()).and_then(Vec::pop);
        let file = free.unwrap_or_else(|| {
            let number = self.made.fetch_add(1, Ordering::Relaxed);
            self.folder.path().join(number.to_string())
        });
        let open = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(&file);
        open.and_then(|mut open| open.write_all(tensor.as_bytes()))
            .map_err(|e| WalkError::Spill(file.clone(), e))?;
        Ok(Some(OnDisk {
            file,
            shape: tensor.shape().to_vec(),
            spill: Arc::clone(self),
        }))
    }

    fn free(&self) -> MutexGuard<'_, HashMap<usize, Vec<PathBuf>>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OnDisk {
    pub(crate) fn read(&self) -> Result<Arc<Tensor>, WalkError> {
        let read = |file: &Path| {
            let mut tensor = Tensor::zero::<f32>(&self.shape)
                .map_err(|e| std::io::Error::other(format!("{e:#}")))?;
            File::open(file)?.read_exact(tensor.as_bytes_mut())?;
            Ok(Arc::new(tensor))
        };
        read(&self.file).map_err(|e| WalkError::Spill(self.file.clone(), e))
    }

    /// These rows, one after the other.
    pub(crate) fn read_rows(&self, columns: usize, rows: &[usize]) -> Result<Vec<f32>, WalkError> {
        let read = |path: &Path| {
            let mut file = File::open(path)?;
            let width = columns * size_of::<f32>();
            let mut bytes = Vec::new();
            let mut values = Vec::with_capacity(rows.len() * columns);
            for neighbours in rows.chunk_by(|a, b| a + 1 == *b) {
                bytes.resize(neighbours.len() * width, 0);
                file.seek(SeekFrom::Start((neighbours[0] * width) as u64))?;
                file.read_exact(&mut bytes)?;
                let (floats, _) = bytes.as_chunks();
                values.extend(floats.iter().map(|&bytes| f32::from_ne_bytes(bytes)));
            }
            Ok(values)
        };
        read(&self.file).map_err(|e| WalkError::Spill(self.file.clone(), e))
    }

    /// Dims.
    pub(crate) fn shape(&self) -> &[usize] {
        &self.shape
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let file = std::mem::take(&mut self.file);
        let elements = self.shape.iter().product();
        self.spill.free().entry(elements).or_default().push(file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tensor(from: usize, len: usize) -> Tensor {
        let values: Vec<f32> = (from..from + len)
            .map(|i| (i as f32 - 700.0) * 0.37)
            .collect();
        Tensor::from_shape(&[2, len / 2], &values).unwrap()
    }

    fn files(spill: &Spill) -> usize {
        std::fs::read_dir(spill.folder.path()).unwrap().count()
    }

    #[test]
    fn what_is_read_back_is_what_was_there_and_files_are_used_again() {
        let spill = Spill::new().unwrap();
        assert!(
            spill.put(&tensor(0, 8)).unwrap().is_none(),
            "small ones stay"
        );
        let (long, other) = (tensor(0, 4096), tensor(9, 2048));
        let first = spill.put(&long).unwrap().unwrap();
        let second = spill.put(&other).unwrap().unwrap();
        assert_eq!(
            (&*first.read().unwrap(), &*second.read().unwrap()),
            (&long, &other)
        );
        let values = crate::walk::floats(&long).unwrap();
        let rows = [values[600..700].to_vec(), values[100..300].to_vec()].concat();
        assert_eq!(first.read_rows(100, &[6, 1, 2]).unwrap(), rows);
        assert_eq!(files(&spill), 2);
        drop(second);
        let third = spill.put(&tensor(70, 2048)).unwrap().unwrap();
        assert_eq!(*third.read().unwrap(), tensor(70, 2048));
        assert_eq!(files(&spill), 2);
        // Of another size.
        drop(third);
        let fourth = spill.put(&long).unwrap().unwrap();
        assert_eq!(*fourth.read().unwrap(), long);
        assert_eq!(files(&spill), 3);
    }

    #[test]
    fn a_file_that_is_gone_is_named() {
        let spill = Spill::new().unwrap();
        let value = spill.put(&tensor(0, 2048)).unwrap().unwrap();
        std::fs::remove_dir_all(spill.folder.path()).unwrap();
        for error in [
            value.read().unwrap_err(),
            spill.put(&tensor(0, 2048)).err().unwrap(),
        ] {
            let (message, folder) = (error.to_string(), spill.folder.path().to_string_lossy());
            assert!(
                message.contains(&*folder) && message.contains("TMPDIR"),
                "{message}"
            );
        }
    }
}
