//! What the models are fed with: made up, as the values don't change how long a product takes.

use std::path::Path;

use ndarray::ArrayD;

use super::Settings;
use crate::error::Error;
use crate::input::{Array, ElementType, ModelInput};
use crate::model::ModelFile;

/// Inputs of one run.
pub struct Feed {
    /// By name, in the graph's order.
    pub tensors: Vec<(String, Array)>,
    /// Samples in them.
    pub batch: usize,
}

impl Feed {
    /// The inputs that a model takes.
    pub fn of(path: &Path, settings: &Settings) -> Result<Self, Error> {
        let unusable = |reason| Error::Unusable {
            path: path.into(),
            reason,
        };
        let inputs = ModelFile::open(path)?.inputs;
        let batch = batch(&inputs, settings.batch).map_err(unusable)?;
        let tensor = |input: &ModelInput| {
            let dims = dims(input, batch, settings.size)?;
            Ok((input.name.clone(), filled(input.element, &dims)))
        };
        let tensors = inputs.iter().map(tensor).collect::<Result<_, String>>();
        Ok(Self {
            tensors: tensors.map_err(unusable)?,
            batch,
        })
    }

    /// Names and dims of the inputs.
    pub fn dims(&self) -> Vec<(String, Vec<usize>)> {
        let tensors = self.tensors.iter();
        tensors
            .map(|(name, array)| (name.clone(), array.dims().to_vec()))
            .collect()
    }

    /// Fails where another model's inputs are not these.
    pub fn require_same(&self, float: &Path, path: &Path, other: &Self) -> Result<(), Error> {
        let unlike = |(mine, its): &(&(String, Array), &(String, Array))| {
            (&mine.0, mine.1.dims(), mine.1.type_name())
                != (&its.0, its.1.dims(), its.1.type_name())
        };
        let same = self.tensors.len() == other.tensors.len()
            && !self
                .tensors
                .iter()
                .zip(&other.tensors)
                .any(|pair| unlike(&pair));
        if same {
            return Ok(());
        }
        Err(Error::NotComparable {
            float: float.into(),
            quantised: path.into(),
            reason: format!(
                "they take other inputs: {} and {}; is the second made from the first?",
                self.describe(),
                other.describe()
            ),
        })
    }

    fn describe(&self) -> String {
        let tensors = self.tensors.iter();
        let words: Vec<String> = tensors
            .map(|(name, array)| format!("`{name}` {} {:?}", array.type_name(), array.dims()))
            .collect();
        words.join(", ")
    }
}

/// The batch that the inputs fix, or the one asked for.
fn batch(inputs: &[ModelInput], asked: Option<usize>) -> Result<usize, String> {
    let fixed = inputs
        .iter()
        .find_map(|input| Some((input, input.dims.first().copied().flatten()?)));
    match (fixed, asked) {
        (Some((input, fixed)), Some(asked)) if fixed != asked => Err(format!(
            "input `{}` has the fixed batch {fixed}, --batch is {asked}; leave it out, or export with a symbolic batch",
            input.name
        )),
        (Some((_, fixed)), _) => Ok(fixed),
        (None, asked) => Ok(asked.unwrap_or(1)),
    }
}

fn dims(input: &ModelInput, batch: usize, size: Option<usize>) -> Result<Vec<usize>, String> {
    let image = input.dims.len() == 4;
    let extent = |(axis, dim): (usize, &Option<usize>)| match dim {
        Some(extent) => Ok(*extent),
        None if axis == 0 => Ok(batch),
        None if image && axis >= 2 => size.ok_or_else(|| {
            format!(
                "input `{}` fixes no height and width; say which with --size",
                input.name
            )
        }),
        None => Err(format!(
            "input `{}` leaves axis {axis} free; export the model with that extent fixed",
            input.name
        )),
    };
    let dims: Vec<usize> = input
        .dims
        .iter()
        .enumerate()
        .map(extent)
        .collect::<Result<_, _>>()?;
    let elements = dims
        .iter()
        .try_fold(1_usize, |n, &extent| n.checked_mul(extent));
    match elements {
        Some(n) if n <= MAX_ELEMENTS => Ok(dims),
        _ => Err(format!(
            "input `{}` would have the dims {dims:?}, too many to feed; give a smaller --batch or --size",
            input.name
        )),
    }
}

/// Elements of one input: 1 GiB of `f32`.
const MAX_ELEMENTS: usize = 1 << 28;

/// Values spread over -1 to 1; integers are 1, as an index or a mask mostly may be.
fn filled(element: ElementType, dims: &[usize]) -> Array {
    match element {
        ElementType::F32 => {
            let mut i = 0_u32;
            let next = || {
                i = i.wrapping_add(1);
                (i as f32 * 0.37).sin()
            };
            ArrayD::from_shape_simple_fn(dims, next).into()
        }
        ElementType::I64 => ArrayD::from_elem(dims, 1_i64).into(),
        ElementType::I32 => ArrayD::from_elem(dims, 1_i32).into(),
        ElementType::Bool => ArrayD::from_elem(dims, true).into(),
        ElementType::U8 => ArrayD::from_elem(dims, 1_u8).into(),
    }
}
