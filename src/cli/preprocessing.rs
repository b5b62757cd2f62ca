//! How images become inputs.

use vitq::Contract;
use vitq::input::{Interpolation, Preset};

/// The preprocessing that the model was trained with: a wrong one spoils calibration and the float model's own accuracy.
#[derive(clap::Args)]
#[group(skip)]
#[command(next_help_heading = "Preprocessing of images (arrays are taken as they are)")]
pub struct Args {
    /// imagenet (mean/std of ImageNet, crop 0.875), inception (mean = std = 0.5, crop 0.9; timm's augreg ViTs), clip, cifar10
    #[arg(long, value_name = "NAME", default_value = "imagenet")]
    preprocess: Preset,
    /// Short side after the resize, in pixels [default: the preset's share of the input size]
    #[arg(long, value_name = "N")]
    resize: Option<u32>,
    /// Side of the centre crop, in pixels [default: the input size]
    #[arg(long, value_name = "N")]
    pub crop: Option<u32>,
    /// bicubic, bilinear, nearest or lanczos, with antialias as Pillow does it [default: bicubic]
    #[arg(long, value_name = "NAME")]
    interpolation: Option<Interpolation>,
    /// Subtracted from red, green and blue in 0..1, as in 0.485,0.456,0.406
    #[arg(long, value_name = "R,G,B", value_parser = triple, allow_hyphen_values = true)]
    mean: Option<[f32; 3]>,
    /// What the differences are divided by
    #[arg(long, value_name = "R,G,B", value_parser = triple)]
    std: Option<[f32; 3]>,
}

impl Args {
    /// The contract that they state.
    pub fn contract(&self) -> Contract {
        Contract {
            preset: Some(self.preprocess),
            resize: self.resize,
            crop: self.crop,
            interpolation: self.interpolation,
            mean: self.mean,
            std: self.std,
        }
    }
}

fn triple(text: &str) -> Result<[f32; 3], String> {
    let numbers = text
        .split(',')
        .map(|part| part.trim().parse())
        .collect::<Result<Vec<f32>, _>>();
    let wrong = || format!("`{text}` is not three numbers with commas between, as in 0.5,0.5,0.5");
    numbers
        .ok()
        .and_then(|numbers| numbers.try_into().ok())
        .ok_or_else(wrong)
}
