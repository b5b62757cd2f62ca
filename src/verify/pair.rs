//! The two models side by side.

use std::borrow::Cow;
use std::collections::HashSet;
use std::path::Path;

use prost::Message;
use vitq_onnx::Model;
use vitq_passes::structure::Site;
use vitq_passes::transform::ROTATED;
use vitq_passes::widen::widen;

use super::rotation::{Rotation, Rotations};
use super::{Candidate, Energy, Tally, Votes};
use crate::batches::Batch;
use crate::error::Error;
use crate::input::Array;
use crate::model::FloatModel;
use crate::run::{self, Executor, RunOptions, Runtime};

/// A value that both models have by name.
pub struct Layer {
    /// Path of the site.
    pub path: String,
    /// Name of the value in the float model.
    float: String,
    /// Name of the value in the quantised model.
    quantised: String,
    /// What the quantised model's channels are turned by.
    rotation: Option<Rotation>,
}

/// Both models, ready to run.
pub struct Pair<'a> {
    /// Names of the graph outputs that are compared.
    pub outputs: Vec<String>,
    /// Results of sites that are compared.
    pub layers: Vec<Layer>,
    /// Whether the float model is run in its simplified form, as the runtime does not take the file's.
    pub simplified: bool,
    float: Loaded<'a>,
    quantised: Loaded<'a>,
}

struct Loaded<'a> {
    path: &'a Path,
    executor: Box<dyn Executor>,
    /// Where the compared values stand among the executor's outputs.
    places: Vec<usize>,
}

impl<'a> Pair<'a> {
    /// Loads both for inputs shaped like those of `first`.
    pub fn load(
        float: &'a FloatModel,
        quantised: Candidate<'a>,
        first: &Batch,
        runtime: Runtime,
    ) -> Result<Self, Error> {
        let original = Candidate {
            path: &float.path,
            message: &float.message,
        };
        let wide = in_float32(float, quantised)?;
        let outputs = shared_outputs(original, quantised)?;
        let layers = shared_layers(float, &wide);
        let load = |path: &'a Path, message: &Model, name: fn(&Layer) -> &String| {
            let values: Vec<String> = outputs
                .iter()
                .chain(layers.iter().map(name))
                .cloned()
                .collect();
            Loaded::load((path, message), first, &values, runtime)
        };
        let as_it_is = load(&float.path, &float.message, |layer| &layer.float);
        let simplified = matches!(as_it_is, Err(Error::Run { .. }));
        let float = as_it_is.or_else(|error| {
            // What is wrong with the file itself is what a person should hear of.
            let simple = float.graph.export();
            load(&float.path, &simple, |layer| &layer.float).map_err(|_| error)
        })?;
        let quantised = load(quantised.path, &wide, |layer| &layer.quantised)?;
        Ok(Self {
            outputs,
            layers,
            simplified,
            float,
            quantised,
        })
    }

    /// Runs both on a batch.
    ///
    /// # Errors
    /// A model fails, the two give other shapes, or an output is not finite.
    pub fn compare(&self, batch: &Batch) -> Result<Tally, Error> {
        let (float, quantised) = (self.float.run(batch)?, self.quantised.run(batch)?);
        let mut tally = Tally::default();
        for (place, (x, y)) in float.iter().zip(&quantised).enumerate() {
            if x.dims() != y.dims() {
                return Err(self.other_shape(place, x, y));
            }
            let (mut values, approximations) = (rows(x, batch), rows(y, batch));
            let layer = place
                .checked_sub(self.outputs.len())
                .map(|i| &self.layers[i]);
            if let Some(rotation) = layer.and_then(|layer| layer.rotation.as_ref()) {
                values = rotation.apply(&values, x.dims()).into();
            }
            if place < self.outputs.len() {
                require_finite(self.float.path, &self.outputs[place], &values, batch)?;
                require_finite(
                    self.quantised.path,
                    &self.outputs[place],
                    &approximations,
                    batch,
                )?;
            }
            if place == 0 && is_classifier(x, batch) {
                vote(&values, &approximations, batch, &mut tally.votes);
            }
            tally.sums.push(Energy::of(&values, &approximations));
        }
        Ok(tally)
    }

    fn other_shape(&self, place: usize, x: &Array, y: &Array) -> Error {
        let name = self
            .outputs
            .get(place)
            .or_else(|| Some(&self.layers.get(place - self.outputs.len())?.float));
        let name = name.map_or("", String::as_str);
        Error::NotComparable {
            float: self.float.path.into(),
            quantised: self.quantised.path.into(),
            reason: format!("`{name}` has the shapes {:?} and {:?}", x.dims(), y.dims()),
        }
    }
}

