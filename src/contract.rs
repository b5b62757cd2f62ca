//! How images become inputs, said before the model's input size is known.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::input::{
    Dataset, InputSpec, Interpolation, ModelInput, Preprocess, Preset, Resize, Size,
};
use crate::model::FloatModel;

/// A preset and what overrules it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Contract {
    /// Where the other numbers come from; ImageNet's where none is named.
    pub preset: Option<Preset>,
    /// Short side after the resize, in pixels.
    pub resize: Option<u32>,
    /// Side of the centre crop, in pixels.
    pub crop: Option<u32>,
    /// Filter of the resize.
    pub interpolation: Option<Interpolation>,
    /// Subtracted from red, green and blue in 0..1.
    pub mean: Option<[f32; 3]>,
    /// What the differences are divided by.
    pub std: Option<[f32; 3]>,
}

impl Contract {
    /// The preprocessing for a model with these inputs; `None` where they take no images.
    fn preprocess(&self, model: &Path, inputs: &[ModelInput]) -> Result<Option<Preprocess>, Error> {
        let [input] = inputs else { return Ok(None) };
        let [_, _, height, width] = input.dims[..] else {
            return Ok(None);
        };
        let side = |extent: Option<usize>| extent.and_then(|e| u32::try_from(e).ok()).or(self.crop);
        let (Some(height), Some(width)) = (side(height), side(width)) else {
            return Err(Error::NoImageSize {
                path: model.into(),
                input: input.name.clone(),
            });
        };
        let mut preprocess =
            Preprocess::for_input(self.preset.unwrap_or(Preset::Imagenet), height, width);
        if let Some(side) = self.resize {
            preprocess.resize = Some(Resize::ShortSide(side));
        }
        if let Some(side) = self.crop {
            preprocess.crop = Some(Size::square(side));
        }
        preprocess.interpolation = self.interpolation.unwrap_or(preprocess.interpolation);
        preprocess.mean = self.mean.unwrap_or(preprocess.mean);
        preprocess.std = self.std.unwrap_or(preprocess.std);
        Ok(Some(preprocess))
    }
}

/// Images or arrays on the disk, and how to read them.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// A folder of images, a tree of labelled folders, or a `.npy`, `.npz` or `.safetensors` file.
    pub path: PathBuf,
    /// Line i (from 0) is the folder whose images the model should give output i.
    pub classes: Option<PathBuf>,
    /// How images are prepared.
    pub contract: Contract,
}

impl Source {
    /// Opens it for a model.
    ///
    /// # Errors
    /// The path holds nothing that can be fed to the model.
    pub fn open(&self, model: &FloatModel) -> Result<Dataset, Error> {
        let preprocess = match self.contract.preprocess(&model.path, &model.inputs) {
            // Arrays have their size; only images are brought to one.
            Err(Error::NoImageSize { .. }) if !self.path.is_dir() => None,
            made => made?,
        };
        let inputs = model.inputs.clone();
        Ok(Dataset::open(
            &self.path,
            &InputSpec {
                inputs,
                preprocess,
                classes: self.classes.as_deref(),
            },
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::input::ElementType;

    fn input(dims: [Option<usize>; 4]) -> [ModelInput; 1] {
        [ModelInput {
            name: "x".into(),
            dims: dims.to_vec(),
            element: ElementType::F32,
        }]
    }

    fn preprocess(
        contract: &Contract,
        dims: [Option<usize>; 4],
    ) -> Result<Option<Preprocess>, Error> {
        contract.preprocess(Path::new("vit.onnx"), &input(dims))
    }

    #[test]
    fn what_is_named_overrules_the_preset() {
        let dims = [None, Some(3), Some(224), Some(224)];
        let plain = preprocess(&Contract::default(), dims).unwrap().unwrap();
        assert_eq!(plain, Preprocess::for_input(Preset::Imagenet, 224, 224));
        let contract = Contract {
            preset: Some(Preset::Inception),
            resize: Some(250),
            crop: Some(200),
            interpolation: Some(Interpolation::Bilinear),
            mean: Some([0.1; 3]),
            std: None,
        };
        let other = preprocess(&contract, dims).unwrap().unwrap();
        assert_eq!(
            (other.resize, other.crop),
            (Some(Resize::ShortSide(250)), Some(Size::square(200)))
        );
        assert_eq!(
            (other.interpolation, other.mean, other.std),
            (Interpolation::Bilinear, [0.1; 3], [0.5; 3])
        );
    }

    #[test]
    fn an_open_size_has_to_be_named() {
        let dims = [None, Some(3), None, None];
        assert!(matches!(
            preprocess(&Contract::default(), dims),
            Err(Error::NoImageSize { .. })
        ));
        let contract = Contract {
            crop: Some(96),
            ..Contract::default()
        };
        assert_eq!(
            preprocess(&contract, dims).unwrap(),
            Some(Preprocess::for_input(Preset::Imagenet, 96, 96))
        );
    }

    #[test]
    fn other_inputs_take_no_images() {
        let tokens = ModelInput {
            name: "x".into(),
            dims: vec![None, Some(7)],
            element: ElementType::I64,
        };
        assert_eq!(
            Contract::default()
                .preprocess(Path::new("m.onnx"), &[tokens])
                .unwrap(),
            None
        );
    }
}
