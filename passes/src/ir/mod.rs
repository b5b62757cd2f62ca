//! The graph: operators as petgraph nodes, values as edges with an output and an input slot.
//!
//! A value is named by its producer: an [`Outlet`] is a node and one of its output slots. Graph inputs and
//! initialisers are nodes too, so everything that can be read is an outlet. Tensors stay in the message they
//! came in (shared bytes) and are decoded on demand; an operator keeps its whole message, so what no pass
//! touches is written back as it was.

mod attribute;
mod border;
mod element;
mod excerpt;
mod export;
mod import;
mod order;
mod parse;
mod text;

use std::collections::{BTreeMap, HashMap, HashSet};

use petgraph::Direction;
use petgraph::stable_graph::{EdgeIndex, NodeIndex, StableDiGraph};
use petgraph::visit::{EdgeRef, IntoEdgeReferences};
use vitq_onnx::{Model, NodeMsg, Tensor, TensorMsg, ValueInfoMsg};

pub use excerpt::Excerpt;
pub use import::ImportError;
pub use parse::ParseError;
pub use text::MAX_VALUES;

/// A node of the graph; stays valid while others are added and removed.
pub type NodeId = NodeIndex<u32>;

/// A value: output `slot` of `node`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Outlet {
    /// The node that produces the value.
    pub node: NodeId,
    /// Which of its outputs.
    pub slot: usize,
}

/// Where a value is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Slot {
    /// Input `i` of an operator.
    Input(usize),
    /// Read by name inside a sub-graph of the operator; passes leave such uses alone.
    Capture,
}

/// One reader of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reader {
    /// The reading operator.
    pub node: NodeId,
    /// Its input.
    pub slot: Slot,
}

/// What a node is.
#[derive(Clone, Debug)]
pub enum Node {
    /// A graph input.
    Input(ValueInfoMsg),
    /// An initialiser.
    Initializer(TensorMsg),
    /// An operator.
    Op(Op),
}

/// An operator: its message (attributes, domain, metadata; input and output lists empty) and the names of its outputs.
#[derive(Clone, Debug)]
pub struct Op {
    /// The message without its input and output lists.
    pub message: NodeMsg,
    /// Value names, `""` where an optional output is absent.
    pub outputs: Vec<String>,
}

#[derive(Clone, Copy, Debug)]
struct Edge {
    from: usize,
    to: Slot,
}

/// A value that leaves the graph.
#[derive(Clone, Debug)]
pub struct Output {
    /// The value.
    pub outlet: Outlet,
    /// Name and type as the file states them.
    pub info: ValueInfoMsg,
}

/// A model's graph with the operator sets it is written in.
#[derive(Clone, Debug)]
pub struct Graph {
    net: StableDiGraph<Node, Edge, u32>,
    inputs: Vec<NodeId>,
    outputs: Vec<Output>,
    names: HashSet<String>,
    value_info: HashMap<String, ValueInfoMsg>,
    /// Version of each operator set by domain (`""`: the standard one).
    pub opsets: BTreeMap<String, i64>,
    /// All of the model that is not its main graph's nodes: functions, metadata, producer …
    envelope: Model,
}

