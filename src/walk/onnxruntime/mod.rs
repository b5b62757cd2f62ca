//! What lies between two sites in ONNX Runtime: a session for all operators between one site and the next.

mod segment;
mod values;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use tract_onnx::prelude::{TValue, TVec, Tensor};
use vitq_passes::ir::{Graph, NodeId, Outlet};

use super::WalkError;
use super::cut::OP_TYPE;
use super::operators::{Network, Numbers, Operators, Step, Value};
use crate::run::ort;
use segment::Segment;

/// What each step runs; nothing at a site.
struct Segments(Vec<Option<Segment>>);

impl Operators for Segments {
    fn run(&self, step: usize, inputs: TVec<TValue>) -> Result<TVec<TValue>, WalkError> {
        let segment = self.0.get(step).and_then(Option::as_ref);
        segment.map_or_else(|| Ok(TVec::new()), |segment| segment.run(&inputs))
    }
}

/// Takes the cut graph apart. Sessions are made when they are first needed, as only then the types of their inputs are known.
pub fn load(graph: Graph) -> Result<Network, WalkError> {
    ort::available()?;
    let graph = Arc::new(graph);
    let mut numbers = Numbers::new();
    let (mut steps, mut segments) = (Vec::new(), Vec::new());
    for part in parts(&graph) {
        let (step, segment) = match part {
            Part::Site(node, site) => (site_step(&graph, node, site, &mut numbers), None),
            Part::Between(ops) => {
                let segment = Segment::new(&graph, &ops);
                (segment_step(&graph, &segment, &mut numbers), Some(segment))
            }
        };
        steps.push(step);
        segments.push(segment);
    }
    let inputs = graph.inputs();
    Ok(Network {
        steps,
        inputs: inputs
            .map(|it| (graph.name(it).to_owned(), numbers.value(it)))
            .collect(),
        outputs: graph
            .outputs()
            .iter()
            .map(|output| numbers.value(output.outlet))
            .collect(),
        constants: constants(&graph, &mut numbers),
        operators: Box::new(Segments(segments)),
    })
}

fn site_step(graph: &Graph, node: NodeId, site: usize, numbers: &mut Numbers<Outlet>) -> Step {
    let operands = graph.node_inputs(node).into_iter().flatten();
    Step {
        name: graph.label(node),
        site: Some(site),
        reads: operands.map(|it| numbers.value(it)).collect(),
        gives: vec![numbers.value(Outlet { node, slot: 0 })],
    }
}

fn segment_step(graph: &Graph, segment: &Segment, numbers: &mut Numbers<Outlet>) -> Step {
    let excerpt = segment.excerpt();
    let mut values = |outlets: &[Outlet]| outlets.iter().map(|&it| numbers.value(it)).collect();
    Step {
        name: excerpt
            .ops
            .first()
            .map_or_else(String::new, |&op| graph.label(op)),
        site: None,
        reads: values(&excerpt.inputs),
        gives: values(&excerpt.outputs),
    }
}

/// A site, or the operators before it.
enum Part {
    Site(NodeId, usize),
    Between(Vec<NodeId>),
}

fn parts(graph: &Graph) -> Vec<Part> {
    let mut parts = Vec::new();
    for node in order(graph) {
        match (site(graph, node), parts.last_mut()) {
            (Some(site), _) => parts.push(Part::Site(node, site)),
            (None, Some(Part::Between(ops))) => ops.push(node),
            (None, _) => parts.push(Part::Between(vec![node])),
        }
    }
    parts
}

/// The operators, in the order of the sites: each site right behind what it needs, so that values are made late and few wait.
fn order(graph: &Graph) -> Vec<NodeId> {
    let topological = graph.topological().unwrap_or_default();
    let places: HashMap<NodeId, usize> = topological.iter().copied().zip(0..).collect();
    let mut sites: Vec<_> = topological
        .iter()
        .filter_map(|&node| Some((site(graph, node)?, node)))
        .collect();
    sites.sort_unstable();
    let outputs = graph.outputs().iter().map(|output| output.outlet.node);
    let mut done = HashSet::new();
    let mut order = Vec::new();
    for target in sites.into_iter().map(|(_, node)| node).chain(outputs) {
        let mut needed = Vec::new();
        let mut stack = vec![target];
        while let Some(node) = stack.pop() {
            if graph.op(node).is_some() && done.insert(node) {
                needed.push(node);
                stack.extend(graph.reads(node).map(|it| it.node));
            }
        }
        needed.sort_unstable_by_key(|node| places[node]);
        order.extend(needed);
    }
    order
}

/// The site that an operator stands for.
fn site(graph: &Graph, node: NodeId) -> Option<usize> {
    let op = graph.op(node).filter(|op| op.is(OP_TYPE))?;
    usize::try_from(*op.ints("site")?.first()?).ok()
}

/// Initialisers that a site or an output is, as far as they are floats: those of other types are no operand and no signal.
fn constants(graph: &Graph, numbers: &mut Numbers<Outlet>) -> HashMap<Value, Arc<Tensor>> {
    let sites = graph.ops().filter(|(_, op)| op.is(OP_TYPE));
    let operands = sites.flat_map(|(node, _)| graph.node_inputs(node).into_iter().flatten());
    let outputs = graph.outputs().iter().map(|output| output.outlet);
    operands
        .chain(outputs)
        .filter_map(|value| {
            let constant = graph.tensor(value)?;
            let floats = constant.to_f32().ok()?;
            let tensor = Tensor::from_shape(&constant.dims, &floats).ok()?;
            Some((numbers.value(value), Arc::new(tensor)))
        })
        .collect()
}
