//! The float network, cut at its sites, and what of it is kept between them.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use tract_onnx::prelude::*;
use vitq_passes::ir::Graph;
use vitq_passes::structure::Structure;

use super::cut::cut;
use super::lane::{Held, Lane, World};
#[cfg(feature = "onnxruntime")]
use super::onnxruntime;
use super::operators::{Network, Step, Value};
use super::{SiteOutput, WalkError, patches, tract};
use crate::input::Array;
use crate::run::vector::release_upper_halves;
use crate::run::{RunError, Runtime};

/// A network ready to be walked.
pub struct Program {
    network: Network,
    /// Values nobody reads after a step.
    dead_after: Vec<Vec<Value>>,
}

impl Program {
    /// Cuts the graph at the sites; `executor` loads the rest for inputs of these dims.
    pub fn new(
        graph: &Graph,
        structure: &Structure,
        inputs: &[(String, Array)],
        executor: Runtime,
    ) -> Result<Program, WalkError> {
        patches::check(graph, structure, inputs)?;
        let graph = cut(graph, structure);
        let network = match executor {
            Runtime::Tract => tract::load(&graph, inputs)?,
            #[cfg(feature = "onnxruntime")]
            Runtime::OnnxRuntime => onnxruntime::load(graph)?,
            #[cfg(not(feature = "onnxruntime"))]
            Runtime::OnnxRuntime => return Err(RunError::FeatureMissing.into()),
        };
        let dead_after = dead_after(&network);
        Ok(Program {
            network,
            dead_after,
        })
    }

    /// A lane that holds its network inputs, as far as they are read.
    pub(super) fn lane(&self, inputs: &[(String, Array)]) -> Result<Lane, WalkError> {
        let network = &self.network;
        let read: HashSet<Value> = network
            .steps
            .iter()
            .flat_map(|step| &step.reads)
            .chain(&network.outputs)
            .copied()
            .collect();
        let mut lane = Lane::default();
        for (name, value) in &network.inputs {
            let (_, array) = inputs
                .iter()
                .find(|(n, _)| n == name)
                .or_else(|| inputs.first().filter(|_| inputs.len() == 1))
                .ok_or_else(|| RunError::MissingInput { name: name.clone() })?;
            if read.contains(value) {
                let held = Held::Memory(Arc::new(tensor(array)));
                lane.float.insert(*value, held);
            }
        }
        Ok(lane)
    }

    fn step(&self, step: usize) -> &Step {
        &self.network.steps[step]
    }

    /// Index of the next site's step at or after `from` (the end, if there is none) and the site.
    pub(super) fn next_site(&self, from: usize) -> (usize, Option<usize>) {
        let end = self.network.steps.len();
        (from..end)
            .find_map(|step| Some((step, Some(self.step(step).site?))))
            .unwrap_or((end, None))
    }

    /// Runs these steps, none of them a site, in both worlds.
    pub(super) fn run(&self, lane: &mut Lane, steps: Range<usize>) -> Result<(), WalkError> {
        for step in steps {
            let mut reads = self.step(step).reads.iter();
            // The quantised world first: it may read a float value that the float world then consumes.
            if reads.any(|it| lane.quantised.contains_key(it)) {
                self.eval(lane, step, World::Quantised)?;
            }
            self.eval(lane, step, World::Float)?;
            self.forget(lane, step);
        }
        // tract's kernels leave a state behind that slows the statistics' loops down many times.
        release_upper_halves();
        Ok(())
    }

    fn eval(&self, lane: &mut Lane, step: usize, world: World) -> Result<(), WalkError> {
        let Step {
            name, reads, gives, ..
        } = self.step(step);
        let inputs = reads
            .iter()
            .map(|&i| {
                let value = self.value(lane, i, world).map(|held| held.get());
                let value = value.transpose()?;
                if self.consumes(step, i) {
                    // The operator may then work in place.
                    lane.values(world).remove(&i);
                }
                value
                    .map(IntoTValue::into_tvalue)
                    .ok_or_else(|| WalkError::Site {
                        site: name.clone(),
                        message: format!("{i:?} has no value"),
                    })
            })
            .collect::<Result<TVec<TValue>, _>>()?;
        let outputs = self.network.operators.run(step, inputs)?;
        for (&outlet, value) in gives.iter().zip(outputs) {
            lane.values(world)
                .insert(outlet, Held::Memory(value.into_arc_tensor()));
        }
        Ok(())
    }

