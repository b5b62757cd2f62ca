//! The float network, cut at its sites, in tract's optimised form.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use prost::Message;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{EvalContext, TypedOp};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::plan::SimplePlan;
use vitq_passes::ir::{Graph, Op};
use vitq_passes::structure::{Site, SiteKind, Structure};

use super::lane::{Held, Lane, World};
use super::site_op::{OP_TYPE, SiteOp, parse};
use super::{SiteOutput, WalkError, patches};
use crate::input::Array;
use crate::run::panics::caught;
use crate::run::tract::optimised;
use crate::run::vector::release_upper_halves;

/// A network ready to be walked.
pub struct Program {
    model: TypedModel,
    /// Operators in order, constants left out.
    order: Vec<usize>,
    /// Values nobody reads after a step.
    dead_after: Vec<Vec<OutletId>>,
    constants: HashMap<OutletId, Arc<Tensor>>,
}

impl Program {
    /// Cuts the graph at the sites and loads the rest for inputs of these dims.
    pub fn new(
        graph: &Graph,
        structure: &Structure,
        inputs: &[(String, Array)],
    ) -> Result<Program, WalkError> {
        patches::check(graph, structure, inputs)?;
        let bytes = cut(graph, structure).export().encode_to_vec();
        let model = caught(|| load(&bytes, inputs))
            .map_err(WalkError::Load)?
            .map_err(|e| WalkError::Load(format!("{e:#}")))?;
        let order = SimplePlan::new(model.clone())
            .map_err(|e| WalkError::Load(format!("{e:#}")))?
            .order_without_consts()
            .to_vec();
        let constants = model
            .nodes
            .iter()
            .filter_map(|n| Some((OutletId::new(n.id, 0), n.op_as::<Const>()?.val().clone())))
            .collect();
        let dead_after = dead_after(&model, &order);
        Ok(Program {
            model,
            order,
            dead_after,
            constants,
        })
    }

    /// A lane that holds its network inputs.
    pub(super) fn lane(&self, inputs: &[(String, Array)]) -> Result<Lane, WalkError> {
        let mut lane = Lane::default();
        for &outlet in &self.model.inputs {
            let name = &self.model.node(outlet.node).name;
            let (_, array) = inputs
                .iter()
                .find(|(n, _)| n == name)
                .or_else(|| inputs.first().filter(|_| inputs.len() == 1))
                .ok_or_else(|| WalkError::Load(format!("no array for input {name:?}")))?;
            lane.float
                .insert(outlet, Held::Memory(Arc::new(tensor(array))));
        }
        Ok(lane)
    }

    /// Index of the next site's step at or after `from` (the end, if there is none) and the site.
    pub(super) fn next_site(&self, from: usize) -> (usize, Option<usize>) {
        (from..self.order.len())
            .find_map(|step| Some((step, Some(self.site(step)?))))
            .unwrap_or((self.order.len(), None))
    }

    fn site(&self, step: usize) -> Option<usize> {
        self.model
            .node(self.order[step])
            .op_as::<SiteOp>()
            .map(|op| op.site)
    }

    /// Evaluates the operators of these steps in both worlds.
    pub(super) fn run(&self, lane: &mut Lane, steps: Range<usize>) -> Result<(), WalkError> {
        for step in steps {
            let node = self.model.node(self.order[step]);
            if !self.model.inputs.iter().any(|i| i.node == node.id) {
                // The quantised world first: it may read a float value that the float world then consumes.
                if node.inputs.iter().any(|i| lane.quantised.contains_key(i)) {
                    self.eval(lane, step, World::Quantised)?;
                }
                self.eval(lane, step, World::Float)?;
            }
            self.forget(lane, step);
        }
        // tract's kernels leave a state behind that slows the statistics' loops down many times.
        release_upper_halves();
        Ok(())
    }

    fn eval(&self, lane: &mut Lane, step: usize, world: World) -> Result<(), WalkError> {
        let node = self.model.node(self.order[step]);
        let failed = |message: String| WalkError::Run {
            node: node.name.clone(),
            message,
        };
        let inputs = node
            .inputs
            .iter()
            .map(|&i| {
                let value = self.value(lane, i, world)?;
                if self.consumes(step, i) {
                    // The operator may then work in place.
                    lane.values(world).remove(&i);
                }
                value
                    .map(|v| v.into_tvalue())
                    .ok_or_else(|| failed(format!("{i:?} has no value")))
            })
            .collect::<Result<TVec<TValue>, _>>()?;
        let context = EvalContext {
            node_id: node.id,
            ..EvalContext::out_of_plan()
        };
        let op: &dyn TypedOp = node.op.as_ref();
        let outputs = caught(|| op.eval(&context, inputs))
            .map_err(failed)?
            .map_err(|e| failed(format!("{e:#}")))?;
        for (slot, value) in outputs.into_iter().enumerate() {
            lane.values(world).insert(
                OutletId::new(node.id, slot),
                Held::Memory(value.into_arc_tensor()),
            );
        }
        Ok(())
    }

    /// The first operand of a step, if no later step reads it.
    pub(super) fn last_read_by(&self, step: usize) -> Option<OutletId> {
        let operand = *self.model.node(*self.order.get(step)?).inputs.first()?;
        self.consumes(step, operand).then_some(operand)
    }

