//! Every place of a model that says an element type.

use std::collections::{BTreeSet, HashSet};

use vitq_onnx::pb::{GraphProto, type_proto};
use vitq_onnx::{AttributeMsg, DataType, Model, NodeMsg, Tensor, TensorMsg, TypeMsg, ValueInfoMsg};

use super::{WidenError, narrow_type, spelled};

/// Attributes that hold an element type, whichever operator has them.
const TYPE_ATTRIBUTES: [&str; 7] = [
    "to",
    "dtype",
    "output_dtype",
    "output_datatype",
    "precision",
    "softmax_precision",
    "stash_type",
];

/// Domains whose operators compute alike in every float type.
const KNOWN_DOMAINS: [&str; 4] = ["", "ai.onnx", "ai.onnx.ml", "com.microsoft"];

/// Widens as it goes.
pub(super) struct Walk {
    /// Domain and name of the model's functions, whose bodies are walked as well.
    functions: HashSet<(String, String)>,
    types: BTreeSet<DataType>,
    /// Name and operator of the first node that must not see other types.
    obstacle: Option<(String, String)>,
}

impl Walk {
    /// Widens the whole model; the narrow types that it held.
    pub fn over(model: &mut Model) -> Result<BTreeSet<DataType>, WidenError> {
        let names = model.functions.iter();
        let mut walk = Walk {
            functions: names
                .map(|f| (f.domain().to_owned(), f.name().to_owned()))
                .collect(),
            types: BTreeSet::new(),
            obstacle: None,
        };
        if let Some(graph) = &mut model.graph {
            walk.graph(graph)?;
        }
        for function in &mut model.functions {
            walk.nodes(&mut function.node)?;
            walk.values(&mut function.value_info);
            for attribute in &mut function.attribute_proto {
                walk.attribute(attribute)?;
            }
        }
        match (walk.types.first(), walk.obstacle) {
            (Some(&dtype), Some((node, operator))) => Err(WidenError::Operator {
                node,
                operator,
                dtype: spelled(dtype),
            }),
            _ => Ok(walk.types),
        }
    }

    fn graph(&mut self, graph: &mut GraphProto) -> Result<(), WidenError> {
        for tensor in &mut graph.initializer {
            self.tensor(tensor)?;
        }
        self.values(&mut graph.input);
        self.values(&mut graph.output);
        self.values(&mut graph.value_info);
        self.nodes(&mut graph.node)
    }

    fn nodes(&mut self, nodes: &mut [NodeMsg]) -> Result<(), WidenError> {
        for node in nodes {
            if self.obstacle.is_none() && !self.understood(node) {
                self.obstacle = Some((label(node), operator(node)));
            }
            for attribute in &mut node.attribute {
                self.attribute(attribute)?;
            }
        }
        Ok(())
    }

    fn understood(&self, node: &NodeMsg) -> bool {
        let called = || (node.domain().to_owned(), node.op_type().to_owned());
        let known = KNOWN_DOMAINS.contains(&node.domain()) && node.op_type() != "BitCast";
        known || self.functions.contains(&called())
    }

    fn attribute(&mut self, attribute: &mut AttributeMsg) -> Result<(), WidenError> {
        if TYPE_ATTRIBUTES.contains(&attribute.name())
            && let Some(dtype) = attribute.i.and_then(narrow_type)
        {
            self.types.insert(dtype);
            attribute.i = Some(DataType::Float as i64);
        }
        let attribute = &mut **attribute;
        let tensor = attribute.t.as_deref_mut();
        for tensor in tensor.into_iter().chain(&mut attribute.tensors) {
            self.tensor(tensor)?;
        }
        let r#type = attribute.tp.as_deref_mut();
        for r#type in r#type.into_iter().chain(&mut attribute.type_protos) {
            self.r#type(r#type);
        }
        let graph = attribute.g.as_deref_mut();
        for graph in graph.into_iter().chain(&mut attribute.graphs) {
            self.graph(graph)?;
        }
        Ok(())
    }

    fn tensor(&mut self, message: &mut TensorMsg) -> Result<(), WidenError> {
        let Some(dtype) = narrow_type(message.data_type().into()) else {
            return Ok(());
        };
        self.types.insert(dtype);
        let tensor = Tensor::from_proto(message)?;
        let wide = Tensor::from_f32(&tensor.dims, &tensor.to_f32()?);
        message.data_type = Some(wide.dtype as i32);
        message.int32_data.clear();
        message.raw_data = Some(wide.data);
        Ok(())
    }

    fn values(&mut self, infos: &mut [ValueInfoMsg]) {
        let types = infos.iter_mut().filter_map(|info| info.r#type.as_mut());
        types.for_each(|r#type| self.r#type(r#type));
    }

    fn r#type(&mut self, message: &mut TypeMsg) {
        let inner = match message.value.as_mut() {
            Some(type_proto::Value::TensorType(tensor)) => {
                return self.element(&mut tensor.elem_type);
            }
            Some(type_proto::Value::SparseTensorType(tensor)) => {
                return self.element(&mut tensor.elem_type);
            }
            Some(type_proto::Value::SequenceType(sequence)) => &mut sequence.elem_type,
            Some(type_proto::Value::OptionalType(optional)) => &mut optional.elem_type,
            Some(type_proto::Value::MapType(map)) => &mut map.value_type,
            _ => return,
        };
        if let Some(inner) = inner.as_deref_mut() {
            self.r#type(inner);
        }
    }

    fn element(&mut self, element: &mut Option<i32>) {
        if let Some(dtype) = element.and_then(|code| narrow_type(code.into())) {
            self.types.insert(dtype);
            *element = Some(DataType::Float as i32);
        }
    }
}

fn label(node: &NodeMsg) -> String {
    let output = || node.output.first().map_or("", String::as_str);
    match node.name() {
        "" => output().to_owned(),
        name => name.to_owned(),
    }
}

fn operator(node: &NodeMsg) -> String {
    match node.domain() {
        "" => node.op_type().to_owned(),
        domain => format!("{domain}.{}", node.op_type()),
    }
}
