//! What lies between two sites, and who runs it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use tract_onnx::prelude::{TValue, TVec, Tensor};

use super::WalkError;

/// A value of the network; each executor has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(usize);

/// Numbers what an executor knows its values by.
pub struct Numbers<K>(HashMap<K, Value>);

impl<K: Eq + Hash> Numbers<K> {
    pub fn new() -> Self {
        Numbers(HashMap::new())
    }

    /// The value behind a key.
    pub fn value(&mut self, key: K) -> Value {
        let next = Value(self.0.len());
        *self.0.entry(key).or_insert(next)
    }
}

/// A site, or operators that are run as one.
pub struct Step {
    /// As a person finds it in the graph.
    pub name: String,
    /// Index into the structure's sites, if it is one.
    pub site: Option<usize>,
    /// What it reads; of a site its operands in order.
    pub reads: Vec<Value>,
    /// What it gives.
    pub gives: Vec<Value>,
}

/// The cut network as an executor runs it.
pub struct Network {
    /// In order: what a step reads is given by an earlier one, an input or a constant.
    pub steps: Vec<Step>,
    /// By name.
    pub inputs: Vec<(String, Value)>,
    /// In order.
    pub outputs: Vec<Value>,
    /// Values that steps read or outputs are, and that are the same for every input.
    pub constants: HashMap<Value, Arc<Tensor>>,
    /// Who runs the steps that are no sites.
    pub operators: Box<dyn Operators>,
}

/// Runs what lies between two sites; shared between threads.
pub trait Operators: Send + Sync {
    /// What step `step` gives for what it reads. A value that nobody else holds may be worked on in place.
    fn run(&self, step: usize, inputs: TVec<TValue>) -> Result<TVec<TValue>, WalkError>;
}
