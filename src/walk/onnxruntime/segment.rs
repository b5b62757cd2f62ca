//! Operators between two sites as sessions of ONNX Runtime.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::ort::session::{Session, SessionInputValue};
use prost::Message;
use tract_onnx::prelude::{TValue, TVec};
use vitq_onnx::ValueInfoMsg;
use vitq_onnx::pb::{TypeProto, ValueInfoProto, tensor_shape_proto::Dimension, type_proto};
use vitq_passes::ir::{Excerpt, Graph, NodeId};

use super::values;
use crate::run::{RunError, Runtime, ort};
use crate::walk::WalkError;

/// The operators, and sessions that run them.
pub struct Segment {
    graph: Arc<Graph>,
    excerpt: Excerpt,
    /// A session does one run at a time, so there are as many as ran at once.
    idle: Mutex<Vec<Session>>,
}

impl Segment {
    pub fn new(graph: &Arc<Graph>, ops: &[NodeId]) -> Self {
        Segment {
            graph: Arc::clone(graph),
            excerpt: graph.excerpt(ops),
            idle: Mutex::default(),
        }
    }

    pub fn excerpt(&self) -> &Excerpt {
        &self.excerpt
    }

    /// The excerpt's outputs.
    pub fn run(&self, inputs: &[TValue]) -> Result<TVec<TValue>, WalkError> {
        let idle = self.idle().pop();
        let mut session = idle.map_or_else(|| self.session(inputs), Ok)?;
        let outputs = self.outputs(&mut session, inputs)?;
        self.idle().push(session);
        Ok(outputs)
    }

    fn outputs(&self, session: &mut Session, inputs: &[TValue]) -> Result<TVec<TValue>, WalkError> {
        let names = self.excerpt.inputs.iter().map(|&it| self.graph.name(it));
        let feed = names
            .zip(inputs)
            .map(|(name, value)| Ok((name, values::to_ort(value)?)))
            .collect::<Result<Vec<(&str, SessionInputValue<'_>)>, String>>()
            .map_err(|message| self.failed(message))?;
        let given = session
            .run(feed)
            .map_err(|error| self.failed(error.to_string()))?;
        let names = self.excerpt.outputs.iter().map(|&it| self.graph.name(it));
        names
            .map(|name| match given.get(name) {
                Some(value) => {
                    values::from_ort(value).map_err(|message| format!("{name}: {message}"))
                }
                None => Err(format!("{name} has no value")),
            })
            .collect::<Result<_, _>>()
            .map_err(|message| self.failed(message))
    }

    fn session(&self, inputs: &[TValue]) -> Result<Session, WalkError> {
        let declared = self.excerpt.inputs.iter().zip(inputs);
        let declared = declared
            .map(|(&input, value)| declare(self.graph.name(input), value))
            .collect::<Result<_, _>>()
            .map_err(|message| self.failed(message))?;
        let model = self.graph.export_excerpt(&self.excerpt, declared);
        ort::segment(&model.encode_to_vec()).map_err(|error| match error {
            RunError::Load { runtime, message } => WalkError::Load { runtime, message },
            other => other.into(),
        })
    }

    fn failed(&self, message: String) -> WalkError {
        let first = self.excerpt.ops.first();
        WalkError::Run {
            runtime: Runtime::OnnxRuntime,
            node: first.map_or_else(String::new, |&op| self.graph.label(op)),
            message,
        }
    }

    /// A panic of another thread leaves whole sessions behind.
    fn idle(&self) -> MutexGuard<'_, Vec<Session>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An input of this value's type and rank, and of any extents.
fn declare(name: &str, value: &TValue) -> Result<ValueInfoMsg, String> {
    let mut tensor = type_proto::Tensor {
        elem_type: Some(values::data_type(value)? as i32),
        ..Default::default()
    };
    let any = Dimension::default();
    tensor.shape.get_or_insert_default().dim = vec![any.into(); value.rank()];
    let kind = TypeProto {
        value: Some(type_proto::Value::TensorType(tensor.into())),
        ..Default::default()
    };
    Ok(ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(kind.into()),
        ..Default::default()
    }
    .into())
}
