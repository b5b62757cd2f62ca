//! The float network and the quantised one side by side.

use std::collections::BTreeSet;
use std::sync::Arc;

use candle_core::{Tensor, Var};
use rayon::prelude::*;
use vitq_passes::ir::{Graph, Outlet};
use vitq_passes::plan::{Decision, NormPlan, Plan};
use vitq_passes::quantise::fold_norms;
use vitq_passes::structure::{Norm, Site, SiteKind, Structure};

use super::backend::Backend;
use super::draw::Random;
use super::importance::{Feature, importance};
use super::kernels;
use super::loss::{Loss, Objective, loss, of_tokens};
use super::network::{Network, Segment, Value, Values, norm_node, segments};
use super::sites::Products;
use super::state::{Leaves, NormState, Rates, State};
use super::views::View;
use super::{LearnError, message};
use crate::calibrate::{Feeds, Parameters};
use crate::input::Array;

/// Both networks for inputs of one shape. Outlets of one mean the same in the other: folding renames nothing.
pub struct Pair<'a> {
    structure: &'a Structure,
    float: Side,
    /// The one that learns.
    pub quantised: Side,
    /// One after the other.
    pub blocks: Arc<[Block]>,
    /// Values behind each block, the network's outputs left out.
    pub features: Vec<Outlet>,
    /// The network's outputs.
    pub outputs: Vec<Outlet>,
    /// Channels of a token: what Linears read.
    widths: BTreeSet<usize>,
    /// Where both are computed.
    pub backend: Backend,
}

/// A block of both networks.
pub struct Block {
    float: Segment,
    /// The one that learns.
    pub quantised: Segment,
}

/// One of them.
pub struct Side {
    network: Network,
    whole: Segment,
    /// One a site, and of the side that learns one a norm behind them.
    pub states: Vec<State>,
}

