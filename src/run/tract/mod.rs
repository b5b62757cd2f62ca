//! Running in tract.

mod values;

use std::sync::Arc;

use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;

use super::panics::caught;
use super::vector::release_upper_halves;
use super::{Array, Executor, RunError, RunOptions, Runtime, Signature, TractForm};

/// A model that tract has prepared. A run has its own state, so runs may overlap.
pub struct TractModel {
    plan: Arc<TypedRunnableModel>,
    signature: Signature,
    /// For each value to be given back, its place among the plan's outputs.
    places: Vec<usize>,
    fused: usize,
}

impl TractModel {
    /// Reads and, if asked to, optimises an encoded model.
    pub fn load(
        bytes: &[u8],
        signature: Signature,
        options: &RunOptions,
    ) -> Result<Self, RunError> {
        let mut proto = ModelProto::decode(bytes).map_err(|e| RunError::Decode(e.to_string()))?;
        if options.tract != TractForm::Stock {
            vitq_tract::widen(&mut proto)?;
        }
        let prepared = caught(|| prepare(&proto, &signature, options)).map_err(panicked)?;
        let Prepared {
            plan,
            places,
            fused,
        } = prepared?;
        Ok(Self {
            plan,
            signature,
            places,
            fused,
        })
    }

    fn feed(&self, inputs: &[(String, Array)]) -> Result<TVec<TValue>, RunError> {
        let arrays = self.signature.arrange(inputs)?;
        let names = self.signature.inputs.iter().map(|(name, _)| name);
        names
            .zip(arrays)
            .enumerate()
            .map(|(i, (name, array))| {
                let declared = self.plan.model().input_fact(i).map_err(running)?.datum_type;
                values::to_tract(name, array, declared).map(IntoTValue::into_tvalue)
            })
            .collect()
    }
}

impl Executor for TractModel {
    fn run(&self, inputs: &[(String, Array)]) -> Result<Vec<Array>, RunError> {
        let feed = self.feed(inputs)?;
        let given = caught(|| self.plan.run(feed));
        release_upper_halves();
        let given = given.map_err(panicked)?.map_err(running)?;
        let names = self.signature.outputs.iter();
        names
            .zip(&self.places)
            .map(|(name, &i)| values::from_tract(name, &given[i]))
            .collect()
    }

    fn outputs(&self) -> &[String] {
        &self.signature.outputs
    }

    fn fused(&self) -> Option<usize> {
        Some(self.fused)
    }
}

struct Prepared {
    plan: Arc<TypedRunnableModel>,
    places: Vec<usize>,
    fused: usize,
}

fn prepare(
    proto: &ModelProto,
    signature: &Signature,
    options: &RunOptions,
) -> Result<Prepared, RunError> {
    // value_info may hold a symbolic batch, which contradicts an input whose dims are fixed.
    let mut onnx = tract_onnx::onnx().with_ignore_value_info(true);
    if options.tract != TractForm::Stock {
        vitq_tract::register(&mut onnx.op_register);
    }
    let mut model = onnx.model_for_proto_model(proto).map_err(loading)?;
    fix_inputs(&mut model, signature)?;
    let places = select_outputs(&mut model, &signature.outputs)?;
    let mut typed = model.into_typed().map_err(loading)?;
    let fused = match options.tract {
        TractForm::Fused => vitq_tract::fuse(&mut typed).map_err(loading)?,
        TractForm::Stock | TractForm::Exact => 0,
    };
    let typed = if options.optimise {
        optimised(typed)
    } else {
        typed
    };
    let plan = typed.into_runnable().map_err(loading)?;
    Ok(Prepared {
        plan,
        places,
        fused,
    })
}

/// The model, faster where tract can make it so.
///
/// tract 0.23 fails to take a product apart whose Concat joins a broadcast value (`concat_then_einsum`); it runs the model
/// as it stands.
pub(crate) fn optimised(model: TypedModel) -> TypedModel {
    model.clone().into_optimized().unwrap_or_else(|error| {
        tracing::debug!("tract runs the model as it stands: {}", chain(&error));
        model
    })
}

fn fix_inputs(model: &mut InferenceModel, signature: &Signature) -> Result<(), RunError> {
    let outlets = model.input_outlets().map_err(loading)?.to_vec();
    for (i, outlet) in outlets.into_iter().enumerate() {
        let name = &model.node(outlet.node).name;
        let (_, dims) = signature
            .inputs
            .get(i)
            .filter(|(known, _)| known == name)
            .ok_or_else(|| RunError::MissingInput { name: name.clone() })?;
        let fact = model.input_fact(i).map_err(loading)?.clone();
        let fact = fact.with_shape(dims.as_slice());
        model.set_input_fact(i, fact).map_err(loading)?;
    }
    Ok(())
}

/// Makes the named values the model's outputs, each once, and tells where each is.
fn select_outputs(model: &mut InferenceModel, names: &[String]) -> Result<Vec<usize>, RunError> {
    let mut outlets: Vec<OutletId> = vec![];
    let mut places = vec![];
    for name in names {
        let outlet =
            find(model, name).ok_or_else(|| RunError::UnknownTap { name: name.clone() })?;
        let place = outlets
            .iter()
            .position(|&o| o == outlet)
            .unwrap_or(outlets.len());
        if place == outlets.len() {
            outlets.push(outlet);
        }
        places.push(place);
    }
    model.select_output_outlets(&outlets).map_err(loading)?;
    Ok(places)
}

/// Outputs of nodes are labelled with their ONNX names; inputs and initialisers are nodes of that name.
fn find(model: &InferenceModel, name: &str) -> Option<OutletId> {
    model.find_outlet_label(name).or_else(|| {
        let node = model
            .nodes()
            .iter()
            .find(|n| n.inputs.is_empty() && n.name == name)?;
        Some(OutletId::new(node.id, 0))
    })
}

fn loading(error: TractError) -> RunError {
    RunError::Load {
        runtime: Runtime::Tract,
        message: chain(&error),
    }
}

fn running(error: TractError) -> RunError {
    RunError::Run {
        runtime: Runtime::Tract,
        message: chain(&error),
    }
}

fn panicked(message: String) -> RunError {
    RunError::Panicked {
        runtime: Runtime::Tract,
        message,
    }
}

/// The causes of an error in one line. tract prints whole nodes, weights included, so it is cut.
fn chain(error: &TractError) -> String {
    const ENOUGH: usize = 600;
    let text = format!("{error:#}").replace('\n', " ");
    match text.char_indices().nth(ENOUGH) {
        Some((end, _)) => format!("{} ...", &text[..end]),
        None => text,
    }
}
