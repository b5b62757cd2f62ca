//! Learning that was interrupted goes on where it stood: all that is learned, Adam's moments and the checks, in a safetensors file.
//! Of blocks it goes on behind the last one that was learned whole.
//!
//! The file belongs to one piece of work, so the plan, the options and the number of samples are known in it again. What was
//! drawn at random is not kept: it follows from the seed.

use std::collections::HashMap;
use std::path::PathBuf;

use safetensors::tensor::{Dtype, SafeTensors, TensorView, serialize};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use vitq_passes::plan::Plan;
use xxhash_rust::xxh3::xxh3_64;

use super::LearnError;
use super::adam::Parameter;
use super::distil::Road;
use super::reconstruct::Course as Blocks;
use super::state::State;
use crate::output;
use crate::report::Check;

/// Where to keep what was learned so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Written at each check, or behind each block.
    pub path: PathBuf,
    /// Whether to go on from it.
    pub resume: bool,
}

impl Checkpoint {
    /// The one beside it, of blocks that learn before the whole network does.
    pub fn of_blocks(&self) -> Self {
        let mut path = self.path.clone().into_os_string();
        path.push(".blocks");
        Checkpoint {
            path: path.into(),
            ..*self
        }
    }
}

/// A checkpoint of a certain piece of work.
pub(super) struct Kept {
    checkpoint: Checkpoint,
    work: String,
}

/// What the file says beside its tensors.
#[derive(Serialize, Deserialize)]
struct Said<C> {
    work: String,
    #[serde(flatten)]
    course: C,
}

/// How far a whole network is.
#[derive(Serialize, Deserialize)]
struct Checks {
    checks: Vec<Check>,
    /// Place of the best check.
    best: usize,
}

/// Key of [`Said`] in the file's metadata.
const SAID: &str = "vitq.learn";

type Part = (String, Dtype, Vec<u8>);

impl Kept {
    /// That of learning with `options` from so many samples, from the plan on.
    pub fn new(
        checkpoint: &Checkpoint,
        plan: &Plan,
        options: &impl Serialize,
        samples: usize,
    ) -> Self {
        let work = serde_json::to_vec(&(plan, options, samples)).unwrap_or_default();
        Kept {
            checkpoint: checkpoint.clone(),
            work: format!("{:016x}", xxh3_64(&work)),
        }
    }

    /// Writes how far a network is.
    pub fn save(&self, states: &mut [State], road: &mut Road) -> Result<(), LearnError> {
        let mut tensors = Vec::new();
        for (name, parameter) in named("now", states) {
            for (part, values) in parts(parameter) {
                tensors.push((format!("{name}.{part}"), Dtype::F32, bytes(values)));
            }
        }
        for (name, moved) in moves(states) {
            let signs = moved.iter().map(|&sign| sign as u8).collect();
            tensors.push((name, Dtype::I8, signs));
        }
        for (name, parameter) in named("best", &mut road.best.1) {
            tensors.push((name, Dtype::F32, bytes(&parameter.values)));
        }
        let course = Checks {
            checks: road.checks.clone(),
            best: road.best.0,
        };
        self.write(course, &tensors)
    }

    /// Goes on from there, if that is asked for.
    pub fn load(&self, states: &mut [State], road: &mut Road) -> Result<(), LearnError> {
        let Some(file) = self.file()? else {
            return Ok(());
        };
        let (course, tensors) = self.read::<Checks>(&file)?;
        if course.best >= course.checks.len() {
            return Err(self.foreign("there is no best check"));
        }
        for (name, parameter) in named("now", states) {
            let Parameter {
                values,
                mean,
                square,
                ..
            } = parameter;
            for (part, values) in [("values", values), ("mean", mean), ("square", square)] {
                self.fill(&tensors, &format!("{name}.{part}"), values)?;
            }
        }
        for (name, moved) in moves(states) {
            let data = tensors.tensor(&name).map_err(|e| self.foreign(e))?;
            moved
                .iter_mut()
                .zip(data.data())
                .for_each(|(sign, b)| *sign = *b as i8);
        }
        for (name, parameter) in named("best", &mut road.best.1) {
            self.fill(&tensors, &name, &mut parameter.values)?;
        }
        (road.checks, road.best.0) = (course.checks, course.best);
        Ok(())
    }

    /// Writes which blocks have learned, and what.
    pub fn save_blocks(&self, states: &mut [State], course: &Blocks) -> Result<(), LearnError> {
        let tensors = named("now", states);
        let tensors = tensors.map(|(name, parameter)| (name, Dtype::F32, bytes(&parameter.values)));
        self.write(course, &tensors.collect::<Vec<_>>())
    }

