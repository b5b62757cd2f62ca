//! Message → graph.

use std::collections::{HashMap, HashSet};

use petgraph::stable_graph::StableDiGraph;
use thiserror::Error;
use vitq_onnx::{GraphMsg, Model, NodeMsg};

use super::{Graph, Node, Op, Outlet, Output, Slot};

/// Why a model cannot be imported; each names the place and the mend.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The model has no graph.
    #[error("the model holds no graph: export it again, the file is not a complete ONNX model")]
    NoGraph,
    /// A node reads a value that nothing produces.
    #[error(
        "node {node:?} reads {value:?}, which no input, initialiser or earlier node produces: the graph is broken, run the ONNX checker on it"
    )]
    Dangling {
        /// The reading node.
        node: String,
        /// The missing value.
        value: String,
    },
    /// A graph output that nothing produces.
    #[error(
        "graph output {0:?} is produced by no node: the graph is broken, run the ONNX checker on it"
    )]
    DanglingOutput(String),
    /// Two producers of one name.
    #[error(
        "the value {0:?} is produced twice: names must be unique, run the ONNX checker on the model"
    )]
    Duplicate(String),
    /// Operators that depend on each other in a circle.
    #[error("the graph has a cycle: run the ONNX checker on it")]
    Cycle,
    /// Sparse initialisers are not understood.
    #[error("the initialiser {0:?} is sparse: store it densely before quantising")]
    Sparse(String),
}

impl Graph {
    /// Builds the graph of a model. Initialisers that are listed as inputs too (IR version 3) become plain initialisers.
    pub fn import(model: &Model) -> Result<Graph, ImportError> {
        let source = model.graph.as_ref().ok_or(ImportError::NoGraph)?;
        if let Some(sparse) = source.sparse_initializer.first() {
            let name = sparse.values.as_ref().map_or("", |v| v.name());
            return Err(ImportError::Sparse(name.to_owned()));
        }
        let mut graph = Graph::empty(model, source);
        let values = graph.add_nodes(source)?;
        graph.wire(source, &values)?;
        graph.topological().ok_or(ImportError::Cycle)?;
        Ok(graph)
    }

    /// A graph with the model's envelope and no nodes.
    fn empty(model: &Model, source: &GraphMsg) -> Graph {
        // Nodes, tensors and types live in the graph; the envelope keeps all the rest, unknown fields included.
        let mut rest = source.clone();
        rest.node.clear();
        rest.initializer.clear();
        rest.input.clear();
        rest.output.clear();
        rest.value_info.clear();
        let mut envelope = model.clone();
        envelope.graph = Some(rest);
        Graph {
            net: StableDiGraph::default(),
            inputs: Vec::new(),
            outputs: Vec::new(),
            names: HashSet::new(),
            value_info: source
                .value_info
                .iter()
                .map(|v| (v.name().to_owned(), v.clone()))
                .collect(),
            opsets: model
                .opset_import
                .iter()
                .map(|o| (standard(o.domain()).to_owned(), o.version()))
                .collect(),
            envelope,
        }
    }

    fn add_nodes(&mut self, source: &GraphMsg) -> Result<HashMap<String, Outlet>, ImportError> {
        let mut values = HashMap::new();
        let constant: HashSet<&str> = source.initializer.iter().map(|t| t.name()).collect();
        for info in source.input.iter().filter(|i| !constant.contains(i.name())) {
            let id = self.produce(
                Node::Input(info.clone()),
                &[info.name().to_owned()],
                &mut values,
            )?;
            self.inputs.push(id);
        }
        for tensor in &source.initializer {
            self.produce(
                Node::Initializer(tensor.clone()),
                &[tensor.name().to_owned()],
                &mut values,
            )?;
        }
        for message in &source.node {
            let outputs = message.output.clone();
            let mut message = message.clone();
            message.input.clear();
            message.output.clear();
            self.produce(
                Node::Op(Op {
                    message,
                    outputs: outputs.clone(),
                }),
                &outputs,
                &mut values,
            )?;
        }
        Ok(values)
    }

    fn produce(
        &mut self,
        node: Node,
        outputs: &[String],
        values: &mut HashMap<String, Outlet>,
    ) -> Result<super::NodeId, ImportError> {
        let id = self.net.add_node(node);
        for (slot, name) in outputs.iter().enumerate().filter(|(_, n)| !n.is_empty()) {
            if !self.names.insert(name.clone()) {
                return Err(ImportError::Duplicate(name.clone()));
            }
            values.insert(name.clone(), Outlet { node: id, slot });
        }
        Ok(id)
    }

    fn wire(
        &mut self,
        source: &GraphMsg,
        values: &HashMap<String, Outlet>,
    ) -> Result<(), ImportError> {
        let ops: Vec<_> = self.ops().map(|(id, _)| id).collect();
        for (id, message) in ops.into_iter().zip(&source.node) {
            for (i, name) in message
                .input
                .iter()
                .enumerate()
                .filter(|(_, n)| !n.is_empty())
            {
                let value = values.get(name).ok_or_else(|| dangling(message, name))?;
                self.connect(*value, id, Slot::Input(i));
            }
            for name in captures(message) {
                let value = values.get(&name).ok_or_else(|| dangling(message, &name))?;
                self.connect(*value, id, Slot::Capture);
            }
        }
        for info in &source.output {
            let outlet = *values
                .get(info.name())
                .ok_or_else(|| ImportError::DanglingOutput(info.name().to_owned()))?;
            self.outputs.push(Output {
                outlet,
                info: info.clone(),
            });
        }
        Ok(())
    }
}

fn dangling(message: &NodeMsg, value: &str) -> ImportError {
    ImportError::Dangling {
        node: message.name().to_owned(),
        value: value.to_owned(),
    }
}

/// `ai.onnx` and the empty string both name the standard operator set.
fn standard(domain: &str) -> &str {
    if domain == "ai.onnx" { "" } else { domain }
}

/// Names that the sub-graphs of a node read from outside, each once, in order.
fn captures(message: &NodeMsg) -> Vec<String> {
    let mut free = Vec::new();
    for attribute in &message.attribute {
        for graph in attribute.g.iter().map(|g| &**g).chain(&attribute.graphs) {
            free_names(graph, &mut free);
        }
    }
    let mut seen = HashSet::new();
    free.retain(|name| seen.insert(name.clone()));
    free
}

fn free_names(graph: &GraphMsg, free: &mut Vec<String>) {
    let inner = graph
        .node
        .iter()
        .flat_map(|n| n.output.iter().map(String::as_str));
    let bound: HashSet<&str> = graph
        .input
        .iter()
        .map(|i| i.name())
        .chain(graph.initializer.iter().map(|t| t.name()))
        .chain(inner)
        .collect();
    let mut read: Vec<String> = graph.node.iter().flat_map(|n| n.input.clone()).collect();
    read.extend(graph.node.iter().flat_map(captures));
    read.extend(graph.output.iter().map(|o| o.name().to_owned()));
    free.extend(
        read.into_iter()
            .filter(|n| !n.is_empty() && !bound.contains(n.as_str())),
    );
}
