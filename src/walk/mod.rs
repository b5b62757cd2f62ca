//! Walks a float network from site to site with all calibration inputs side by side.
//!
//! Between two sites every input runs through tract, operator by operator, or through ONNX Runtime, all operators at once; at
//! a site all of them wait, so that its quantiser can be chosen from what arrives there and its result can differ: each input
//! has a float value and, in sequential calibration, a second one that the already quantised part of the network produced.
//! Only the values that are still to be read are kept.

mod cut;
mod lane;
#[cfg(feature = "onnxruntime")]
mod onnxruntime;
mod operators;
mod patches;
mod program;
pub(crate) mod spill;
mod tract;

use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use rayon::prelude::*;
use thiserror::Error;
use tract_onnx::prelude::Tensor;

use lane::Lane;
pub use lane::World;
pub(crate) use lane::{Held, gather};
pub use program::{Program, floats};
use spill::Spill;

use crate::input::Array;
use crate::run::{RunError, Runtime};

/// Why a walk failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WalkError {
    /// The float graph cannot be loaded.
    #[error("{runtime} cannot load the float graph: {message}; {}", mend(*runtime))]
    Load {
        /// What was to run it.
        runtime: Runtime,
        /// Its words.
        message: String,
    },
    /// An operator failed.
    #[error("{runtime} failed at {node}: {message}; {}", mend(*runtime))]
    Run {
        /// What ran it.
        runtime: Runtime,
        /// The operator, or the first of those that are run as one.
        node: String,
        /// The runtime's words.
        message: String,
    },
    /// The runtime is not there, or gets no input.
    #[error(transparent)]
    Runtime(#[from] RunError),
    /// What arrives at a site does not fit together.
    #[error("site {site}: {message}")]
    Site {
        /// The site.
        site: String,
        /// What is wrong.
        message: String,
    },
    /// An image without a single patch.
    #[error(
        "site {site}: images of {} by {} pixels are smaller than its patches of {} by {}: give larger ones, or say a size with --resize and --crop",
        image[0], image[1], patch[0], patch[1]
    )]
    TooSmall {
        /// The patch embedding.
        site: String,
        /// Height and width, pixels.
        image: [usize; 2],
        /// Height and width, pixels.
        patch: [usize; 2],
    },
    /// A value that must be f32 is not.
    #[error("the value at {0} is not float32: export the model in float32")]
    NotFloat(String),
    /// Temporary files fail.
    #[error(
        "{0}: {1}; calibration of many inputs keeps values in temporary files: free some space there, set TMPDIR, or use fewer inputs"
    )]
    Spill(PathBuf, std::io::Error),
}

/// What a user can do where a runtime is at its end.
fn mend(runtime: Runtime) -> &'static str {
    match runtime {
        Runtime::Tract if cfg!(feature = "onnxruntime") => {
            "ONNX Runtime may take it: --executor onnxruntime"
        }
        Runtime::Tract | Runtime::OnnxRuntime => "see `vitq inspect` for what the model holds",
    }
}

/// Lanes whose values are kept in memory, as many as are calibrated on by default; those of all further ones wait in temporary
/// files between sites, so that memory does not grow with the number of inputs.
const IN_MEMORY: usize = 32;

/// All lanes, stopped before a site. A clone shares their values.
#[derive(Clone)]
pub struct Walk<'p> {
    program: &'p Program,
    /// One a calibration input, in order.
    lanes: Vec<Lane>,
    step: usize,
    /// Sites that the last completion went through.
    passed: Vec<usize>,
    spill: Option<Arc<Spill>>,
}

impl<'p> Walk<'p> {
    /// A walk of `count` inputs that stands before the first operator.
    pub fn start<E: From<WalkError> + Send>(
        program: &'p Program,
        count: usize,
        input: impl Fn(usize) -> Result<Vec<(String, Array)>, E> + Sync,
    ) -> Result<Self, E> {
        let spill = (count > IN_MEMORY).then(Spill::new).transpose()?;
        let lanes = (0..count)
            .into_par_iter()
            .map(|i| {
                let mut lane = program.lane(&input(i)?)?;
                store(&mut lane, i, spill.as_ref())?;
                Ok(lane)
            })
            .collect::<Result<_, E>>()?;
        Ok(Walk {
            program,
            lanes,
            step: 0,
            passed: Vec::new(),
            spill,
        })
    }

