//! One calibration input on its way through the network.

use std::collections::HashMap;
use std::sync::Arc;

use tract_onnx::prelude::Tensor;

use super::WalkError;
use super::operators::Value;
use super::program::floats;
use super::spill::{OnDisk, Spill};

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
    pub(super) float: HashMap<Value, Held>,
    /// Only the values that differ from the float ones.
    pub(super) quantised: HashMap<Value, Held>,
}

/// A value in memory, or waiting on disk while many other lanes are worked on.
#[derive(Clone)]
pub(crate) enum Held {
    Memory(Arc<Tensor>),
    Disk(Arc<OnDisk>),
}

impl Held {
    /// The value.
    pub fn get(&self) -> Result<Arc<Tensor>, WalkError> {
        match self {
            Held::Memory(tensor) => Ok(tensor.clone()),
            Held::Disk(on_disk) => on_disk.read(),
        }
    }

    /// Its dims.
    pub fn shape(&self) -> &[usize] {
        match self {
            Held::Memory(tensor) => tensor.shape(),
            Held::Disk(on_disk) => on_disk.shape(),
        }
    }

    /// Those rows that `pick` names of so many, one after the other; no others are read from a file. `None` of what is not f32.
    pub fn rows(
        &self,
        columns: usize,
        pick: impl FnOnce(usize) -> Vec<usize>,
    ) -> Result<Option<Vec<f32>>, WalkError> {
        let count = self.shape().iter().product::<usize>() / columns.max(1);
        let picked = pick(count);
        match self {
            Held::Memory(tensor) => {
                let gathered = floats(tensor).map(|all| gather(all, columns, &picked));
                Ok(gathered.ok())
            }
            Held::Disk(on_disk) => on_disk.read_rows(columns, &picked).map(Some),
        }
    }

    /// Moves a large f32 tensor to a file.
    fn spill(&mut self, spill: &Arc<Spill>) -> Result<(), WalkError> {
        if let Held::Memory(tensor) = self
            && let Some(on_disk) = spill.put(tensor)?
        {
            *self = Held::Disk(Arc::new(on_disk));
        }
        Ok(())
    }
}

/// Rows of `columns` values each, one after the other.
pub(crate) fn gather(all: &[f32], columns: usize, rows: &[usize]) -> Vec<f32> {
    let row = |&r: &usize| &all[r * columns..(r + 1) * columns];
    rows.iter().flat_map(row).copied().collect()
}

impl Lane {
    pub(super) fn float_only(&self) -> Lane {
        Lane {
            float: self.float.clone(),
            quantised: HashMap::new(),
        }
    }

    pub(super) fn values(&mut self, world: World) -> &mut HashMap<Value, Held> {
        match world {
            World::Float => &mut self.float,
            World::Quantised => &mut self.quantised,
        }
    }

    pub(super) fn value(&self, value: Value, world: World) -> Option<&Held> {
        let other = match world {
            World::Quantised => self.quantised.get(&value),
            World::Float => None,
        };
        other.or_else(|| self.float.get(&value))
    }

    /// Whether the float values are those of another lane, `except` one.
    pub(super) fn same_but(&self, other: &Lane, except: Value) -> Result<bool, WalkError> {
        if self.float.len() != other.float.len() {
            return Ok(false);
        }
        for (value, held) in self.float.iter().filter(|(v, _)| **v != except) {
            let Some(others) = other.float.get(value) else {
                return Ok(false);
            };
            if held.get()? != others.get()? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Moves all large values to files.
    pub(super) fn spill(&mut self, spill: &Arc<Spill>) -> Result<(), WalkError> {
        let values = [&mut self.float, &mut self.quantised].into_iter();
        values
            .flat_map(HashMap::values_mut)
            .try_for_each(|held| held.spill(spill))
    }
}