impl<'a> Pair<'a> {
    /// The networks of a plan that was made for `graph`, for inputs like `feed`.
    ///
    /// # Errors
    /// An operator is not known, or the plan does not fit.
    pub fn new(
        (graph, structure): (&Graph, &'a Structure),
        plan: &Plan,
        feed: &[(String, Array)],
        rates: &Rates,
        backend: Backend,
    ) -> Result<Self, LearnError> {
        let mut folded = graph.clone();
        fold_norms(&mut folded, structure, plan).map_err(|e| LearnError::Plan(e.to_string()))?;
        let float = Network::new(graph, structure, feed, &backend)?;
        let quantised = Network::new(&folded, structure, feed, &backend)?;
        let outputs: Vec<Outlet> = quantised.outputs.iter().map(|(_, o)| *o).collect();
        let blocks = blocks((&float, &quantised), structure);
        let features = blocks.iter().flat_map(|block| &block.quantised.writes);
        let features: Vec<Outlet> = features.copied().filter(|o| !outputs.contains(o)).collect();
        let side = |network: Network, plan: Option<&Plan>| {
            let states = structure.sites.iter();
            let mut whole = network.whole("the network");
            whole.writes.extend(&features);
            Ok::<_, LearnError>(Side {
                whole,
                states: states
                    .map(|site| state(graph, site, plan, (rates, &backend)))
                    .collect::<Result<_, _>>()?,
                network,
            })
        };
        let mut quantised = side(quantised, Some(plan))?;
        let parameters = structure
            .sites
            .iter()
            .filter_map(|it| it.parameters.as_ref());
        let linears = parameters.filter(|it| it.patch.is_none());
        let widths = linears.map(|it| it.inputs);
        let norms = structure.norms.iter();
        quantised.states.extend(norms.map(|norm| {
            let state = learning(&folded, (structure, norm), plan, rates);
            state.map_or_else(State::nothing, |it| State::Norm(Box::new(it)))
        }));
        Ok(Self {
            structure,
            float: side(float, None)?,
            quantised,
            blocks,
            features,
            outputs,
            widths: widths.collect(),
            backend,
        })
    }

    /// The network's inputs with an array each.
    ///
    /// # Errors
    /// One is missing or not float.
    pub fn inputs(&self, feed: &[(String, Array)]) -> Result<Values, LearnError> {
        self.place(inputs(&self.quantised.network, feed)?)
    }

    /// Inputs of one sample as `view` shows them, with parts of another where it shows some.
    ///
    /// # Errors
    /// A sample cannot be read, or is none for this network.
    pub fn view(
        &self,
        feeds: &dyn Feeds,
        (sample, other): (usize, usize),
        view: &View,
    ) -> Result<Values, LearnError> {
        let read = |sample| inputs(&self.quantised.network, &feeds.feed(sample)?);
        let mut inputs = read(sample)?;
        let others = match view.pastes() {
            true => read(other)?,
            false => Values::new(),
        };
        for (outlet, value) in &mut inputs {
            if let Value::Float(image) = value
                && image.rank() == 4
            {
                let other = match others.get(outlet) {
                    Some(Value::Float(other)) => Some(other),
                    _ => None,
                };
                *image = view.of(image, other).map_err(|e| LearnError::step(&e))?;
            }
        }
        self.place(inputs)
    }

    /// The same values where both networks are computed.
    fn place(&self, mut values: Values) -> Result<Values, LearnError> {
        for value in values.values_mut() {
            if let Value::Float(tensor) = value {
                let there = tensor.to_device(&self.backend.device);
                *tensor = there.map_err(|e| LearnError::step(&e))?;
            }
        }
        Ok(values)
    }

    /// What the float network makes of it.
    fn teach(&self, inputs: &Values) -> Result<Values, LearnError> {
        let leaves = self.float.leaves(false)?;
        self.run(&self.float, inputs, &leaves)
    }

    /// What errors at each token behind the float network's blocks cost at its outputs: [`importance`].
    ///
    /// # Errors
    /// An operator does not take its operands.
    pub fn importance(&self, inputs: &Values, mut random: Random) -> Result<Values, LearnError> {
        let leaves = self.float.leaves(false)?;
        let products = self.products(&self.float, &leaves);
        let mut values = inputs.clone();
        let mut features = Vec::new();
        for block in &*self.blocks {
            self.float
                .network
                .run(&block.float, &mut values, &products)?;
            for outlet in &block.quantised.writes {
                if let Some(Value::Float(value)) = values.get_mut(outlet)
                    && self.features.contains(outlet)
                    && of_tokens(value, &self.widths)
                {
                    let feature = watched(*outlet, value).map_err(|e| LearnError::step(&e))?;
                    features.push(feature);
                }
            }
        }
        let outputs = self.outputs.iter().filter_map(|it| match values.get(it) {
            Some(Value::Float(y)) => Some(y),
            _ => None,
        });
        let outputs: Vec<&Tensor> = outputs.collect();
        importance(&outputs, &features, &mut random).map_err(|e| LearnError::step(&e))
    }

    /// What the quantised network makes of it.
    fn try_out(&self, inputs: &Values, leaves: &[Leaves]) -> Result<Values, LearnError> {
        self.run(&self.quantised, inputs, leaves)
    }

    /// How far the quantised network is from the float one on a sample.
    ///
    /// # Errors
    /// An operator does not take its operands, or decisions are asked for where none are made.
    pub fn loss(
        &self,
        objective: Objective,
        inputs: &Values,
        leaves: &[Leaves],
    ) -> Result<Loss, LearnError> {
        self.judge(objective, &self.features, inputs, leaves)
    }

    /// The same of the values at the outputs alone: what a user of the network sees.
    ///
    /// # Errors
    /// As of [`Self::loss`].
    pub fn loss_at_outputs(&self, inputs: &Values, leaves: &[Leaves]) -> Result<Loss, LearnError> {
        self.judge(Objective::Values, &[], inputs, leaves)
    }

    fn judge(
        &self,
        objective: Objective,
        features: &[Outlet],
        inputs: &Values,
        leaves: &[Leaves],
    ) -> Result<Loss, LearnError> {
        let float = self.teach(inputs)?;
        let quantised = self.try_out(inputs, leaves)?;
        let (compared, alike) = ((&self.outputs[..], features), Values::new());
        self.compare(objective, compared, &quantised, (&float, &alike))
    }

    /// How far some values of the quantised network are from those of the float one: outputs and others.
    ///
    /// # Errors
    /// As of [`Self::loss`].
    pub fn compare(
        &self,
        objective: Objective,
        compared: (&[Outlet], &[Outlet]),
        quantised: &Values,
        (float, importance): (&Values, &Values),
    ) -> Result<Loss, LearnError> {
        loss(
            objective,
            compared,
            &self.widths,
            quantised,
            float,
            importance,
        )
        .map_err(|e| LearnError::step(&e))
    }

    fn run(&self, side: &Side, inputs: &Values, leaves: &[Leaves]) -> Result<Values, LearnError> {
        let products = self.products(side, leaves);
        let mut values = inputs.clone();
        side.network.run(&side.whole, &mut values, &products)?;
        values.retain(|outlet, _| side.whole.writes.contains(outlet));
        Ok(values)
    }

    /// The first operator of the quantised network whose result is no number.
    pub fn not_finite(&self, inputs: &Values, leaves: &[Leaves]) -> Option<String> {
        let products = self.products(&self.quantised, leaves);
        let Side { network, whole, .. } = &self.quantised;
        let mut values = inputs.clone();
        network.run(whole, &mut values, &products).ok()?;
        let wrong = |outlet: &Outlet| match values.get(outlet) {
            Some(Value::Float(tensor)) => {
                let sum = tensor.abs().and_then(|it| it.sum_all()?.to_scalar::<f32>());
                !sum.is_ok_and(f32::is_finite)
            }
            _ => false,
        };
        let step = network
            .steps
            .iter()
            .find(|step| step.writes.iter().any(wrong));
        step.map(|step| step.name.clone())
    }

    /// What a block of the float network makes of the values before it: those that are read later, and its targets.
    ///
    /// # Errors
    /// An operator does not take its operands.
    pub fn teach_block(&self, block: &Block, values: Values) -> Result<Values, LearnError> {
        let leaves = self.float.leaves_of(&block.float.places, false)?;
        self.pass(
            &self.float,
            &block.float,
            (values, &block.quantised.writes),
            &leaves,
        )
    }

    /// What a block of the quantised network makes of the values before it: those that are read later.
    ///
    /// # Errors
    /// An operator does not take its operands.
    pub fn pass_block(
        &self,
        block: &Block,
        values: Values,
        leaves: &[Leaves],
    ) -> Result<Values, LearnError> {
        self.pass(&self.quantised, &block.quantised, (values, &[]), leaves)
    }

    fn pass(
        &self,
        side: &Side,
        segment: &Segment,
        (mut values, more): (Values, &[Outlet]),
        leaves: &[Leaves],
    ) -> Result<Values, LearnError> {
        let products = self.products(side, leaves);
        side.network.run(segment, &mut values, &products)?;
        let needed = side.network.needed_from(segment.steps.end);
        values.retain(|outlet, _| needed.contains(outlet) || more.contains(outlet));
        Ok(values)
    }

    fn products<'s>(&'s self, side: &'s Side, leaves: &'s [Leaves]) -> Products<'s> {
        Products {
            structure: self.structure,
            states: &side.states,
            leaves,
            kernels: self.backend.kernels,
        }
    }

    /// Writes what was learned into the plan.
    pub fn write(&self, plan: &mut Plan) {
        for (site, state) in self.structure.sites.iter().zip(&self.quantised.states) {
            let planned = plan.sites.iter_mut().find(|s| s.site == site.name);
            if let (Some(planned), Some(decision)) = (planned, state.decision()) {
                planned.decision = decision;
            }
        }
        let behind = self
            .quantised
            .states
            .iter()
            .skip(self.structure.sites.len());
        for (norm, state) in self.structure.norms.iter().zip(behind) {
            let Some((gamma, beta)) = state.affine() else {
                continue;
            };
            match plan.norms.iter_mut().find(|it| it.norm == norm.name) {
                Some(planned) => (planned.gamma, planned.beta) = (gamma, beta),
                None => plan.norms.push(NormPlan {
                    norm: norm.name.clone(),
                    gamma,
                    beta,
                }),
            }
        }
    }
}