    /// The first operand of a step, if no later step reads it.
    pub(super) fn last_read_by(&self, step: usize) -> Option<Value> {
        let operand = *self.network.steps.get(step)?.reads.first()?;
        self.consumes(step, operand).then_some(operand)
    }

    /// Whether a step is the last to read a value, and reads it once.
    fn consumes(&self, step: usize, value: Value) -> bool {
        let reads = &self.step(step).reads;
        self.dead_after[step].contains(&value) && reads.iter().filter(|&&i| i == value).count() == 1
    }

    fn forget(&self, lane: &mut Lane, step: usize) {
        for value in &self.dead_after[step] {
            lane.float.remove(value);
            lane.quantised.remove(value);
        }
    }

    fn value(&self, lane: &Lane, value: Value, world: World) -> Option<Held> {
        let constant = self.network.constants.get(&value).cloned();
        let constant = constant.map(Held::Memory);
        constant.or_else(|| lane.value(value, world).cloned())
    }

    /// Operand `i` of the site at `step`.
    pub(super) fn operand(&self, lane: &Lane, step: usize, i: usize, world: World) -> Option<Held> {
        self.value(lane, *self.step(step).reads.get(i)?, world)
    }

    /// Whether the site's inputs differ between the worlds.
    pub(super) fn differs(&self, lane: &Lane, step: usize) -> bool {
        let mut reads = self.step(step).reads.iter();
        reads.any(|i| lane.quantised.contains_key(i))
    }

    pub(super) fn complete(&self, lane: &mut Lane, step: usize, output: SiteOutput) {
        if let Some(&value) = self.step(step).gives.first() {
            let held = |tensor| Held::Memory(Arc::new(tensor));
            lane.float.insert(value, held(output.float));
            if let Some(quantised) = output.quantised {
                lane.quantised.insert(value, held(quantised));
            }
        }
        self.forget(lane, step);
    }

    pub(super) fn outputs(&self, lane: &Lane, world: World) -> Result<Vec<f32>, WalkError> {
        let mut all = Vec::new();
        for &output in &self.network.outputs {
            let value = self.value(lane, output, world).map(|held| held.get());
            let value = value.transpose()?;
            // Outputs that are no floats (a label, say) have no signal to compare.
            if let Some(values) = value.as_deref().and_then(|v| floats(v).ok()) {
                all.extend_from_slice(values);
            }
        }
        Ok(all)
    }
}

/// The elements of an f32 tensor.
pub fn floats(tensor: &Tensor) -> TractResult<&[f32]> {
    tensor.try_as_plain_ram()?.as_slice::<f32>()
}

pub(super) fn tensor(array: &Array) -> Tensor {
    match array {
        Array::F32(a) => a.to_owned().into_owned().into_tensor(),
        Array::I64(a) => a.to_owned().into_owned().into_tensor(),
        Array::I32(a) => a.to_owned().into_owned().into_tensor(),
        Array::Bool(a) => a.to_owned().into_owned().into_tensor(),
        Array::U8(a) => a.to_owned().into_owned().into_tensor(),
    }
}

fn dead_after(network: &Network) -> Vec<Vec<Value>> {
    let mut last = HashMap::new();
    for (i, step) in network.steps.iter().enumerate() {
        for &value in &step.reads {
            last.insert(value, i);
        }
        for &value in &step.gives {
            last.entry(value).or_insert(i);
        }
    }
    let mut dead = vec![Vec::new(); network.steps.len()];
    for (value, step) in last {
        if !network.outputs.contains(&value) {
            dead[step].push(value);
        }
    }
    dead
}