    /// Goes on behind those, if that is asked for.
    pub fn load_blocks(&self, states: &mut [State]) -> Result<Option<Blocks>, LearnError> {
        let Some(file) = self.file()? else {
            return Ok(None);
        };
        let (course, tensors) = self.read(&file)?;
        for (name, parameter) in named("now", states) {
            self.fill(&tensors, &name, &mut parameter.values)?;
        }
        Ok(Some(course))
    }

    /// Whole or not at all.
    fn write(&self, course: impl Serialize, tensors: &[Part]) -> Result<(), LearnError> {
        let said = Said {
            work: self.work.clone(),
            course,
        };
        let said = serde_json::to_string(&said).map_err(|e| self.failed(e))?;
        let views = tensors.iter().map(|(name, dtype, data)| {
            let size = if *dtype == Dtype::F32 { 4 } else { 1 };
            TensorView::new(*dtype, vec![data.len() / size], data).map(|view| (name, view))
        });
        let views = views
            .collect::<Result<Vec<_>, _>>()
            .map_err(|e| self.failed(e))?;
        let metadata = HashMap::from([(SAID.to_owned(), said)]);
        let file = serialize(views, Some(metadata)).map_err(|e| self.failed(e))?;
        output::write(&self.checkpoint.path, &file).map_err(|e| self.failed(e))
    }

    /// The bytes to go on from, if that is asked for.
    fn file(&self) -> Result<Option<Vec<u8>>, LearnError> {
        let read = || std::fs::read(&self.checkpoint.path).map_err(|e| self.failed(e));
        self.checkpoint.resume.then(read).transpose()
    }

    fn read<'f, C: DeserializeOwned>(
        &self,
        file: &'f [u8],
    ) -> Result<(C, SafeTensors<'f>), LearnError> {
        let (_, header) = SafeTensors::read_metadata(file).map_err(|e| self.foreign(e))?;
        let said = header.metadata().as_ref().and_then(|it| it.get(SAID));
        let said = said.ok_or_else(|| self.foreign("it does not say so"))?;
        let said: Said<serde_json::Value> =
            serde_json::from_str(said).map_err(|e| self.foreign(e))?;
        if said.work != self.work {
            return Err(self.failed(
                "it belongs to another model, other samples or other options: give those that it was made with, or leave --resume out",
            ));
        }
        let course = serde_json::from_value(said.course).map_err(|e| self.foreign(e))?;
        let tensors = SafeTensors::deserialize(file).map_err(|e| self.foreign(e))?;
        Ok((course, tensors))
    }

    fn fill(
        &self,
        tensors: &SafeTensors<'_>,
        name: &str,
        values: &mut [f32],
    ) -> Result<(), LearnError> {
        let data = tensors.tensor(name).map_err(|e| self.foreign(e))?;
        let floats = data.data().as_chunks::<4>().0;
        if floats.len() != values.len() {
            return Err(self.foreign(format!("{name} has another size")));
        }
        let floats = floats.iter().map(|b| f32::from_le_bytes(*b));
        values.iter_mut().zip(floats).for_each(|(v, f)| *v = f);
        Ok(())
    }

    fn foreign(&self, problem: impl std::fmt::Display) -> LearnError {
        self.failed(format!("it is no checkpoint of vitq ({problem})"))
    }

    fn failed(&self, problem: impl std::fmt::Display) -> LearnError {
        LearnError::Checkpoint {
            path: self.checkpoint.path.clone(),
            problem: problem.to_string(),
        }
    }
}

fn parts(parameter: &Parameter) -> [(&'static str, &[f32]); 3] {
    [
        ("values", &parameter.values),
        ("mean", &parameter.mean),
        ("square", &parameter.square),
    ]
}

/// All that is learned, by name.
fn named<'s>(
    prefix: &str,
    states: &'s mut [State],
) -> impl Iterator<Item = (String, &'s mut Parameter)> {
    states
        .iter_mut()
        .enumerate()
        .flat_map(move |(site, state)| {
            let parameters = state.parts().0.into_iter();
            parameters.map(move |(name, it)| (format!("{prefix}.{site}.{name}"), it))
        })
}

/// The signs that oscillation is told by.
fn moves(states: &mut [State]) -> impl Iterator<Item = (String, &mut Vec<i8>)> {
    let states = states.iter_mut().enumerate();
    states.filter_map(|(site, state)| Some((format!("{site}.moved"), state.parts().1?)))
}

fn bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}
