//! A model, ready to be timed.

use std::path::{Path, PathBuf};

use vitq_passes::ir::Graph;

use super::feed::Feed;
use super::{Fusion, Settings};
use crate::error::Error;
use crate::model::ModelFile;
use crate::run::{self, Executor, RunError, RunOptions, Runtime, TractForm};

/// Name of the operator that tract's integer Linears become.
const TRACT_LINEAR: &str = "integer Linear";

/// A loaded model.
pub struct Loaded {
    pub path: PathBuf,
    executor: Box<dyn Executor>,
    options: RunOptions,
    runtime: Runtime,
}

impl Loaded {
    pub fn load(path: &Path, feed: &Feed, settings: &Settings) -> Result<Self, Error> {
        let options = RunOptions {
            threads: settings.threads,
            tract: if settings.stock {
                TractForm::Stock
            } else {
                TractForm::Fused
            },
            ..RunOptions::default()
        };
        let executor = run::load_file(settings.runtime, path, &feed.dims(), &options);
        Ok(Self {
            path: path.into(),
            executor: executor.map_err(|source| failed(path, source))?,
            options,
            runtime: settings.runtime,
        })
    }

    /// Runs once.
    pub fn run(&self, feed: &Feed) -> Result<(), Error> {
        let outputs = self.executor.run(&feed.tensors);
        outputs
            .map(drop)
            .map_err(|source| failed(&self.path, source))
    }

    /// What became of its quantised products.
    pub fn fusion(&self) -> Result<Fusion, Error> {
        match (self.runtime, self.executor.fused()) {
            (Runtime::Tract, Some(fused)) => {
                let graph = ModelFile::open(&self.path)?.graph;
                Ok(match self.options.tract {
                    TractForm::Fused => Fusion::with_fused(&graph, TRACT_LINEAR, fused),
                    TractForm::Stock | TractForm::Exact => Fusion::of(&graph),
                })
            }
            _ => {
                let optimised = run::optimised_by_onnx_runtime(&self.path, &self.options);
                let optimised = optimised.map_err(|source| failed(&self.path, source))?;
                let graph = Graph::import(&optimised).map_err(|source| Error::Graph {
                    path: self.path.clone(),
                    source,
                })?;
                Ok(Fusion::of(&graph))
            }
        }
    }
}

fn failed(path: &Path, source: RunError) -> Error {
    Error::Run {
        path: path.into(),
        source,
    }
}
