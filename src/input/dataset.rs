//! Samples by number, whatever they are stored as.

use std::path::{Path, PathBuf};

use super::array::Array;
use super::error::{InputError, listed};
use super::folder::{self, ImageFile, Labels};
use super::model_input::{ElementType, ModelInput};
use super::pixels::Channels;
use super::preprocess::{Preprocess, Preset};
use super::stored::{self, StoredArrays};

/// What the samples are read for.
#[derive(Clone, Debug)]
pub struct InputSpec<'a> {
    /// Every graph input of the model.
    pub inputs: Vec<ModelInput>,
    /// How images become inputs. Arrays are preprocessed already, and it is not applied to them.
    pub preprocess: Option<Preprocess>,
    /// The class list of a labelled tree: line i (from 0) is the folder name of the model's output i.
    pub classes: Option<&'a Path>,
}

/// What a model is run on once.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Where it comes from, for messages: `cat/001.png`'s full path, or `inputs.npy[3]`.
    pub name: String,
    /// A value for each of the model's inputs, by name; the batch axis is there and 1.
    pub tensors: Vec<(String, Array)>,
    /// The index of the right output of the model, where it is known.
    pub label: Option<usize>,
}

/// Images or arrays, read one at a time so that memory doesn't grow with their number.
pub struct Dataset {
    path: PathBuf,
    source: Source,
    labels: Labels,
    len: usize,
}

enum Source {
    Images {
        files: Vec<ImageFile>,
        input: ModelInput,
        channels: Channels,
        preprocess: Preprocess,
    },
    Arrays(StoredArrays),
}

impl Dataset {
    /// Opens a folder of images, a tree of labelled folders, or a `.npy`, `.npz` or `.safetensors` file.
    ///
    /// Images come in the order of their paths. An array's first axis counts its samples.
    ///
    /// # Errors
    /// The path is missing, empty or of no known kind, or what it holds cannot be fed to these inputs.
    pub fn open(path: &Path, spec: &InputSpec<'_>) -> Result<Self, InputError> {
        let kind = path
            .metadata()
            .map_err(|source| InputError::io(path, source))?;
        if kind.is_dir() {
            Self::open_images(path, spec)
        } else {
            Self::open_arrays(path, spec)
        }
    }

    fn open_images(path: &Path, spec: &InputSpec<'_>) -> Result<Self, InputError> {
        let (files, labels) = folder::list(path, spec.classes)?;
        let (input, channels) = image_input(path, &spec.inputs)?;
        let preprocess = spec
            .preprocess
            .clone()
            .ok_or_else(|| InputError::NoPreprocess {
                path: path.into(),
                input: input.name.clone(),
                presets: listed(&Preset::ALL),
            })?;
        preprocess.validate()?;
        if let Some(size) = preprocess.output_size() {
            check_size(
                path,
                input,
                &[channels.count(), size.height as usize, size.width as usize],
            )?;
        }
        let len = files.len();
        let source = Source::Images {
            files,
            input: input.clone(),
            channels,
            preprocess,
        };
        Ok(Self {
            path: path.into(),
            source,
            labels,
            len,
        })
    }

    fn open_arrays(path: &Path, spec: &InputSpec<'_>) -> Result<Self, InputError> {
        if let Some(classes) = spec.classes {
            let reason =
                "a class list labels folders of images, and the samples are arrays; leave it out";
            return Err(InputError::Labels {
                path: classes.into(),
                reason: reason.into(),
            });
        }
        let arrays = stored::open(path, &spec.inputs)?;
        Ok(Self {
            path: path.into(),
            len: arrays.len(),
            source: Source::Arrays(arrays),
            labels: Labels::None,
        })
    }

    /// How many samples there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none: only after [`Dataset::first`] with 0, as an empty source doesn't open.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first `n` samples, or all where there are fewer.
    pub fn first(mut self, n: usize) -> Self {
        self.len = self.len.min(n);
        self
    }

    /// Where the labels come from.
    pub fn labels(&self) -> &Labels {
        &self.labels
    }

    /// What is read and how, in one line for a report.
    pub fn describe(&self) -> String {
        let path = self.path.display();
        match &self.source {
            Source::Images { preprocess, .. } => format!(
                "{} images of {path}, {}; {preprocess}",
                self.len, self.labels
            ),
            Source::Arrays(_) => format!(
                "{} samples of {path}, no labels; taken as preprocessed already",
                self.len
            ),
        }
    }

    /// Reads sample `index`, from 0.
    ///
    /// # Errors
    /// The image doesn't decode or has another size than the model takes, or the array holds a value that the input's
    /// type cannot hold.
    pub fn get(&self, index: usize) -> Result<Sample, InputError> {
        if index >= self.len {
            return Err(InputError::Index {
                path: self.path.clone(),
                index,
                len: self.len,
            });
        }
        match &self.source {
            Source::Arrays(arrays) => Ok(Sample {
                name: format!("{}[{index}]", self.path.display()),
                tensors: arrays.sample(index)?,
                label: None,
            }),
            Source::Images {
                files,
                input,
                channels,
                preprocess,
            } => {
                let file = &files[index];
                let array = preprocess.load(&file.path, *channels)?;
                check_size(&file.path, input, &array.dims()[1..])?;
                Ok(Sample {
                    name: file.path.display().to_string(),
                    tensors: vec![(input.name.clone(), array)],
                    label: file.label,
                })
            }
        }
    }
}

/// The one input that images can be fed to: `[batch, 1 or 3, height, width]` of `f32`.
fn image_input<'a>(
    path: &Path,
    inputs: &'a [ModelInput],
) -> Result<(&'a ModelInput, Channels), InputError> {
    let refuse = |reason: String| InputError::NotForImages {
        path: path.into(),
        reason,
    };
    let [input] = inputs else {
        let names: Vec<_> = inputs.iter().map(|input| &input.name).collect();
        return Err(refuse(format!(
            "it has {} inputs ({})",
            inputs.len(),
            listed(&names)
        )));
    };
    if input.element != ElementType::F32 {
        return Err(refuse(format!(
            "input `{}` takes {}, not f32",
            input.name, input.element
        )));
    }
    match input.dims.as_slice() {
        [_, Some(3) | None, _, _] => Ok((input, Channels::Rgb)),
        [_, Some(1), _, _] => Ok((input, Channels::Luma)),
        _ => Err(refuse(format!(
            "input `{}` has shape {}, not [batch, 3 or 1 channels, height, width]",
            input.name,
            input.shape()
        ))),
    }
}

/// `given`: channels, height, width.
fn check_size(path: &Path, input: &ModelInput, given: &[usize]) -> Result<(), InputError> {
    if input.takes(given) {
        return Ok(());
    }
    Err(InputError::ImageSize {
        path: path.into(),
        input: input.name.clone(),
        given: format!("{given:?}"),
        wanted: input.shape(),
    })
}