impl Graph {
    /// Graph inputs in order; initialisers are none of them.
    pub fn inputs(&self) -> impl Iterator<Item = Outlet> + '_ {
        self.inputs.iter().map(|&node| Outlet { node, slot: 0 })
    }

    /// Graph outputs in order.
    pub fn outputs(&self) -> &[Output] {
        &self.outputs
    }

    /// States the extents of a graph input; what was declared of other values' shapes is forgotten.
    pub fn fix_input(&mut self, input: Outlet, dims: &[usize]) {
        use vitq_onnx::pb::{
            tensor_shape_proto::Dimension, tensor_shape_proto::dimension, type_proto,
        };
        let known = |&d: &usize| Dimension {
            value: Some(dimension::Value::DimValue(d as i64)),
            ..Dimension::default()
        };
        let dims: Vec<_> = dims.iter().map(known).map(Into::into).collect();
        self.forget_value_info();
        if let Some(Node::Input(info)) = self.net.node_weight_mut(input.node)
            && let Some(kind) = &mut info.r#type
            && let Some(type_proto::Value::TensorType(tensor)) = &mut kind.value
        {
            tensor.shape.get_or_insert_default().dim = dims;
        }
    }

    /// Version of the standard operator set.
    pub fn opset(&self) -> i64 {
        self.opsets.get("").copied().unwrap_or(1)
    }

    /// The node behind an id.
    ///
    /// # Panics
    /// If the node was removed: ids are only kept by passes that know what they removed.
    pub fn node(&self, id: NodeId) -> &Node {
        &self.net[id]
    }

    /// All nodes, in the order of their creation.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.net.node_indices()
    }

    /// All operators, in the order of their creation.
    pub fn ops(&self) -> impl Iterator<Item = (NodeId, &Op)> + '_ {
        self.net
            .node_indices()
            .filter_map(|id| Some((id, self.op(id)?)))
    }

    /// Whether the node still is in the graph.
    pub fn contains(&self, id: NodeId) -> bool {
        self.net.contains_node(id)
    }

    /// The operator behind an id, if it is one.
    pub fn op(&self, id: NodeId) -> Option<&Op> {
        match self.net.node_weight(id)? {
            Node::Op(op) => Some(op),
            _ => None,
        }
    }

    /// The operator behind an id, to change its attributes.
    pub fn op_mut(&mut self, id: NodeId) -> Option<&mut Op> {
        match self.net.node_weight_mut(id)? {
            Node::Op(op) => Some(op),
            _ => None,
        }
    }

    /// Whether the node is the standard operator `op_type`.
    pub fn is(&self, id: NodeId, op_type: &str) -> bool {
        self.op(id).is_some_and(|op| op.is(op_type))
    }

    /// The node's inputs by position; `None` where an optional one is absent.
    pub fn node_inputs(&self, id: NodeId) -> Vec<Option<Outlet>> {
        let mut inputs = Vec::new();
        for edge in self.net.edges_directed(id, Direction::Incoming) {
            if let Slot::Input(i) = edge.weight().to {
                if inputs.len() <= i {
                    inputs.resize(i + 1, None);
                }
                inputs[i] = Some(Outlet {
                    node: edge.source(),
                    slot: edge.weight().from,
                });
            }
        }
        inputs
    }

    /// The node's input `i`.
    pub fn input(&self, id: NodeId, i: usize) -> Option<Outlet> {
        self.edge_into(id, Slot::Input(i)).map(|(_, outlet)| outlet)
    }

    fn edge_into(&self, id: NodeId, slot: Slot) -> Option<(EdgeIndex<u32>, Outlet)> {
        self.net
            .edges_directed(id, Direction::Incoming)
            .find(|e| e.weight().to == slot)
            .map(|e| {
                (
                    e.id(),
                    Outlet {
                        node: e.source(),
                        slot: e.weight().from,
                    },
                )
            })
    }

    /// Who reads a value, ordered by node and slot; graph outputs are not among them.
    pub fn readers(&self, value: Outlet) -> Vec<Reader> {
        let mut readers: Vec<Reader> = self
            .net
            .edges_directed(value.node, Direction::Outgoing)
            .filter(|e| e.weight().from == value.slot)
            .map(|e| Reader {
                node: e.target(),
                slot: e.weight().to,
            })
            .collect();
        readers.sort_unstable();
        readers
    }

    /// The one reader of a value that nothing else sees: no second reader, no graph output.
    pub fn only_reader(&self, value: Outlet) -> Option<Reader> {
        match self.readers(value)[..] {
            [reader] if !self.is_output(value) => Some(reader),
            _ => None,
        }
    }

    /// Whether the value leaves the graph.
    pub fn is_output(&self, value: Outlet) -> bool {
        self.outputs.iter().any(|o| o.outlet == value)
    }

    /// The value's name.
    pub fn name(&self, value: Outlet) -> &str {
        match &self.net[value.node] {
            Node::Input(info) => info.name(),
            Node::Initializer(tensor) => tensor.name(),
            Node::Op(op) => op.outputs.get(value.slot).map_or("", String::as_str),
        }
    }

    /// A node as a person finds it in a viewer: its name, else `OpType → first output`.
    pub fn label(&self, id: NodeId) -> String {
        match &self.net[id] {
            Node::Input(info) => info.name().to_owned(),
            Node::Initializer(tensor) => tensor.name().to_owned(),
            Node::Op(op) if !op.message.name().is_empty() => op.message.name().to_owned(),
            Node::Op(op) => format!(
                "{} → {}",
                op.op_type(),
                op.outputs.first().map_or("", String::as_str)
            ),
        }
    }

    /// The value with this name.
    pub fn find(&self, name: &str) -> Option<Outlet> {
        self.net
            .node_indices()
            .find_map(|node| match &self.net[node] {
                Node::Op(op) => op
                    .outputs
                    .iter()
                    .position(|o| o == name)
                    .map(|slot| Outlet { node, slot }),
                _ => (self.name(Outlet { node, slot: 0 }) == name)
                    .then_some(Outlet { node, slot: 0 }),
            })
    }

    /// The initialiser behind a value.
    pub fn initializer(&self, value: Outlet) -> Option<&TensorMsg> {
        match self.net.node_weight(value.node)? {
            Node::Initializer(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// The constant behind a value, decoded; `None` if it is no initialiser or does not decode.
    pub fn tensor(&self, value: Outlet) -> Option<Tensor> {
        Tensor::from_proto(self.initializer(value)?).ok()
    }

    /// Dimensions of the constant behind a value.
    pub fn constant_dims(&self, value: Outlet) -> Option<Vec<usize>> {
        self.initializer(value)?
            .dims
            .iter()
            .map(|&d| usize::try_from(d).ok())
            .collect()
    }

    /// Declared type of a value, where the file states one.
    pub fn value_info(&self, value: Outlet) -> Option<&ValueInfoMsg> {
        match &self.net[value.node] {
            Node::Input(info) => Some(info),
            _ => self
                .outputs
                .iter()
                .find(|o| o.outlet == value)
                .map(|o| &o.info)
                .or_else(|| self.value_info.get(self.name(value))),
        }
    }

    /// A value name that is not taken: `base`, else `base_1`, `base_2` …
    pub fn fresh(&mut self, base: &str) -> String {
        let mut name = base.to_owned();
        let mut n = 0;
        while !self.names.insert(name.clone()) {
            n += 1;
            name = format!("{base}_{n}");
        }
        name
    }

    /// The float constant with one element behind a value.
    pub fn scalar(&self, value: Outlet) -> Option<f32> {
        let one = self.constant_dims(value)?.iter().all(|&d| d == 1);
        let tensor = one.then(|| self.tensor(value))??;
        tensor.dtype.is_float().then(|| tensor.scalar_f32().ok())?
    }

    /// Adds an initialiser under a fresh name.
    pub fn add_initializer(&mut self, base: &str, tensor: &Tensor) -> Outlet {
        let name = self.fresh(base);
        let node = self.net.add_node(Node::Initializer(tensor.to_proto(&name)));
        Outlet { node, slot: 0 }
    }

    /// Adds an operator named `name` with one output per entry of `outputs` (bases of fresh value names).
    pub fn add_op(&mut self, op: Op, inputs: &[Option<Outlet>]) -> NodeId {
        let op = Op {
            outputs: op.outputs.iter().map(|o| self.fresh(o)).collect(),
            ..op
        };
        let node = self.net.add_node(Node::Op(op));
        for (i, input) in inputs.iter().enumerate() {
            if let Some(outlet) = input {
                self.connect(*outlet, node, Slot::Input(i));
            }
        }
        node
    }

    /// Adds an operator with one output, named after the node; returns that value.
    pub fn insert(&mut self, op_type: &str, name: &str, inputs: &[Outlet]) -> Outlet {
        self.insert_op(Op::new(op_type, name), inputs)
    }

    /// Adds a prepared operator with one output; returns that value.
    pub fn insert_op(&mut self, op: Op, inputs: &[Outlet]) -> Outlet {
        let inputs: Vec<_> = inputs.iter().copied().map(Some).collect();
        Outlet {
            node: self.add_op(op, &inputs),
            slot: 0,
        }
    }

    fn connect(&mut self, from: Outlet, node: NodeId, to: Slot) {
        self.net.add_edge(
            from.node,
            node,
            Edge {
                from: from.slot,
                to,
            },
        );
    }

    /// Makes input `i` of `id` read `value`.
    pub fn set_input(&mut self, id: NodeId, i: usize, value: Outlet) {
        self.clear_input(id, i);
        self.connect(value, id, Slot::Input(i));
    }

    /// Takes input `i` of `id` away.
    pub fn clear_input(&mut self, id: NodeId, i: usize) {
        if let Some((edge, _)) = self.edge_into(id, Slot::Input(i)) {
            self.net.remove_edge(edge);
        }
    }

    /// Makes every reader of `old`, and the graph output it may be, see `new` instead.
    ///
    /// A graph output keeps its name: `new` takes it over, through an Identity where `new` cannot be renamed.
    pub fn replace_uses(&mut self, old: Outlet, new: Outlet) {
        for reader in self.readers(old) {
            if let Slot::Input(i) = reader.slot
                && reader.node != new.node
            {
                self.set_input(reader.node, i, new);
            }
        }
        if self.is_output(old) {
            self.move_output(old, new);
        }
    }

    fn move_output(&mut self, old: Outlet, new: Outlet) {
        let name = self.name(old).to_owned();
        let renamable = self.op(new.node).is_some() && !self.is_output(new) && !self.captured(new);
        let target = if renamable {
            new
        } else {
            self.insert("Identity", &format!("{name}/Identity"), &[new])
        };
        let spare = self.fresh(&format!("{name}/replaced"));
        self.rename(old, spare);
        self.rename(target, name);
        for output in &mut self.outputs {
            if output.outlet == old {
                output.outlet = target;
            }
        }
    }

    fn captured(&self, value: Outlet) -> bool {
        self.readers(value).iter().any(|r| r.slot == Slot::Capture)
    }

    fn rename(&mut self, value: Outlet, name: String) {
        self.names.insert(name.clone());
        match self.net.node_weight_mut(value.node) {
            Some(Node::Op(op)) => op.outputs[value.slot] = name,
            Some(Node::Initializer(tensor)) => tensor.name = Some(name),
            Some(Node::Input(_)) | None => {}
        }
    }

    /// [`Graph::replace_uses`], and `new` takes the name of `old`: for a rewrite that computes the same value by
    /// another operator. The name stays what a person finds in the file.
    pub fn supersede(&mut self, old: Outlet, new: Outlet) {
        let renames = !self.is_output(old) && !self.is_output(new) && self.op(old.node).is_some();
        self.replace_uses(old, new);
        if renames && self.op(new.node).is_some() && !self.captured(old) && !self.captured(new) {
            let name = self.name(old).to_owned();
            let spare = self.fresh(&format!("{name}/replaced"));
            self.rename(old, spare);
            self.rename(new, name);
        }
    }

    /// Makes an operator with one output the initialiser that holds its result; the value keeps its name and readers.
    pub fn freeze(&mut self, id: NodeId, mut tensor: TensorMsg) {
        tensor.name = Some(self.name(Outlet { node: id, slot: 0 }).to_owned());
        let read: Vec<_> = self
            .net
            .edges_directed(id, Direction::Incoming)
            .map(|e| e.id())
            .collect();
        for edge in read {
            self.net.remove_edge(edge);
        }
        self.net[id] = Node::Initializer(tensor);
    }

    /// Every use of a value by an operator: the value, and where it is read.
    pub fn uses(&self) -> impl Iterator<Item = (Outlet, Reader)> + '_ {
        self.net.edge_references().map(|e| {
            let value = Outlet {
                node: e.source(),
                slot: e.weight().from,
            };
            (
                value,
                Reader {
                    node: e.target(),
                    slot: e.weight().to,
                },
            )
        })
    }

    /// Replaces the data of the initialiser behind `value` if nothing else reads it; otherwise gives the one
    /// reader a copy of its own. Equal weights shared by the exporter are so never changed for another node.
    pub fn replace_constant(&mut self, reader: NodeId, i: usize, tensor: &Tensor) -> Outlet {
        let base = self
            .input(reader, i)
            .map_or_else(|| "constant".to_owned(), |v| self.name(v).to_owned());
        match self.input(reader, i) {
            Some(value)
                if self.initializer(value).is_some() && self.only_reader(value).is_some() =>
            {
                self.net[value.node] = Node::Initializer(tensor.to_proto(&base));
                value
            }
            _ => {
                let value = self.add_initializer(&base, tensor);
                self.set_input(reader, i, value);
                value
            }
        }
    }

    /// Removes every operator and initialiser that no graph output depends on. Graph inputs stay.
    pub fn remove_dead(&mut self) {
        let mut live: HashSet<NodeId> = self.inputs.iter().copied().collect();
        let mut stack: Vec<NodeId> = self.outputs.iter().map(|o| o.outlet.node).collect();
        while let Some(id) = stack.pop() {
            if live.insert(id) {
                stack.extend(self.net.neighbors_directed(id, Direction::Incoming));
            }
        }
        self.net.retain_nodes(|_, id| live.contains(&id));
    }

    /// Number of nodes: inputs, initialisers and operators.
    pub fn len(&self) -> usize {
        self.net.node_count()
    }

    /// Whether there is nothing in the graph.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