    /// A second walk over some of the lanes, float world only, from where this one stands.
    pub fn branch(&self, lanes: Range<usize>) -> Walk<'p> {
        let lanes = self
            .lanes
            .iter()
            .take(lanes.end)
            .skip(lanes.start)
            .map(Lane::float_only)
            .collect();
        Walk {
            program: self.program,
            lanes,
            step: self.step,
            passed: Vec::new(),
            spill: None,
        }
    }

    /// Number of lanes.
    pub fn len(&self) -> usize {
        self.lanes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.lanes.is_empty()
    }

    /// Runs all lanes up to the next site, unless they stand before it; `None` at the end of the graph.
    pub fn advance(&mut self) -> Result<Option<usize>, WalkError> {
        let (next, site) = self.program.next_site(self.step);
        let (program, from, spill) = (self.program, self.step, self.spill.as_ref());
        self.lanes
            .par_iter_mut()
            .enumerate()
            .try_for_each(|(i, lane)| {
                program.run(lane, from..next)?;
                store(lane, i, spill)
            })?;
        self.step = next;
        Ok(site)
    }

    /// Gives the site that the walk stands at its result in each lane, and runs on to the next one.
    pub fn complete<E: From<WalkError> + Send>(
        &mut self,
        output: impl Fn(&Walk<'p>, usize) -> Result<SiteOutput, E> + Sync,
    ) -> Result<(), E> {
        self.complete_through(output, |_, _| Ok(None))
    }

    /// The same, and on behind the sites that `through` has a result of, for a walk of one lane that stands there: whether it has one
    /// depends on the site alone. What is between does not wait for the other lanes, in memory or in files.
    pub fn complete_through<E: From<WalkError> + Send>(
        &mut self,
        output: impl Fn(&Walk<'p>, usize) -> Result<SiteOutput, E> + Sync,
        through: impl Fn(&Walk<'p>, usize) -> Result<Option<SiteOutput>, E> + Sync,
    ) -> Result<(), E> {
        let alone = |i: usize| {
            let mut alone = Walk {
                program: self.program,
                lanes: vec![self.lanes[i].clone()],
                step: self.step,
                passed: Vec::new(),
                spill: None,
            };
            alone.give(output(self, i)?)?;
            while let (_, Some(site)) = self.program.next_site(alone.step) {
                let Some(output) = through(&alone, site)? else {
                    break;
                };
                alone.give(output)?;
                alone.passed.push(site);
            }
            for lane in &mut alone.lanes {
                store(lane, i, self.spill.as_ref())?;
            }
            Ok(alone)
        };
        let walks = (0..self.len()).into_par_iter().map(alone);
        let walks = walks.collect::<Result<Vec<Walk<'p>>, E>>()?;
        if let Some(first) = walks.first() {
            (self.step, self.passed) = (first.step, first.passed.clone());
        }
        self.lanes = walks.into_iter().flat_map(|walk| walk.lanes).collect();
        Ok(())
    }

    /// Gives the site that a walk of one lane stands at its result, and runs on to the next one.
    fn give(&mut self, output: SiteOutput) -> Result<(), WalkError> {
        let (next, _) = self.program.next_site(self.step + 1);
        if let [lane] = &mut self.lanes[..] {
            self.program.complete(lane, self.step, output);
            self.program.run(lane, self.step + 1..next)?;
        }
        self.step = next;
        Ok(())
    }

    /// Sites that the last completion went through, in order.
    pub fn passed(&self) -> &[usize] {
        &self.passed
    }

    /// Operand `i` of the site that the walk stands at.
    pub(crate) fn operand(&self, lane: usize, i: usize, world: World) -> Option<Held> {
        self.program.operand(&self.lanes[lane], self.step, i, world)
    }

    /// Whether the site's inputs differ between the worlds.
    pub fn differs(&self, lane: usize) -> bool {
        self.program.differs(&self.lanes[lane], self.step)
    }

    /// Whether another walk at the same site holds the same float values but for the first operand, which only the site
    /// reads.
    pub fn differs_only_in_operand(&self, other: &Walk<'p>) -> Result<bool, WalkError> {
        let Some(operand) = self.program.last_read_by(self.step) else {
            return Ok(false);
        };
        for (a, b) in self.lanes.iter().zip(&other.lanes) {
            if !a.same_but(b, operand)? {
                return Ok(false);
            }
        }
        Ok(self.step == other.step)
    }

    /// The network's outputs of each lane, flattened, after the walk ended.
    pub fn outputs(&self, world: World) -> Result<Vec<Vec<f32>>, WalkError> {
        self.lanes
            .iter()
            .map(|lane| self.program.outputs(lane, world))
            .collect()
    }
}

fn store(lane: &mut Lane, index: usize, spill: Option<&Arc<Spill>>) -> Result<(), WalkError> {
    let spill = spill.filter(|_| index >= IN_MEMORY);
    spill.map_or(Ok(()), |spill| lane.spill(spill))
}

/// A site's result in one lane.
pub struct SiteOutput {
    /// Float world.
    pub float: Tensor,
    /// Quantised world, where it differs.
    pub quantised: Option<Tensor>,
}