    /// Whether a step is the last to read a value, and reads it once.
    fn consumes(&self, step: usize, value: OutletId) -> bool {
        let inputs = &self.model.node(self.order[step]).inputs;
        self.dead_after[step].contains(&value)
            && inputs.iter().filter(|&&i| i == value).count() == 1
    }

    fn forget(&self, lane: &mut Lane, step: usize) {
        for outlet in &self.dead_after[step] {
            lane.float.remove(outlet);
            lane.quantised.remove(outlet);
        }
    }

    fn value(
        &self,
        lane: &Lane,
        outlet: OutletId,
        world: World,
    ) -> Result<Option<Arc<Tensor>>, WalkError> {
        self.constants
            .get(&outlet)
            .map_or_else(|| lane.value(outlet, world), |c| Ok(Some(c.clone())))
    }

    /// Operand `i` of the site at `step`.
    pub(super) fn operand(
        &self,
        lane: &Lane,
        step: usize,
        i: usize,
        world: World,
    ) -> Result<Option<Arc<Tensor>>, WalkError> {
        match self.model.node(self.order[step]).inputs.get(i) {
            Some(&outlet) => self.value(lane, outlet, world),
            None => Ok(None),
        }
    }

    /// Whether the site's inputs differ between the worlds.
    pub(super) fn differs(&self, lane: &Lane, step: usize) -> bool {
        self.model
            .node(self.order[step])
            .inputs
            .iter()
            .any(|i| lane.quantised.contains_key(i))
    }

    pub(super) fn complete(&self, lane: &mut Lane, step: usize, output: SiteOutput) {
        let outlet = OutletId::new(self.order[step], 0);
        lane.float
            .insert(outlet, Held::Memory(Arc::new(output.float)));
        if let Some(quantised) = output.quantised {
            lane.quantised
                .insert(outlet, Held::Memory(Arc::new(quantised)));
        }
        self.forget(lane, step);
    }

    pub(super) fn outputs(&self, lane: &Lane, world: World) -> Result<Vec<f32>, WalkError> {
        let mut all = Vec::new();
        for outlet in &self.model.outputs {
            let value = self.value(lane, *outlet, world)?;
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

fn tensor(array: &Array) -> Tensor {
    match array {
        Array::F32(a) => a.to_owned().into_owned().into_tensor(),
        Array::I64(a) => a.to_owned().into_owned().into_tensor(),
        Array::I32(a) => a.to_owned().into_owned().into_tensor(),
        Array::Bool(a) => a.to_owned().into_owned().into_tensor(),
        Array::U8(a) => a.to_owned().into_owned().into_tensor(),
    }
}

fn load(bytes: &[u8], inputs: &[(String, Array)]) -> TractResult<TypedModel> {
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    onnx.op_register.insert(OP_TYPE, parse);
    let mut model = onnx.model_for_read(&mut &*bytes)?;
    for i in 0..model.inputs.len() {
        let name = model.node(model.inputs[i].node).name.clone();
        let array = inputs
            .iter()
            .find(|(n, _)| *n == name)
            .or(inputs.first().filter(|_| inputs.len() == 1));
        if let Some((_, array)) = array {
            let kind = tensor(array).datum_type();
            model.set_input_fact(i, InferenceFact::dt_shape(kind, array.dims()))?;
        }
    }
    for i in 0..model.outputs.len() {
        model.set_output_fact(i, InferenceFact::default())?;
    }
    Ok(optimised(model.into_typed()?))
}

/// The graph with each site replaced by one opaque operator.
fn cut(graph: &Graph, structure: &Structure) -> Graph {
    let mut graph = graph.clone();
    for (index, site) in structure.sites.iter().enumerate() {
        let mut op = Op::new(OP_TYPE, &format!("{}/{OP_TYPE}", site.name))
            .with_ints("site", &[index as i64]);
        op = op.with_ints("shape", &shape(&graph, site));
        let inputs: Vec<_> = [Some(site.activation), site.second]
            .into_iter()
            .flatten()
            .collect();
        let value = graph.insert_op(op, &inputs);
        graph.replace_uses(site.output, value);
    }
    graph.remove_dead();
    graph
}

fn shape(graph: &Graph, site: &Site) -> Vec<i64> {
    let Some(parameters) = &site.parameters else {
        return Vec::new();
    };
    let out = parameters.outputs as i64;
    match (site.kind, graph.constant_dims(parameters.weight).as_deref()) {
        (SiteKind::PatchEmbed, Some(&[_, _, h, w])) => vec![out, h as i64, w as i64],
        _ => vec![out],
    }
}

fn dead_after(model: &TypedModel, order: &[usize]) -> Vec<Vec<OutletId>> {
    let mut last = HashMap::new();
    for (step, &id) in order.iter().enumerate() {
        for &input in &model.node(id).inputs {
            last.insert(input, step);
        }
        for slot in 0..model.node(id).outputs.len() {
            last.entry(OutletId::new(id, slot)).or_insert(step);
        }
    }
    let mut dead = vec![Vec::new(); order.len()];
    for (outlet, step) in last {
        if !model.outputs.contains(&outlet) {
            dead[step].push(outlet);
        }
    }
    dead
}
