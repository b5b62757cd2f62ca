//! From a graph to steps.

use std::collections::{HashMap, HashSet};

use vitq_onnx::DataType;
use vitq_passes::infer::{Shapes, infer};
use vitq_passes::ir::{Graph, Node, NodeId, Op, Outlet};
use vitq_passes::structure::{Norm, Structure, find_gelus};

use super::constants::{floats_on, freeze};
use super::{Integers, Kind, Network, Step, Value, Values, operators};
use crate::input::Array;
use crate::learn::LearnError;
use crate::learn::backend::Backend;

impl Network {
    /// The steps of `graph` for inputs of these shapes, on `backend`.
    ///
    /// # Errors
    /// A constant cannot be read.
    pub fn new(
        graph: &Graph,
        structure: &Structure,
        inputs: &[(String, Array)],
        backend: &Backend,
    ) -> Result<Network, LearnError> {
        let mut graph = graph.clone();
        for (name, array) in inputs {
            if let Some(outlet) = graph.find(name) {
                graph.fix_input(outlet, array.dims());
            }
        }
        loop {
            let compiler = Compiler {
                shapes: infer(&graph),
                graph: &graph,
                makers: makers(&graph, structure),
                backend,
                open: Vec::new(),
            };
            let (network, shapes, open) = compiler.network()?;
            if open.is_empty() {
                return Ok(network);
            }
            // With them more shapes are known.
            freeze(&mut graph, &shapes, &open, &network.constants)?;
        }
    }
}

/// Who makes a value, where it is not the operator itself.
type Makers = HashMap<Outlet, (Kind, Vec<Option<Outlet>>)>;

fn makers(graph: &Graph, structure: &Structure) -> Makers {
    let mut makers = Makers::new();
    for gelu in find_gelus(graph) {
        let exact = gelu.nodes.iter().any(|&n| graph.is(n, "Erf"));
        if exact {
            makers.insert(gelu.output, (Kind::Gelu, vec![Some(gelu.input)]));
        }
    }
    for (index, site) in structure.sites.iter().enumerate() {
        // Read from the graph, not from the site: a norm that was split has put a copy there.
        let count = if site.parameters.is_some() { 1 } else { 2 };
        let reads = (0..count).map(|i| graph.input(site.node, i)).collect();
        makers.insert(site.output, (Kind::Site(index), reads));
    }
    let places = structure.sites.len()..;
    for (place, norm) in places.zip(&structure.norms) {
        let node = norm_node(graph, norm);
        let op = graph
            .op(node)
            .filter(|op| is_norm(op) && norm.declined.is_none());
        if let Some(op) = op {
            let kind = Kind::Norm(place, Box::new(op.clone()));
            makers.insert(Outlet { node, slot: 0 }, (kind, graph.node_inputs(node)));
        }
    }
    makers
}

/// The norm that sites read: the copy of it where it was split.
pub(in crate::learn) fn norm_node(graph: &Graph, norm: &Norm) -> NodeId {
    let reader = norm.split.first();
    let read = reader.and_then(|&(reader, input)| graph.input(reader, input));
    read.map_or(norm.node, |value| value.node)
}

fn is_norm(op: &Op) -> bool {
    op.is("LayerNormalization") || op.is("RMSNormalization")
}

struct Compiler<'g> {
    graph: &'g Graph,
    shapes: Shapes,
    makers: Makers,
    backend: &'g Backend,
    /// Operators on constants that candle does not know.
    open: Vec<NodeId>,
}

