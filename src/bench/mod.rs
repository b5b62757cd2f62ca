//! How fast models run on this machine, side by side: a float model and what was made of it.
//!
//! Every round runs each model in turn, so that whatever else the machine does meets them all alike; the speed-up is the median
//! over the rounds of float time / quantised time.

mod feed;
mod fusion;
mod loaded;
mod memory;
mod report;
mod rounds;
mod spread;

use std::path::{Path, PathBuf};

use crate::calibrate::Progress;
use crate::error::Error;
use crate::run::Runtime;
use feed::Feed;
pub use fusion::Fusion;
use loaded::Loaded;
pub use report::{Benchmark, ModelReport, VERSION};
pub use spread::Spread;

/// What is measured, and how.
#[derive(Clone, Debug)]
pub struct Settings {
    /// What runs the models; tract with [`vitq_tract::fuse`].
    pub runtime: Runtime,
    /// Whether tract runs them as it is, without [`vitq_tract`].
    pub stock: bool,
    /// Threads of one run; tract has one.
    pub threads: usize,
    /// Samples of one run where the models leave it free; 1 unless given.
    pub batch: Option<usize>,
    /// Height and width where the models leave them free.
    pub size: Option<usize>,
    /// How often every model has its turn.
    pub rounds: usize,
}

/// Times a float model and others with the same inputs.
///
/// # Errors
/// A model cannot be read, fed or run, or takes other inputs than the first.
pub fn bench(
    float: &Path,
    others: &[PathBuf],
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Benchmark, Error> {
    let feed = Feed::of(float, settings)?;
    for other in others {
        feed.require_same(float, other, &Feed::of(other, settings)?)?;
    }
    let paths = std::iter::once(float).chain(others.iter().map(PathBuf::as_path));
    let models = paths
        .map(|path| Loaded::load(path, &feed, settings))
        .collect::<Result<Vec<_>, _>>()?;
    let rounds = rounds::measure(&models, &feed, settings.rounds, progress)?;
    Benchmark::new(settings, feed.batch, &models, &rounds)
}

/// Loads a model, runs it once and tells the peak memory of this process since; `None` where the system doesn't say.
///
/// # Errors
/// As [`bench()`].
pub fn peak_memory(model: &Path, settings: &Settings) -> Result<Option<u64>, Error> {
    let feed = Feed::of(model, settings)?;
    memory::forget_peak();
    Loaded::load(model, &feed, settings)?.run(&feed)?;
    Ok(memory::peak_of_this_process())
}
