//! Ranges of the values between sites, for targets that want all of them quantised.
//!
//! One more pass over the samples, through the graph whose sites are quantised already: what the values are there, folds and
//! rotations included. Each run gives all values and leaves two numbers of each, so memory does not grow with the samples.

use prost::Message;
use rayon::prelude::*;
use vitq_passes::ir::Graph;
use vitq_passes::plan::ValuePlan;
use vitq_passes::quantise::{WIDEST, values};

use super::{CalibrateError, Feeds, Progress};
use crate::input::Array;
use crate::run::{self, Executor, RunOptions, Runtime};

/// Least and most of a value; of none so far, the other way round.
type Range = (f32, f32);

const EMPTY: Range = (f32::INFINITY, f32::NEG_INFINITY);

/// Ranges of the values that a target wants quantised in a graph whose sites are. Those that cannot be quantised are left out:
/// not finite, or beyond [`WIDEST`].
///
/// # Errors
/// A feed cannot be read, or the executor cannot run the graph.
pub fn observe(
    graph: &Graph,
    feeds: &dyn Feeds,
    executor: Runtime,
    progress: &dyn Progress,
) -> Result<Vec<ValuePlan>, CalibrateError> {
    if feeds.is_empty() {
        return Err(CalibrateError::NoInputs);
    }
    let names = values(graph);
    progress.stage("ranges", feeds.len() as u64);
    let executor = load(graph, feeds, &names, executor)?;
    let first = executor.outputs().len() - names.len();
    let ranges = (0..feeds.len())
        .into_par_iter()
        .map(|i| {
            let seen = executor.run(&feeds.feed(i)?)?;
            progress.advance(1);
            Ok::<Vec<_>, CalibrateError>(seen.iter().skip(first).map(range).collect())
        })
        .try_reduce(|| vec![EMPTY; names.len()], |a, b| Ok(joined(&a, &b)))?;
    let usable = |&(least, most): &Range| -WIDEST <= least && least <= most && most <= WIDEST;
    let seen = names.into_iter().zip(ranges);
    Ok(seen
        .filter(|(_, range)| usable(range))
        .map(|(value, (least, most))| ValuePlan { value, least, most })
        .collect())
}

fn load(
    graph: &Graph,
    feeds: &dyn Feeds,
    names: &[String],
    executor: Runtime,
) -> Result<Box<dyn Executor>, CalibrateError> {
    let dims = feeds.feed(0)?.into_iter();
    let dims: Vec<_> = dims
        .map(|(name, array)| (name, array.dims().to_vec()))
        .collect();
    let bytes = graph.export().encode_to_vec();
    let options = RunOptions::default();
    Ok(run::load(executor, &bytes, &dims, names, &options)?)
}

/// Of one run; NaN makes both ends NaN, which no bound holds.
fn range(array: &Array) -> Range {
    let Some(values) = array.as_f32() else {
        return EMPTY;
    };
    values.iter().fold(EMPTY, |range, &v| join(range, (v, v)))
}

fn join(a: Range, b: Range) -> Range {
    let nan = (a.0 + b.0).is_nan() || (a.1 + b.1).is_nan();
    if nan {
        return (f32::NAN, f32::NAN);
    }
    (a.0.min(b.0), a.1.max(b.1))
}

fn joined(a: &[Range], b: &[Range]) -> Vec<Range> {
    a.iter().zip(b).map(|(&a, &b)| join(a, b)).collect()
}
