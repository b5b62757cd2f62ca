//! Rounds in which every model has its turn.

use std::time::Instant;

use super::feed::Feed;
use super::loaded::Loaded;
use super::spread::Spread;
use crate::calibrate::Progress;
use crate::error::Error;

/// Runs before the first round: memory is allocated, caches and clocks settle.
const WARM_UP: usize = 5;

/// Runs of a model in its turn, whose median counts: the first finds the caches full of the model before.
const RUNS: usize = 5;

/// Milliseconds of a run: for each round one figure a model.
pub fn measure(
    models: &[Loaded],
    feed: &Feed,
    rounds: usize,
    progress: &dyn Progress,
) -> Result<Vec<Vec<f64>>, Error> {
    for model in models {
        (0..WARM_UP).try_for_each(|_| model.run(feed))?;
    }
    progress.stage("time", rounds as u64);
    let round = |_| {
        progress.advance(1);
        models.iter().map(|model| turn(model, feed)).collect()
    };
    (0..rounds).map(round).collect()
}

fn turn(model: &Loaded, feed: &Feed) -> Result<f64, Error> {
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let clock = Instant::now();
        model.run(feed)?;
        times.push(1e3 * clock.elapsed().as_secs_f64());
    }
    Ok(Spread::of(times.into_iter()).map_or(0.0, |spread| spread.median))
}
