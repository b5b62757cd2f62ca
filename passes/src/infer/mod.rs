//! Types and shapes with symbols, and what is known of the integers that shapes are computed with.
//!
//! Follows the operators that exported vision models consist of. An operator that is not known gives values
//! of unknown shape, or what the file declares of them; never an error.

mod dtype;
mod shape;
mod size;
mod values;

use std::collections::HashMap;

use vitq_onnx::pb::{TypeProto, tensor_shape_proto, type_proto};
use vitq_onnx::{DataType, Tensor};

use crate::ir::{Graph, Node, NodeId, Op, Outlet};

pub use size::{Dim, Entry};

/// Longest integer vector whose values are followed.
const MAX_VALUES: usize = 1024;

/// What is known of one value.
#[derive(Clone, Debug, Default)]
struct Facts {
    dtype: Option<DataType>,
    dims: Option<Vec<Dim>>,
    /// Elements of an integer or boolean scalar or vector.
    value: Option<Vec<Entry>>,
}

/// What is known of every value of a graph.
#[derive(Clone, Debug, Default)]
pub struct Shapes {
    facts: HashMap<Outlet, Facts>,
}

impl Shapes {
    /// Dimensions of a value, `None` where not even their number is known.
    pub fn of(&self, value: Outlet) -> Option<&[Dim]> {
        self.facts.get(&value)?.dims.as_deref()
    }

    /// Dimensions of a value where all are numbers.
    pub fn known(&self, value: Outlet) -> Option<Vec<usize>> {
        self.of(value)?.iter().map(Dim::known).collect()
    }

    /// Number of dimensions.
    pub fn rank(&self, value: Outlet) -> Option<usize> {
        self.of(value).map(<[Dim]>::len)
    }

    /// Element type of a value.
    pub fn dtype(&self, value: Outlet) -> Option<DataType> {
        self.facts.get(&value)?.dtype
    }

    /// Elements of an integer (or boolean: 0 and 1) scalar or vector, as far as they are known.
    pub fn entries(&self, value: Outlet) -> Option<&[Entry]> {
        self.facts.get(&value)?.value.as_deref()
    }

    /// Elements of an integer scalar or vector, where all are numbers.
    pub fn ints(&self, value: Outlet) -> Option<Vec<i64>> {
        self.entries(value)?.iter().map(Entry::known).collect()
    }
}

/// Infers element types, shapes and shape values of the whole graph.
pub fn infer(graph: &Graph) -> Shapes {
    let mut shapes = Shapes::default();
    for id in graph.topological().unwrap_or_default() {
        match graph.node(id) {
            Node::Op(op) => infer_op(graph, id, op, &mut shapes),
            Node::Initializer(_) => {
                let value = Outlet { node: id, slot: 0 };
                shapes.facts.insert(value, constant(graph, value));
            }
            Node::Input(info) => {
                let facts = info.r#type.as_ref().map(|t| declared(t, info.name()));
                shapes
                    .facts
                    .insert(Outlet { node: id, slot: 0 }, facts.unwrap_or_default());
            }
        }
    }
    shapes
}

/// An operator with what is known of its inputs.
struct Call<'a> {
    op: &'a Op,
    inputs: Vec<Facts>,
}

impl Call<'_> {
    fn dims(&self, i: usize) -> Option<&[Dim]> {
        self.inputs.get(i)?.dims.as_deref()
    }

    fn value(&self, i: usize) -> Option<&[Entry]> {
        self.inputs.get(i)?.value.as_deref()
    }

    fn ints(&self, i: usize) -> Option<Vec<i64>> {
        self.value(i)?.iter().map(Entry::known).collect()
    }

    fn has(&self, i: usize) -> bool {
        self.inputs
            .get(i)
            .is_some_and(|f| f.dtype.is_some() || f.dims.is_some())
    }

    /// A list that is an attribute in older operator sets and input `i` in newer ones; `Some(None)`: left out.
    fn list(&self, attribute: &str, i: usize) -> Option<Option<Vec<i64>>> {
        if let Some(list) = self.op.ints(attribute) {
            return Some(Some(list.to_vec()));
        }
        if self.has(i) {
            self.ints(i).map(Some)
        } else {
            Some(None)
        }
    }
}

