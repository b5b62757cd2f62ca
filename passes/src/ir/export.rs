//! Graph → message.

use std::collections::HashSet;

use vitq_onnx::pb::{OperatorSetIdProto, StringStringEntryProto};
use vitq_onnx::{FunctionMsg, Model, NodeMsg};

use super::{Graph, Node, NodeId, Outlet, Slot};

impl Graph {
    /// The whole model: nodes in topological order, everything else as it was imported.
    ///
    /// # Panics
    /// If a pass left a cycle, which [`crate::check`] reports first.
    pub fn export(&self) -> Model {
        let order = self
            .topological()
            .expect("passes keep the graph free of cycles");
        let mut model = self.shell();
        let mut graph = model.graph.take().unwrap_or_default();
        let mut names = HashSet::new();
        for id in order {
            match self.node(id) {
                Node::Input(_) => {}
                Node::Initializer(tensor) => graph.initializer.push(tensor.clone()),
                Node::Op(op) => {
                    names.extend(op.outputs.iter().cloned());
                    graph.node.push(self.message(id, &op.message, &op.outputs));
                }
            }
        }
        graph.input = self
            .inputs
            .iter()
            .filter_map(|&id| self.value_info(Outlet { node: id, slot: 0 }).cloned())
            .collect();
        graph.output = self.outputs.iter().map(|o| o.info.clone()).collect();
        let mut infos: Vec<_> = self
            .value_info
            .values()
            .filter(|v| names.contains(v.name()))
            .cloned()
            .collect();
        infos.sort_by(|a, b| a.name().cmp(b.name()));
        graph.value_info = infos;
        model.graph = Some(graph);
        model
    }

    /// All of the model but its graph's nodes and borders.
    pub(super) fn shell(&self) -> Model {
        let mut model = self.envelope.clone();
        model.opset_import = self
            .opsets
            .iter()
            .map(|(domain, &version)| {
                OperatorSetIdProto {
                    domain: Some(domain.clone()),
                    version: Some(version),
                }
                .into()
            })
            .collect();
        model
    }

    pub(super) fn message(&self, id: NodeId, message: &NodeMsg, outputs: &[String]) -> NodeMsg {
        let mut message = message.clone();
        message.input = self
            .node_inputs(id)
            .into_iter()
            .map(|value| value.map_or_else(String::new, |v| self.name(v).to_owned()))
            .collect();
        message.output = outputs.to_vec();
        message
    }

    /// Forgets the declared types of inner values: passes that change what a value holds call it.
    pub fn forget_value_info(&mut self) {
        self.value_info.clear();
    }

    /// Raises the IR version to at least `version` (each operator set needs one).
    pub fn require_ir_version(&mut self, version: i64) {
        let now = self.envelope.ir_version.unwrap_or(0);
        self.envelope.ir_version = Some(now.max(version));
    }

    /// The model's functions, whose bodies state operator sets of their own.
    pub(crate) fn functions_mut(&mut self) -> &mut [FunctionMsg] {
        &mut self.envelope.functions
    }

    /// Says in the model's metadata that `key` is `value`, replacing an earlier entry.
    pub fn set_metadata(&mut self, key: &str, value: &str) {
        self.envelope.metadata_props.retain(|p| p.key() != key);
        let entry = StringStringEntryProto {
            key: Some(key.into()),
            value: Some(value.into()),
        };
        self.envelope.metadata_props.push(entry.into());
    }

    /// Whether a value is read by name inside a sub-graph.
    pub fn is_captured(&self, value: Outlet) -> bool {
        self.readers(value).iter().any(|r| r.slot == Slot::Capture)
    }
}
