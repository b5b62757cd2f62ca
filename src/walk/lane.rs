//! One calibration input on its way through the network.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tract_onnx::prelude::{DatumType, OutletId, Tensor};

use super::WalkError;

/// Which of a lane's two values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// What the float network computes.
    Float,
    /// What the network computes whose earlier sites are quantised.
    Quantised,
}

/// Live values of one input.
#[derive(Clone, Default)]
pub struct Lane {
    pub(super) float: HashMap<OutletId, Held>,
    /// Only the values that differ from the float ones.
    pub(super) quantised: HashMap<OutletId, Held>,
}

/// A value in memory, or waiting on disk while many other lanes are worked on.
#[derive(Clone)]
pub(super) enum Held {
    Memory(Arc<Tensor>),
    Disk(Arc<OnDisk>),
}

/// An f32 tensor in a file of its own, which goes when the last holder does.
pub(super) struct OnDisk {
    file: PathBuf,
    shape: Vec<usize>,
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        // The folder is temporary as a whole; a file that cannot be removed now goes with it.
        let _ = std::fs::remove_file(&self.file);
    }
}

impl Held {
    fn get(&self) -> Result<Arc<Tensor>, WalkError> {
        match self {
            Held::Memory(tensor) => Ok(tensor.clone()),
            Held::Disk(on_disk) => on_disk.read(),
        }
    }

    /// Moves a large f32 tensor to `file`.
    fn spill(&mut self, file: PathBuf) -> Result<(), WalkError> {
        /// Smaller tensors are not worth a file.
        const SMALL: usize = 1024;
        let Held::Memory(tensor) = self else {
            return Ok(());
        };
        if tensor.datum_type() != DatumType::F32 || tensor.len() < SMALL {
            return Ok(());
        }
        std::fs::write(&file, tensor.as_bytes()).map_err(|e| WalkError::Spill(file.clone(), e))?;
        *self = Held::Disk(Arc::new(OnDisk {
            file,
            shape: tensor.shape().to_vec(),
        }));
        Ok(())
    }
}

impl OnDisk {
    fn read(&self) -> Result<Arc<Tensor>, WalkError> {
        let bytes =
            std::fs::read(&self.file).map_err(|e| WalkError::Spill(self.file.clone(), e))?;
        let values: Vec<f32> = bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_ne_bytes(*b))
            .collect();
        Tensor::from_shape(&self.shape, &values)
            .map(Arc::new)
            .map_err(|e| {
                WalkError::Spill(self.file.clone(), std::io::Error::other(format!("{e:#}")))
            })
    }
}

impl Lane {
    pub(super) fn float_only(&self) -> Lane {
        Lane {
            float: self.float.clone(),
            quantised: HashMap::new(),
        }
    }

    pub(super) fn values(&mut self, world: World) -> &mut HashMap<OutletId, Held> {
        match world {
            World::Float => &mut self.float,
            World::Quantised => &mut self.quantised,
        }
    }

    pub(super) fn value(
        &self,
        outlet: OutletId,
        world: World,
    ) -> Result<Option<Arc<Tensor>>, WalkError> {
        let other = match world {
            World::Quantised => self.quantised.get(&outlet),
            World::Float => None,
        };
        other
            .or_else(|| self.float.get(&outlet))
            .map(Held::get)
            .transpose()
    }

    /// Whether the float values are those of another lane, `except` one.
    pub(super) fn same_but(&self, other: &Lane, except: OutletId) -> Result<bool, WalkError> {
        if self.float.len() != other.float.len() {
            return Ok(false);
        }
        for (outlet, held) in self.float.iter().filter(|(o, _)| **o != except) {
            let Some(others) = other.float.get(outlet) else {
                return Ok(false);
            };
            if held.get()? != others.get()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves all large values to files under `folder`, named after the lane.
    pub(super) fn spill(&mut self, folder: &Path, lane: usize) -> Result<(), WalkError> {
        for (world, values) in [
            ("float", &mut self.float),
            ("quantised", &mut self.quantised),
        ] {
            for (outlet, held) in values {
                held.spill(folder.join(format!("{lane}-{world}-{}-{}", outlet.node, outlet.slot)))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
