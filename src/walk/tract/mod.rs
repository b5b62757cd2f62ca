//! What lies between two sites in tract: its optimised form of the cut graph, operator by operator.

mod site_op;

use std::collections::HashMap;
use std::sync::Arc;

use prost::Message;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::{EvalContext, TypedOp};
use tract_onnx::tract_core::ops::konst::Const;
use tract_onnx::tract_core::plan::SimplePlan;
use vitq_passes::ir::Graph;

use super::WalkError;
use super::cut::OP_TYPE;
use super::operators::{Network, Numbers, Operators, Step, Value};
use super::program::tensor;
use crate::input::Array;
use crate::run::Runtime;
use crate::run::panics::caught;
use crate::run::tract::optimised;
use site_op::{SiteOp, parse};

/// The model, and which of its operators each step is.
struct Nodes {
    model: TypedModel,
    order: Vec<usize>,
}

impl Operators for Nodes {
    fn run(&self, step: usize, inputs: TVec<TValue>) -> Result<TVec<TValue>, WalkError> {
        let node = self.model.node(self.order[step]);
        let failed = |message: String| WalkError::Run {
            runtime: Runtime::Tract,
            node: node.name.clone(),
            message,
        };
        let context = EvalContext {
            node_id: node.id,
            ..EvalContext::out_of_plan()
        };
        let op: &dyn TypedOp = node.op.as_ref();
        caught(|| op.eval(&context, inputs))
            .map_err(failed)?
            .map_err(|e| failed(format!("{e:#}")))
    }
}

/// Loads the cut graph for inputs of these dims.
pub fn load(graph: &Graph, inputs: &[(String, Array)]) -> Result<Network, WalkError> {
    let failed = |message: String| WalkError::Load {
        runtime: Runtime::Tract,
        message,
    };
    let bytes = graph.export().encode_to_vec();
    caught(|| network(&bytes, inputs))
        .map_err(failed)?
        .map_err(|e| failed(format!("{e:#}")))
}

fn network(bytes: &[u8], inputs: &[(String, Array)]) -> TractResult<Network> {
    let model = typed(bytes, inputs)?;
    let plan = SimplePlan::new(model.clone())?;
    let is_input = |id: &usize| model.inputs.iter().any(|input| input.node == *id);
    let order: Vec<usize> = plan
        .order_without_consts()
        .iter()
        .copied()
        .filter(|id| !is_input(id))
        .collect();
    let mut numbers = Numbers::new();
    let steps = order.iter().map(|&id| step(&model, id, &mut numbers));
    let steps = steps.collect();
    let named = |&input: &OutletId| model.node(input.node).name.clone();
    Ok(Network {
        steps,
        inputs: model
            .inputs
            .iter()
            .map(|input| (named(input), numbers.value(*input)))
            .collect(),
        outputs: model.outputs.iter().map(|&it| numbers.value(it)).collect(),
        constants: constants(&model, &mut numbers),
        operators: Box::new(Nodes { model, order }),
    })
}

fn step(model: &TypedModel, id: usize, numbers: &mut Numbers<OutletId>) -> Step {
    let node = model.node(id);
    let gives = (0..node.outputs.len()).map(|slot| OutletId::new(id, slot));
    Step {
        name: node.name.clone(),
        site: node.op_as::<SiteOp>().map(|op| op.site),
        reads: node.inputs.iter().map(|&it| numbers.value(it)).collect(),
        gives: gives.map(|it| numbers.value(it)).collect(),
    }
}

fn constants(model: &TypedModel, numbers: &mut Numbers<OutletId>) -> HashMap<Value, Arc<Tensor>> {
    let constant = |node: &TypedNode| {
        let value = node.op_as::<Const>()?.val().clone();
        Some((numbers.value(OutletId::new(node.id, 0)), value))
    };
    model.nodes.iter().filter_map(constant).collect()
}

fn typed(bytes: &[u8], inputs: &[(String, Array)]) -> TractResult<TypedModel> {
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
