//! The float graph as steps that candle differentiates: sites apart, everything else operator by operator.

mod call;
mod compile;
mod constants;
mod conv;
mod einsum;
mod normalise;
mod operators;
mod resize;
mod scatter;
mod segment;
mod shaping;
mod windows;

use std::collections::HashMap;

use candle_core::Tensor;
use vitq_passes::ir::{Op, Outlet};

use super::backend::Backend;
use super::kernels::{Kernels, LayerNorm};
use super::{LearnError, message};

pub(super) use compile::norm_node;
pub(super) use operators::matmul;
pub use segment::{Segment, segments};

/// A value of the network.
#[derive(Clone, Debug)]
pub enum Value {
    /// Floats, which have gradients.
    Float(Tensor),
    /// Shapes and indices, which have none.
    Integers(Integers),
}

/// Integers (or truth values: 0 and 1).
#[derive(Clone, Debug, PartialEq)]
pub struct Integers {
    /// Row-major.
    pub values: Vec<i64>,
    /// Empty for a scalar.
    pub dims: Vec<usize>,
}

impl Integers {
    fn list(values: Vec<i64>) -> Integers {
        Integers {
            dims: vec![values.len()],
            values,
        }
    }
}

/// The values that are alive.
pub type Values = HashMap<Outlet, Value>;

/// One step.
pub struct Step {
    /// Name of the node, for messages.
    pub name: String,
    /// What is done.
    pub kind: Kind,
    /// Operands.
    pub reads: Vec<Option<Outlet>>,
    /// Results.
    pub writes: Vec<Outlet>,
}

/// What a step does.
pub enum Kind {
    /// A site, by its index: whoever runs the network says what happens there.
    Site(usize),
    /// A LayerNormalization or RMSNormalization in front of sites, by its place among what learns: behind all sites.
    Norm(usize, Box<Op>),
    /// A GELU of several operators.
    Gelu,
    /// Any other operator.
    Operator(Box<Op>),
}

/// A network for inputs of one shape.
pub struct Network {
    /// Where it is computed.
    pub(super) backend: Backend,
    /// In order.
    pub steps: Vec<Step>,
    /// Values that depend on no input.
    constants: Values,
    /// Inputs by name.
    pub inputs: Vec<(String, Outlet)>,
    /// Outputs by name.
    pub outputs: Vec<(String, Outlet)>,
}

/// What happens at sites.
pub trait Sites {
    /// Result of a site.
    ///
    /// # Errors
    /// Operands do not fit.
    fn evaluate(&self, site: usize, operands: &[Tensor]) -> candle_core::Result<Tensor>;

    /// γ and β of a norm that learns, by its place.
    fn affine(&self, _place: usize) -> Option<&[Tensor; 2]> {
        None
    }
}

impl Network {
    /// Runs the steps of a segment; `values` holds what it reads, and then what it writes too.
    ///
    /// # Errors
    /// An operator has no gradient form, or its operands do not fit; the message names the node.
    pub fn run(
        &self,
        segment: &Segment,
        values: &mut Values,
        sites: &dyn Sites,
    ) -> Result<(), LearnError> {
        for step in &self.steps[segment.steps.clone()] {
            let results = self.evaluate(step, values, sites)?;
            values.extend(step.writes.iter().copied().zip(results));
        }
        Ok(())
    }

    fn evaluate(
        &self,
        step: &Step,
        values: &Values,
        sites: &dyn Sites,
    ) -> Result<Vec<Value>, LearnError> {
        let failed = |problem: String| LearnError::Operator {
            node: step.name.clone(),
            problem,
        };
        let operand = |outlet: &Option<Outlet>| {
            let Some(outlet) = outlet else {
                return Ok(None);
            };
            let value = values.get(outlet).or_else(|| self.constants.get(outlet));
            value
                .map(Some)
                .ok_or_else(|| failed("one of its operands has no value".into()))
        };
        let operands = step
            .reads
            .iter()
            .map(operand)
            .collect::<Result<Vec<_>, _>>()?;
        let evaluated = match &step.kind {
            Kind::Site(site) => floats(&operands)
                .and_then(|it| sites.evaluate(*site, &it))
                .map(one),
            Kind::Gelu => floats(&operands)
                .and_then(|it| self.backend.kernels.gelu(&it[0]))
                .map(one),
            Kind::Norm(place, op) => match sites.affine(*place) {
                Some(affine) => floats(&operands)
                    .and_then(|it| layer_norm(self.backend.kernels, op, &it[0], affine))
                    .map(one),
                None => operators::evaluate(op, &operands, &self.backend),
            },
            Kind::Operator(op) => operators::evaluate(op, &operands, &self.backend),
        };
        evaluated.map_err(|e| failed(message(&e)))
    }
}

fn one(tensor: Tensor) -> Vec<Value> {
    vec![Value::Float(tensor)]
}

fn floats(operands: &[Option<&Value>]) -> candle_core::Result<Vec<Tensor>> {
    operands
        .iter()
        .flatten()
        .map(|value| match value {
            Value::Float(tensor) => Ok(tensor.clone()),
            Value::Integers(_) => candle_core::bail!("an operand is not float"),
        })
        .collect()
}

/// A LayerNormalization or RMSNormalization with γ and β `[channels]`; of the latter β is nothing.
fn layer_norm(
    kernels: Kernels,
    op: &Op,
    x: &Tensor,
    affine: &[Tensor; 2],
) -> candle_core::Result<Tensor> {
    let epsilon = op.float("epsilon").unwrap_or(1e-5);
    let axis = op.int("axis").unwrap_or(-1);
    if axis != -1 && axis + 1 != x.rank() as i64
        || affine[0].elem_count() != x.dims().last().copied().unwrap_or(0)
    {
        candle_core::bail!("it normalises over more than the last axis")
    }
    let norm = LayerNorm {
        epsilon,
        centred: op.is("LayerNormalization"),
    };
    kernels.layer_norm(x, affine, norm)
}