impl<'a> Loaded<'a> {
    fn load(
        (path, message): (&'a Path, &Model),
        first: &Batch,
        values: &[String],
        runtime: Runtime,
    ) -> Result<Self, Error> {
        let dims: Vec<_> = first
            .tensors
            .iter()
            .map(|(name, array)| (name.clone(), array.dims().to_vec()))
            .collect();
        let outputs: HashSet<&str> = output_names(message).collect();
        let taps: Vec<String> = values
            .iter()
            .filter(|it| !outputs.contains(it.as_str()))
            .cloned()
            .collect();
        let executor = run::load(
            runtime,
            &message.encode_to_vec(),
            &dims,
            &taps,
            &RunOptions::default(),
        );
        let executor = executor.map_err(|source| Error::Run {
            path: path.into(),
            source,
        })?;
        let place = |value: &String| executor.outputs().iter().position(|it| it == value);
        let places = values.iter().filter_map(place).collect();
        Ok(Self {
            path,
            executor,
            places,
        })
    }

    fn run(&self, batch: &Batch) -> Result<Vec<Array>, Error> {
        let values = self.executor.run(&batch.tensors);
        let values = values.map_err(|source| Error::Run {
            path: self.path.into(),
            source,
        })?;
        Ok(self
            .places
            .iter()
            .map(|&place| values[place].clone())
            .collect())
    }
}

/// The quantised model with the inputs and outputs in float32 where the float model's file has them in a narrower type:
/// both are then fed alike, and none is judged by how an output is rounded.
fn in_float32<'m>(float: &FloatModel, quantised: Candidate<'m>) -> Result<Cow<'m, Model>, Error> {
    if !float.widened.has_borders() {
        return Ok(Cow::Borrowed(quantised.message));
    }
    let mut message = quantised.message.clone();
    widen(&mut message).map_err(|source| Error::Widen {
        path: quantised.path.into(),
        source,
    })?;
    Ok(Cow::Owned(message))
}

/// Whether each sample has one row of class scores.
fn is_classifier(output: &Array, batch: &Batch) -> bool {
    matches!((output, output.dims()), (Array::F32(_), [size, classes]) if *size == batch.size() && *classes > 1)
}

fn vote(float: &[f32], quantised: &[f32], batch: &Batch, votes: &mut Votes) {
    let classes = float.len() / batch.samples.len();
    let rows = float
        .chunks_exact(classes)
        .zip(quantised.chunks_exact(classes));
    rows.zip(&batch.samples)
        .for_each(|((x, y), (_, label))| votes.count(x, y, *label));
}

fn require_finite(model: &Path, output: &str, values: &[f32], batch: &Batch) -> Result<(), Error> {
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(at) => {
            let sample = &batch.samples
                [(at * batch.samples.len() / values.len()).min(batch.samples.len() - 1)]
            .0;
            Err(Error::OutputNotFinite {
                path: model.into(),
                output: output.into(),
                sample: sample.clone(),
            })
        }
    }
}

/// The graph outputs of the float model, all of which the quantised one must have.
fn shared_outputs(float: Candidate<'_>, quantised: Candidate<'_>) -> Result<Vec<String>, Error> {
    let there: HashSet<&str> = output_names(quantised.message).collect();
    let outputs: Vec<String> = output_names(float.message).map(str::to_owned).collect();
    match outputs.iter().find(|it| !there.contains(it.as_str())) {
        None => Ok(outputs),
        Some(missing) => Err(Error::NotComparable {
            float: float.path.into(),
            quantised: quantised.path.into(),
            reason: format!("the second has no output `{missing}`; is it made from the first?"),
        }),
    }
}

/// The sites whose results both files know by name.
fn shared_layers(float: &FloatModel, quantised: &Model) -> Vec<Layer> {
    let (here, there) = (node_outputs(&float.message), node_outputs(quantised));
    let mut rotations = Rotations::of(quantised, &float.structure);
    let layer = |(index, site): (usize, &Site)| {
        let name = float.graph.name(site.output).to_owned();
        if !here.contains(name.as_str()) {
            return None;
        }
        let rotated = format!("{name}{ROTATED}");
        let (quantised, rotation) = if there.contains(rotated.as_str()) {
            (rotated, Some(rotations.of_site(index, site)?))
        } else if there.contains(name.as_str()) {
            (name.clone(), None)
        } else {
            return None;
        };
        Some(Layer {
            path: site.path.clone(),
            float: name,
            quantised,
            rotation,
        })
    };
    let sites = float.structure.sites.iter().enumerate();
    sites.filter_map(layer).collect()
}

fn output_names(model: &Model) -> impl Iterator<Item = &str> {
    model
        .graph
        .iter()
        .flat_map(|graph| graph.output.iter().map(|output| output.name()))
}

fn node_outputs(model: &Model) -> HashSet<&str> {
    let nodes = model.graph.iter().flat_map(|graph| graph.node.iter());
    nodes
        .flat_map(|node| node.output.iter().map(String::as_str))
        .collect()
}

/// The elements of an output without the rows that only fill the batch up.
fn rows<'v>(value: &'v Array, batch: &Batch) -> Cow<'v, [f32]> {
    let mut all = elements(value);
    let size = batch.size();
    if size > batch.samples.len() && value.dims().first() == Some(&size) {
        all.to_mut()
            .truncate(value.dims().iter().product::<usize>() / size * batch.samples.len());
    }
    all
}

/// All elements in row-major order, as `f32`.
fn elements(value: &Array) -> Cow<'_, [f32]> {
    match value {
        Array::F32(array) => match array.as_slice() {
            Some(slice) => Cow::Borrowed(slice),
            None => array.iter().copied().collect(),
        },
        Array::I64(array) => array.iter().map(|&v| v as f32).collect(),
        Array::I32(array) => array.iter().map(|&v| v as f32).collect(),
        Array::U8(array) => array.iter().map(|&v| f32::from(v)).collect(),
        Array::Bool(array) => array.iter().map(|&v| f32::from(u8::from(v))).collect(),
    }
}