fn infer_op(graph: &Graph, id: NodeId, op: &Op, shapes: &mut Shapes) {
    let inputs = graph.node_inputs(id);
    let facts = |v: Option<Outlet>| {
        v.and_then(|v| shapes.facts.get(&v))
            .cloned()
            .unwrap_or_default()
    };
    let call = Call {
        op,
        inputs: inputs.into_iter().map(facts).collect(),
    };
    for slot in 0..op.outputs.len() {
        let value = Outlet { node: id, slot };
        let mut facts = Facts {
            dtype: dtype::dtype(&call, slot),
            dims: shape::shape(&call, slot),
            value: values::value(&call, slot),
        };
        if let Some(info) = graph
            .value_info(value)
            .and_then(|info| info.r#type.as_ref())
        {
            let declared = declared(info, graph.name(value));
            facts.dtype = facts.dtype.or(declared.dtype);
            facts.dims = size::refine(facts.dims, declared.dims);
        }
        shapes.facts.insert(value, facts);
    }
}

fn constant(graph: &Graph, value: Outlet) -> Facts {
    let Some(tensor) = graph.initializer(value) else {
        return Facts::default();
    };
    let dims = graph.constant_dims(value);
    let short = dims
        .as_ref()
        .is_some_and(|d| d.len() < 2 && d.first().is_none_or(|&n| n <= MAX_VALUES));
    Facts {
        dtype: DataType::try_from(tensor.data_type()).ok(),
        dims: dims.map(|d| d.into_iter().map(Dim::Known).collect()),
        value: if short {
            graph.tensor(value).and_then(|t| entries(&t))
        } else {
            None
        },
    }
}

/// Elements of an integer or boolean tensor.
fn entries(tensor: &Tensor) -> Option<Vec<Entry>> {
    let countable = matches!(
        tensor.dtype,
        DataType::Int64 | DataType::Int32 | DataType::Bool
    );
    let ints = if countable {
        tensor.to_i64().ok()?
    } else {
        return None;
    };
    Some(ints.into_iter().map(Entry::Known).collect())
}

/// Facts of a declared type. A dimension without size or name gets a name of its own: it is the same number
/// wherever it goes.
fn declared(r#type: &TypeProto, name: &str) -> Facts {
    use tensor_shape_proto::dimension::Value;
    let Some(type_proto::Value::TensorType(tensor)) = &r#type.value else {
        return Facts::default();
    };
    let dim = |(axis, d): (usize, &tensor_shape_proto::Dimension)| match &d.value {
        Some(Value::DimValue(size)) => usize::try_from(*size).map_or(Dim::Unknown, Dim::Known),
        Some(Value::DimParam(symbol)) if !symbol.is_empty() => Dim::Symbol(symbol.clone()),
        _ => Dim::Symbol(format!("{name}.{axis}")),
    };
    let dims = tensor
        .shape
        .as_ref()
        .map(|s| s.dim.iter().map(|d| &**d).enumerate().map(dim).collect());
    Facts {
        dtype: DataType::try_from(tensor.elem_type()).ok(),
        dims,
        value: None,
    }
}

/// Axis from -rank..rank to 0..rank.
fn axis(axis: i64, rank: usize) -> Option<usize> {
    let rank = i64::try_from(rank).ok()?;
    let axis = if axis < 0 {
        axis.checked_add(rank)?
    } else {
        axis
    };
    (0..rank).contains(&axis).then_some(axis as usize)
}

/// Axes from -rank..rank to 0..rank.
fn axes(list: &[i64], rank: usize) -> Option<Vec<usize>> {
    list.iter().map(|&a| axis(a, rank)).collect()
}