impl Compiler<'_> {
    /// The network, what is known of shapes, and operators on constants that candle does not know.
    fn network(mut self) -> Result<(Network, Shapes, Vec<NodeId>), LearnError> {
        let mut network = Network {
            backend: self.backend.clone(),
            steps: Vec::new(),
            constants: Values::new(),
            inputs: self
                .graph
                .inputs()
                .map(|v| (self.graph.name(v).to_owned(), v))
                .collect(),
            outputs: self
                .graph
                .outputs()
                .iter()
                .map(|o| (self.graph.name(o.outlet).to_owned(), o.outlet))
                .collect(),
        };
        let needed = self.needed();
        for node in self.graph.topological().unwrap_or_default() {
            if needed.contains(&node) {
                self.add(node, &mut network)?;
            }
        }
        Ok((network, self.shapes, self.open))
    }

    /// Nodes that outputs depend on.
    fn needed(&self) -> HashSet<NodeId> {
        let mut open: Vec<Outlet> = self.graph.outputs().iter().map(|o| o.outlet).collect();
        let mut needed = HashSet::new();
        while let Some(value) = open.pop() {
            if needed.insert(value.node) {
                open.extend(self.reads(value.node).into_iter().flatten());
            }
        }
        needed
    }

    fn reads(&self, node: NodeId) -> Vec<Option<Outlet>> {
        let value = Outlet { node, slot: 0 };
        if self.shapes.ints(value).is_some() {
            return Vec::new();
        }
        self.makers
            .get(&value)
            .map_or_else(|| self.graph.node_inputs(node), |(_, reads)| reads.clone())
    }

    fn add(&mut self, node: NodeId, network: &mut Network) -> Result<(), LearnError> {
        let value = Outlet { node, slot: 0 };
        if let Some(integers) = self.integers(value) {
            network.constants.insert(value, Value::Integers(integers));
            return Ok(());
        }
        match self.graph.node(node) {
            Node::Input(_) => Ok(()),
            Node::Initializer(_) => {
                let constant = self.constant(value)?;
                network.constants.insert(value, constant);
                Ok(())
            }
            Node::Op(op) => {
                let reads = self.reads(node);
                let kind = self.makers.remove(&value).map(|(kind, _)| kind);
                let step = Step {
                    name: self.graph.label(node),
                    kind: kind.unwrap_or_else(|| Kind::Operator(Box::new(op.clone()))),
                    writes: (0..op.outputs.len())
                        .map(|slot| Outlet { node, slot })
                        .collect(),
                    reads,
                };
                self.add_step(step, node, network);
                Ok(())
            }
        }
    }

    /// Integers that inference knows.
    fn integers(&self, value: Outlet) -> Option<Integers> {
        Some(Integers {
            values: self.shapes.ints(value)?,
            dims: self.shapes.known(value)?,
        })
    }

    fn constant(&self, value: Outlet) -> Result<Value, LearnError> {
        let unreadable = || LearnError::Operator {
            node: self.graph.name(value).to_owned(),
            problem: "the constant cannot be read".into(),
        };
        let tensor = self.graph.tensor(value).ok_or_else(unreadable)?;
        let dims = self.graph.constant_dims(value).ok_or_else(unreadable)?;
        if tensor.dtype == DataType::Float {
            let values = tensor.to_f32().map_err(|_| unreadable())?;
            let tensor = floats_on(values, &dims, self.backend).map_err(|_| unreadable())?;
            return Ok(Value::Float(tensor));
        }
        let values = tensor.to_i64().map_err(|_| unreadable())?;
        Ok(Value::Integers(Integers { values, dims }))
    }

    /// Adds a step; what depends on constants alone is a constant.
    fn add_step(&mut self, step: Step, node: NodeId, network: &mut Network) {
        let mut reads = step.reads.iter().flatten();
        let constant = |value: &Outlet| {
            network.constants.contains_key(value) || self.open.contains(&value.node)
        };
        match &step.kind {
            Kind::Operator(op) if reads.all(constant) => {
                let operands = step.reads.iter();
                let operands = operands.map(|read| match read {
                    Some(value) => network.constants.get(value).map(Some),
                    None => Some(None),
                });
                let operands: Option<Vec<_>> = operands.collect();
                let values =
                    operands.and_then(|it| operators::evaluate(op, &it, self.backend).ok());
                match values {
                    Some(values) => {
                        let values = step.writes.into_iter().zip(values);
                        network.constants.extend(values);
                    }
                    None => self.open.push(node),
                }
            }
            _ => network.steps.push(step),
        }
    }
}