impl Side {
    /// The numbers of some places as tensors; nothing of the others.
    ///
    /// # Errors
    /// candle's.
    pub fn leaves_of(&self, places: &[usize], learn: bool) -> Result<Vec<Leaves>, LearnError> {
        let states = self.states.par_iter().enumerate();
        let backend = &self.network.backend;
        let leaves = states.map(|(place, state)| match places.contains(&place) {
            true => state.leaves(learn, backend),
            false => Ok(Leaves::Fixed(None)),
        });
        leaves
            .collect::<candle_core::Result<_>>()
            .map_err(|e| LearnError::step(&e))
    }

    /// All numbers as tensors; `learn` to differentiate by them.
    ///
    /// # Errors
    /// candle's.
    pub fn leaves(&self, learn: bool) -> Result<Vec<Leaves>, LearnError> {
        let backend = &self.network.backend;
        let states = self.states.par_iter();
        let leaves = states.map(|state| state.leaves(learn, backend));
        leaves
            .collect::<candle_core::Result<_>>()
            .map_err(|e| LearnError::step(&e))
    }
}

/// γ and β of a norm in front of quantised Linears, if they may change; `graph` has the plan's own.
fn learning(
    graph: &Graph,
    (structure, norm): (&Structure, &Norm),
    plan: &Plan,
    rates: &Rates,
) -> Option<NormState> {
    let planned = plan.norms.iter().any(|it| it.norm == norm.name);
    // Others read it as well, unless the plan has put a copy there for the Linears.
    if norm.declined.is_some() || !(planned || norm.split.is_empty()) {
        return None;
    }
    let steps = norm.sites.iter().filter_map(|&site| {
        let decision = &plan.site(&structure.sites[site].name)?.decision;
        match decision {
            Decision::Linear(linear) => kernels::step(&linear.activation),
            _ => None,
        }
    });
    let unit = steps.fold(f32::INFINITY, f32::min);
    let floats = |input| {
        graph
            .tensor(graph.input(norm_node(graph, norm), input)?)?
            .to_f32()
            .ok()
    };
    let scale = floats(norm.scale)?;
    let shift = match norm.shift {
        Some(input) => floats(input).unwrap_or_else(|| vec![0.0; scale.len()]),
        None => Vec::new(),
    };
    unit.is_finite()
        .then(|| NormState::new((scale, shift), unit, rates))
}

