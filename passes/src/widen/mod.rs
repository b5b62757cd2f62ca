//! A model in float16 or bfloat16 as a model in float32.
//!
//! ```text
//! float16 x, W:  y = MatMul(x, W)    →    float x, W:  y = MatMul(x, W)
//! Cast<to = float16>(x)              →    Cast<to = float>(x)
//! ```
//! Every float16 and bfloat16 number is a float32 number: constants keep their values, and what vanishes is the rounding of
//! each result. The graph's inputs and outputs are float32 as well until [`Widened::restore`] gives them back, behind
//! one Cast each, the types that the model's users know.
//!
//! Declines operators of other domains than ONNX's and ONNX Runtime's, which may take narrow types only, and BitCast.

mod borders;
mod walk;

use std::collections::BTreeSet;

use thiserror::Error;
use vitq_onnx::pb::type_proto;
use vitq_onnx::{DataType, Model, TensorError, ValueInfoMsg};

use walk::Walk;

/// Why a model cannot be widened.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum WidenError {
    /// An operator that may mean something else on wider numbers.
    #[error(
        "node `{node}` is {operator}, which may want {dtype} where vitq computes in float32; export the model in float32"
    )]
    Operator {
        /// The node as a person finds it.
        node: String,
        /// Domain and operator.
        operator: String,
        /// The narrow type that the model uses.
        dtype: String,
    },
    /// A constant cannot be read.
    #[error(transparent)]
    Constant(#[from] TensorError),
    /// A sub-graph reads a narrow input or output by its name, which then is another value.
    #[error(
        "a sub-graph reads `{value}`, an input or output in {dtype}, by its name; export the model with inputs and outputs in float32"
    )]
    Captured {
        /// The input or output.
        value: String,
        /// Its type.
        dtype: String,
    },
}

/// What was narrow in a model that is float32 now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Widened {
    /// The narrow types that constants, casts and declared values had.
    types: BTreeSet<DataType>,
    /// Graph inputs by name, and the type that they had.
    inputs: Vec<(String, DataType)>,
    /// Graph outputs by name, and the type that they had.
    outputs: Vec<(String, DataType)>,
}

impl Widened {
    /// The narrow types that the model used, as people write them: `float16`, `bfloat16`.
    pub fn types(&self) -> Vec<String> {
        self.types.iter().map(|&dtype| spelled(dtype)).collect()
    }

    /// Whether an input or output is narrow.
    pub fn has_borders(&self) -> bool {
        !self.inputs.is_empty() || !self.outputs.is_empty()
    }
}

/// Makes every float16 and bfloat16 constant, cast and declared type of the model float32, in sub-graphs and functions
/// too. A model without any stays as it is, byte for byte.
///
/// # Errors
/// See [`WidenError`]; the model is then of no use.
pub fn widen(model: &mut Model) -> Result<Widened, WidenError> {
    let mut widened = Widened::default();
    if let Some(graph) = &model.graph {
        let constant = |info: &&ValueInfoMsg| {
            let mut initialisers = graph.initializer.iter();
            !initialisers.any(|tensor| tensor.name() == info.name())
        };
        widened.inputs = narrow(graph.input.iter().filter(constant));
        widened.outputs = narrow(graph.output.iter());
    }
    widened.types = Walk::over(model)?;
    Ok(widened)
}

/// The values of narrow tensor types.
fn narrow<'a>(infos: impl Iterator<Item = &'a ValueInfoMsg>) -> Vec<(String, DataType)> {
    let narrow = |info: &ValueInfoMsg| {
        let type_proto::Value::TensorType(tensor) = info.r#type.as_ref()?.value.as_ref()? else {
            return None;
        };
        let dtype = narrow_type(tensor.elem_type().into())?;
        Some((info.name().to_owned(), dtype))
    };
    infos.filter_map(narrow).collect()
}

/// The type behind a code, where it is narrow.
fn narrow_type(code: i64) -> Option<DataType> {
    let dtype = DataType::try_from(i32::try_from(code).ok()?).ok()?;
    matches!(dtype, DataType::Float16 | DataType::Bfloat16).then_some(dtype)
}

fn spelled(dtype: DataType) -> String {
    dtype.name().to_lowercase()
}
