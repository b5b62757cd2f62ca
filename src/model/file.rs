//! A model file of any kind, float or quantised: read and found fit to be run.

use std::path::Path;

use vitq_onnx::Model;
use vitq_passes::ir::Graph;

use super::{inputs, sound};
use crate::error::Error;
use crate::input::ModelInput;

/// What a file holds.
pub struct ModelFile {
    /// The file as it is, external data inside.
    pub message: Model,
    /// Its graph.
    pub graph: Graph,
    /// The graph's inputs.
    pub inputs: Vec<ModelInput>,
}

impl ModelFile {
    /// Reads a file.
    ///
    /// # Errors
    /// The file is missing or broken, or has inputs that cannot be fed.
    pub fn open(path: &Path) -> Result<Self, Error> {
        Self::of(path, vitq_onnx::load(path)?.model)
    }

    /// The file of a message that was read already.
    ///
    /// # Errors
    /// As [`ModelFile::open`].
    pub fn of(path: &Path, message: Model) -> Result<Self, Error> {
        let graph = Graph::import(&message).map_err(|source| Error::Graph {
            path: path.into(),
            source,
        })?;
        let unusable = |reason| Error::Unusable {
            path: path.into(),
            reason,
        };
        sound::check(&graph).map_err(unusable)?;
        let inputs = inputs::read(&graph).map_err(unusable)?;
        Ok(Self {
            message,
            graph,
            inputs,
        })
    }
}