fn state(
    graph: &Graph,
    site: &Site,
    plan: Option<&Plan>,
    (rates, backend): (&Rates, &Backend),
) -> Result<State, LearnError> {
    let parameters = Parameters::load(graph, site).map_err(|e| LearnError::Plan(e.to_string()))?;
    let parameters = parameters.map(|p| (p.weight, p.bias));
    let decision = plan
        .and_then(|plan| plan.site(&site.name))
        .map(|s| &s.decision);
    // Only attention weights are focused on.
    let interval = match site.kind {
        SiteKind::AttentionValue => rates.interval,
        _ => 0.0,
    };
    let rates = Rates { interval, ..*rates };
    State::new(decision, parameters, &rates, &backend.device)
        .map_err(|e| LearnError::Plan(format!("{}: {}", site.name, message(&e))))
}

/// The blocks of both networks, one after the other.
fn blocks((float, quantised): (&Network, &Network), structure: &Structure) -> Arc<[Block]> {
    let mut start = 0;
    let cut = |quantised: Segment| {
        let teacher = float.up_to(start, &quantised);
        start = teacher.steps.end;
        Block {
            float: teacher,
            quantised,
        }
    };
    segments(quantised, structure)
        .into_iter()
        .map(cut)
        .collect()
}

/// A value behind a block, which becomes one that it can be differentiated by.
fn watched(outlet: Outlet, value: &mut Tensor) -> candle_core::Result<Feature> {
    let noise = Var::zeros(value.dims(), value.dtype(), value.device())?;
    let noise = noise.as_tensor().clone();
    let with = (&*value + &noise)?;
    Ok(Feature {
        outlet,
        value: std::mem::replace(value, with).detach(),
        noise,
    })
}

/// The network's inputs with an array each, on the processor.
///
/// # Errors
/// One is missing or not float.
pub fn inputs(network: &Network, feed: &[(String, Array)]) -> Result<Values, LearnError> {
    let mut values = Values::new();
    for (name, outlet) in &network.inputs {
        let array = feed
            .iter()
            .find(|(n, _)| n == name)
            .or(feed.first().filter(|_| feed.len() == 1));
        let Some((_, array)) = array else {
            return Err(LearnError::Plan(format!("no array for input {name:?}")));
        };
        let Some(floats) = array.as_f32() else {
            return Err(LearnError::Operator {
                node: name.clone(),
                problem: format!(
                    "learning takes float inputs, this one is {}",
                    array.type_name()
                ),
            });
        };
        let flat = floats.iter().copied().collect();
        let tensor = candle_core::Tensor::from_vec(flat, array.dims(), &candle_core::Device::Cpu);
        let tensor = tensor.map_err(|e| LearnError::step(&e))?;
        values.insert(*outlet, Value::Float(tensor));
    }
    Ok(values)
}
