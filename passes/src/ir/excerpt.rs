//! Some operators of a graph as a model of their own.

use std::collections::{BTreeSet, HashSet};

use petgraph::Direction;
use petgraph::visit::EdgeRef;
use vitq_onnx::pb::ValueInfoProto;
use vitq_onnx::{Model, ValueInfoMsg};

use super::{Graph, Node, NodeId, Outlet};

/// Operators that follow each other, and what goes in and out.
#[derive(Clone, Debug)]
pub struct Excerpt {
    /// In topological order.
    pub ops: Vec<NodeId>,
    /// What they read that none of them gives, initialisers apart.
    pub inputs: Vec<Outlet>,
    /// What they give that others read, or that leaves the graph.
    pub outputs: Vec<Outlet>,
}

impl Graph {
    /// Operators, given in topological order, with what goes in and out.
    pub fn excerpt(&self, ops: &[NodeId]) -> Excerpt {
        let inside: HashSet<NodeId> = ops.iter().copied().collect();
        let inputs: BTreeSet<Outlet> = ops
            .iter()
            .flat_map(|&op| self.reads(op))
            .filter(|it| !inside.contains(&it.node) && self.initializer(*it).is_none())
            .collect();
        let given = ops.iter().flat_map(|&node| {
            let slots = self.op(node).map_or(0, |op| op.outputs.len());
            (0..slots).map(move |slot| Outlet { node, slot })
        });
        let leaves = |value: &Outlet| {
            let mut readers = self.readers(*value).into_iter();
            self.is_output(*value) || readers.any(|it| !inside.contains(&it.node))
        };
        Excerpt {
            ops: ops.to_vec(),
            inputs: inputs.into_iter().collect(),
            outputs: given.filter(leaves).collect(),
        }
    }

    /// The model of an excerpt, with the initialisers that it reads. `inputs` declares what goes in; what comes out has a name alone.
    pub fn export_excerpt(&self, excerpt: &Excerpt, inputs: Vec<ValueInfoMsg>) -> Model {
        let mut model = self.shell();
        let mut graph = model.graph.take().unwrap_or_default();
        let reads = excerpt.ops.iter().flat_map(|&op| self.reads(op));
        let constants: BTreeSet<NodeId> = reads.map(|it| it.node).collect();
        for id in constants {
            if let Node::Initializer(tensor) = self.node(id) {
                graph.initializer.push(tensor.clone());
            }
        }
        for &id in &excerpt.ops {
            if let Node::Op(op) = self.node(id) {
                graph.node.push(self.message(id, &op.message, &op.outputs));
            }
        }
        graph.input = inputs;
        graph.output = excerpt.outputs.iter().map(|&it| self.named(it)).collect();
        model.graph = Some(graph);
        model
    }

    fn named(&self, value: Outlet) -> ValueInfoMsg {
        ValueInfoProto {
            name: Some(self.name(value).to_owned()),
            ..Default::default()
        }
        .into()
    }

    /// What a node reads, inside its sub-graphs too.
    pub fn reads(&self, id: NodeId) -> impl Iterator<Item = Outlet> + '_ {
        let edges = self.net.edges_directed(id, Direction::Incoming);
        edges.map(|edge| Outlet {
            node: edge.source(),
            slot: edge.weight().from,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[n,2] x) => (float[n,2] z) \
         <float[2] c = {1.0, 2.0}> { a = Add(x, c)  b = Relu(a)  y = Mul(a, b)  z = Add(y, c) }";

    /// Inputs, outputs, operators and initialisers of the model of the operators that make these values.
    fn excerpt(values: &[&str]) -> [String; 4] {
        let graph = Graph::parse(TEXT).unwrap();
        let ops: Vec<_> = values
            .iter()
            .map(|name| graph.find(name).unwrap().node)
            .collect();
        let excerpt = graph.excerpt(&ops);
        let inputs = excerpt.inputs.iter().map(|&it| graph.named(it)).collect();
        let model = graph.export_excerpt(&excerpt, inputs);
        let part = model.graph.as_ref().unwrap();
        let infos = |list: &[ValueInfoMsg]| {
            let names: Vec<_> = list.iter().map(|it| it.name()).collect();
            names.join(" ")
        };
        let ops: Vec<_> = part.node.iter().map(|it| it.op_type()).collect();
        let constants: Vec<_> = part.initializer.iter().map(|it| it.name()).collect();
        [
            infos(&part.input),
            infos(&part.output),
            ops.join(" "),
            constants.join(" "),
        ]
    }

    #[test]
    fn what_goes_in_and_out_is_found() {
        assert_eq!(
            excerpt(&["a", "b", "y", "z"]),
            ["x", "z", "Add Relu Mul Add", "c"]
        );
        assert_eq!(excerpt(&["b", "y"]), ["a", "y", "Relu Mul", ""]);
        assert_eq!(excerpt(&["a", "b"]), ["x", "a b", "Add Relu", "c"]);
    }
}
