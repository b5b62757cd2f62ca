//! Samples grouped into runs of a model.

use std::ops::Range;

use ndarray::{ArcArray, Axis, IxDyn};

use crate::calibrate::Feeds;
use crate::input::{Array, Dataset, InputError};

/// A range of a dataset in runs of a fixed number of samples.
#[derive(Clone)]
pub struct Batches<'a> {
    dataset: &'a Dataset,
    range: Range<usize>,
    size: usize,
}

/// What a model is run on once.
pub struct Batch {
    /// A value for each input; the first axis is the batch.
    pub tensors: Vec<(String, Array)>,
    /// Name and label of each sample. A last batch that is not full repeats its last sample, which is not listed again.
    pub samples: Vec<(String, Option<usize>)>,
}

impl Batch {
    /// Rows of the batch axis, the ones that only fill it up included.
    pub fn size(&self) -> usize {
        self.tensors
            .first()
            .and_then(|(_, array)| array.dims().first().copied())
            .unwrap_or(1)
    }
}

impl<'a> Batches<'a> {
    /// The samples of `range` (cut to the dataset), `size` a run.
    pub fn new(dataset: &'a Dataset, range: Range<usize>, size: usize) -> Self {
        let end = range.end.min(dataset.len());
        Self {
            dataset,
            range: range.start.min(end)..end,
            size: size.max(1),
        }
    }

    /// How many samples there are.
    pub fn samples(&self) -> usize {
        self.range.len()
    }

    /// The dataset behind them.
    pub fn dataset(&self) -> &'a Dataset {
        self.dataset
    }

    /// What is read and how, in one line for a report.
    pub fn describe(&self) -> String {
        let whole = self.dataset.describe();
        match &self.range {
            all if all.len() == self.dataset.len() => whole,
            part => format!("numbers {} to {} of {whole}", part.start + 1, part.end),
        }
    }

    /// Reads run `index`.
    ///
    /// # Errors
    /// A sample doesn't decode, or those of one run differ in size.
    pub fn batch(&self, index: usize) -> Result<Batch, InputError> {
        let start = self.range.start + index * self.size;
        let end = self.range.end.min(start + self.size);
        let read = (start..end.max(start + 1))
            .map(|i| self.dataset.get(i))
            .collect::<Result<Vec<_>, _>>()?;
        let last = read.len() - 1;
        let tensors = read[0]
            .tensors
            .iter()
            .enumerate()
            .map(|(input, (name, _))| {
                let parts: Vec<&Array> = (0..self.size)
                    .map(|i| &read[i.min(last)].tensors[input].1)
                    .collect();
                let stacked = stack(&parts).ok_or_else(|| InputError::ImageSize {
                    path: read[last].name.clone().into(),
                    input: name.clone(),
                    given: format!("{:?}", parts[last].dims()),
                    wanted: format!("{:?} in every sample of a batch", parts[0].dims()),
                })?;
                Ok((name.clone(), stacked))
            });
        let tensors = tensors.collect::<Result<_, InputError>>()?;
        Ok(Batch {
            tensors,
            samples: read.into_iter().map(|it| (it.name, it.label)).collect(),
        })
    }
}

impl Feeds for Batches<'_> {
    fn len(&self) -> usize {
        self.samples().div_ceil(self.size)
    }

    fn feed(&self, index: usize) -> Result<Vec<(String, Array)>, InputError> {
        Ok(self.batch(index)?.tensors)
    }
}

/// Joins arrays along the first axis; `None` where their types or other axes differ.
fn stack(parts: &[&Array]) -> Option<Array> {
    macro_rules! join {
        ($($variant:ident),*) => {
            match parts.first()? {
                single if parts.len() == 1 => Some((*single).clone()),
                $(Array::$variant(_) => {
                    let typed = parts.iter().map(|part| match part {
                        Array::$variant(array) => Some(array),
                        _ => None,
                    });
                    concatenate(&typed.collect::<Option<Vec<_>>>()?).map(Array::$variant)
                })*
            }
        };
    }
    join!(F32, I64, I32, Bool, U8)
}

fn concatenate<T: Clone>(parts: &[&ArcArray<T, IxDyn>]) -> Option<ArcArray<T, IxDyn>> {
    let views: Vec<_> = parts.iter().map(|part| part.view()).collect();
    ndarray::concatenate(Axis(0), &views)
        .ok()
        .map(|joined| joined.into_shared())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::{ElementType, InputSpec, ModelInput};

    /// Five samples of one number each, 0 to 4.
    fn dataset(folder: &tempfile::TempDir) -> Dataset {
        let path = folder.path().join("x.safetensors");
        let bytes: Vec<u8> = (0..5).flat_map(|i| (i as f32).to_le_bytes()).collect();
        let view =
            safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![5, 1], &bytes)
                .unwrap();
        std::fs::write(&path, safetensors::serialize([("x", view)], None).unwrap()).unwrap();
        let inputs = vec![ModelInput {
            name: "x".into(),
            dims: vec![Some(2), Some(1)],
            element: ElementType::F32,
        }];
        Dataset::open(
            &path,
            &InputSpec {
                inputs,
                preprocess: None,
                classes: None,
            },
        )
        .unwrap()
    }

    fn values(batches: &Batches<'_>, index: usize) -> (Vec<f32>, usize) {
        let batch = batches.batch(index).unwrap();
        assert_eq!(batch.size(), 2);
        (
            batch.tensors[0]
                .1
                .as_f32()
                .unwrap()
                .iter()
                .copied()
                .collect(),
            batch.samples.len(),
        )
    }

    #[test]
    fn the_last_batch_is_filled_up() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(&folder);
        let batches = Batches::new(&dataset, 2..9, 2);
        assert_eq!((batches.samples(), batches.len()), (3, 2));
        assert_eq!(values(&batches, 0), (vec![2.0, 3.0], 2));
        assert_eq!(values(&batches, 1), (vec![4.0, 4.0], 1));
        assert!(batches.batch(2).is_err());
        assert!(
            batches
                .describe()
                .starts_with("numbers 3 to 5 of 5 samples"),
            "{}",
            batches.describe()
        );
    }

    #[test]
    fn a_range_behind_the_end_is_empty() {
        let folder = tempfile::tempdir().unwrap();
        let dataset = dataset(&folder);
        let batches = Batches::new(&dataset, 5..10, 2);
        assert_eq!((batches.samples(), batches.len()), (0, 0));
    }
}
