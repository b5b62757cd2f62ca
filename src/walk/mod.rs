//! Walks a float network from site to site with all calibration inputs side by side.
//!
//! Between two sites every input runs through tract, operator by operator; at a site all of them wait, so that its
//! quantiser can be chosen from what arrives there and its result can differ: each input has a float value and, in
//! sequential calibration, a second one that the already quantised part of the network produced. Only the values that
//! are still to be read are kept.

mod lane;
mod program;
mod site_op;

use rayon::prelude::*;
use thiserror::Error;

pub use lane::{Lane, World};
pub use program::{Program, floats};

use crate::input::Array;

/// Why a walk failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WalkError {
    /// The float graph cannot be loaded.
    #[error("tract cannot load the float graph: {0}; see `vitq inspect` for what it holds")]
    Load(String),
    /// An operator failed.
    #[error("tract failed at {node}: {message}")]
    Run {
        /// The operator.
        node: String,
        /// tract's words.
        message: String,
    },
    /// A value that must be f32 is not.
    #[error("the value at {0} is not float32: export the model in float32")]
    NotFloat(String),
}

/// All lanes, stopped before a site.
pub struct Walk<'p> {
    program: &'p Program,
    /// One a calibration input, in order.
    pub lanes: Vec<Lane>,
    step: usize,
}

impl<'p> Walk<'p> {
    /// A walk that stands before the first operator.
    pub fn start(program: &'p Program, inputs: Vec<Vec<(String, Array)>>) -> Result<Self, WalkError> {
        let lanes = inputs.iter().map(|input| program.lane(input)).collect::<Result<_, _>>()?;
        Ok(Walk { program, lanes, step: 0 })
    }

    /// A second walk over some of the lanes, float world only, from where this one stands.
    pub fn branch(&self, lanes: usize) -> Walk<'p> {
        let lanes = self.lanes.iter().take(lanes).map(Lane::float_only).collect();
        Walk { program: self.program, lanes, step: self.step }
    }

    /// Runs all lanes up to the next site; `None` at the end of the graph.
    pub fn advance(&mut self) -> Result<Option<usize>, WalkError> {
        let (next, site) = self.program.next_site(self.step);
        let (program, from) = (self.program, self.step);
        self.lanes.par_iter_mut().try_for_each(|lane| program.run(lane, from..next))?;
        self.step = next;
        Ok(site)
    }

    /// Gives the site that the walk stands at its results, one a lane, and steps over it.
    pub fn complete(&mut self, outputs: Vec<SiteOutput>) {
        for (lane, output) in self.lanes.iter_mut().zip(outputs) {
            self.program.complete(lane, self.step, output);
        }
        self.step += 1;
    }

    /// The network's outputs of each lane, flattened, after the walk ended.
    pub fn outputs(&self, world: World) -> Result<Vec<Vec<f32>>, WalkError> {
        self.lanes.iter().map(|lane| self.program.outputs(lane, world)).collect()
    }

    /// The program that is walked.
    pub fn program(&self) -> &'p Program {
        self.program
    }

    /// Step that the walk stands before.
    pub fn step(&self) -> usize {
        self.step
    }
}

/// A site's result in one lane.
pub struct SiteOutput {
    /// Float world.
    pub float: tract_onnx::prelude::Tensor,
    /// Quantised world, where it differs.
    pub quantised: Option<tract_onnx::prelude::Tensor>,
}
