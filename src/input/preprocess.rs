//! The contract between an image file and the numbers that a model was trained on.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use ndarray::Array4;
use serde::{Deserialize, Serialize};

use super::array::Array;
use super::error::InputError;
use super::geometry::{Resize, Size};
use super::image_file::{self, MAX_PIXELS};
use super::pixels::{Channels, Pixels};
use super::resample::{self, Interpolation};

/// The largest side that a resize or a crop may ask for, in pixels.
const MAX_SIDE: u32 = 1 << 13;

/// How an image becomes an input: resize, centre crop, `(x/255 - mean)/std`, axes `[1, channels, height, width]`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preprocess {
    /// The first step; `None` leaves the size as it is.
    pub resize: Option<Resize>,
    /// What is cut from the centre after it, padded with black where the image is smaller; `None` cuts nothing.
    pub crop: Option<Size>,
    /// The filter of the resize.
    pub interpolation: Interpolation,
    /// Subtracted from red, green and blue once they lie in 0..1.
    pub mean: [f32; 3],
    /// What the differences are divided by.
    pub std: [f32; 3],
}

/// Preprocessing that many models share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Preset {
    /// ImageNet mean and std, crop 0.875 (256 → 224), bicubic: DeiT's evaluation and timm's `DEFAULT_CROP_PCT`.
    Imagenet,
    /// Mean and std 0.5, crop 0.9 (248 → 224), bicubic: the `augreg` ViTs as timm configures them.
    Inception,
    /// CLIP mean and std, short side resized to the input itself, bicubic: OpenAI's `clip.load` transform.
    Clip,
    /// CIFAR-10 training-set mean and std, resized exactly to the input, nothing cut off.
    Cifar10,
}

impl Preset {
    /// All of them, in the order in which help texts list them.
    pub const ALL: [Self; 4] = [Self::Imagenet, Self::Inception, Self::Clip, Self::Cifar10];

    fn statistics(self) -> ([f32; 3], [f32; 3]) {
        match self {
            Self::Imagenet => ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
            Self::Inception => ([0.5; 3], [0.5; 3]),
            Self::Clip => (
                [0.48145466, 0.4578275, 0.40821073],
                [0.26862954, 0.2613026, 0.2757771],
            ),
            Self::Cifar10 => ([0.4914, 0.4822, 0.4465], [0.2470, 0.2435, 0.2616]),
        }
    }

    /// The share of the resized side that the crop keeps (timm's `crop_pct`); `None` where nothing is cropped.
    fn crop_fraction(self) -> Option<f64> {
        match self {
            Self::Imagenet => Some(0.875),
            Self::Inception => Some(0.9),
            Self::Clip => Some(1.0),
            Self::Cifar10 => None,
        }
    }
}

impl fmt::Display for Preset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Imagenet => "imagenet",
            Self::Inception => "inception",
            Self::Clip => "clip",
            Self::Cifar10 => "cifar10",
        })
    }
}

impl FromStr for Preset {
    type Err = InputError;

    fn from_str(name: &str) -> Result<Self, InputError> {
        Self::ALL
            .into_iter()
            .find(|it| it.to_string() == name)
            .ok_or_else(|| InputError::unknown_name("preprocessing", name, &Self::ALL))
    }
}

impl Preprocess {
    /// The preset for a model whose input is `height` × `width` pixels; resize and crop scale with it.
    ///
    /// A square input is cut from an image whose short side is `floor(side / crop_pct)`, any other from one that
    /// covers `floor(height / crop_pct)` × `floor(width / crop_pct)`, both as timm's `transforms_imagenet_eval`.
    pub fn for_input(preset: Preset, height: u32, width: u32) -> Self {
        let input = Size { height, width };
        let resize = match preset.crop_fraction() {
            None => Resize::Exact(input),
            Some(fraction) => {
                let scaled = |side: u32| (f64::from(side) / fraction).floor() as u32;
                if height == width {
                    Resize::ShortSide(scaled(height))
                } else {
                    Resize::Cover(Size {
                        height: scaled(height),
                        width: scaled(width),
                    })
                }
            }
        };
        let (mean, std) = preset.statistics();
        Self {
            resize: Some(resize),
            crop: preset.crop_fraction().map(|_| input),
            interpolation: Interpolation::Bicubic,
            mean,
            std,
        }
    }

    /// The size that every image ends with, or `None` where it depends on the image.
    pub fn output_size(&self) -> Option<Size> {
        self.crop.or(match self.resize {
            Some(Resize::Exact(size)) => Some(size),
            _ => None,
        })
    }

    /// Reads an image and prepares it: `f32` of `[1, channels, height, width]`.
    ///
    /// # Errors
    /// The file is missing, no image, broken or too large, or [`Preprocess::validate`] fails.
    pub fn load(&self, path: &Path, channels: Channels) -> Result<Array, InputError> {
        self.validate()?;
        let pixels = image_file::read(path)?.into_channels(channels);
        let pixels = self.fit(pixels).map_err(|reason| InputError::Image {
            path: path.into(),
            reason,
        })?;
        Ok(self.normalise(&pixels))
    }

    /// Checks what a user can get wrong: sides from 1 to 8192 pixels, finite means, positive standard deviations.
    ///
    /// # Errors
    /// [`InputError::Preprocess`] names the number.
    pub fn validate(&self) -> Result<(), InputError> {
        for (name, size) in [
            ("resize", self.resize.map(Resize::size)),
            ("crop", self.crop),
        ] {
            let sides = size.map_or([1, 1], |size| [size.height, size.width]);
            if let Some(side) = sides
                .into_iter()
                .find(|side| !(1..=MAX_SIDE).contains(side))
            {
                return Err(InputError::Preprocess(format!(
                    "{name} is {side} pixels; give 1 to {MAX_SIDE}"
                )));
            }
        }
        if let Some(mean) = self.mean.into_iter().find(|mean| !mean.is_finite()) {
            return Err(InputError::Preprocess(format!(
                "mean is {mean}; give three finite numbers (in units of x/255)"
            )));
        }
        if let Some(std) = self
            .std
            .into_iter()
            .find(|std| !(std.is_finite() && *std > 0.0))
        {
            return Err(InputError::Preprocess(format!(
                "std is {std}; give three positive numbers (in units of x/255)"
            )));
        }
        Ok(())
    }

    fn fit(&self, mut pixels: Pixels) -> Result<Pixels, String> {
        if let Some(resize) = self.resize {
            let target = resize.target(pixels.size);
            // A strip of 1 × 60000 pixels has few pixels itself and millions once its short side is scaled up.
            if target.pixels() == 0 || target.pixels() > MAX_PIXELS {
                return Err(format!(
                    "resized {resize} its {} pixels would become {target}",
                    pixels.size
                ));
            }
            pixels = resample::resize(pixels, target, self.interpolation)
                .map_err(|error| error.to_string())?;
        }
        Ok(match self.crop {
            Some(crop) => pixels.centre_crop(crop),
            None => pixels,
        })
    }

    /// `(x/255 - mean)/std` in `f32`, operation by operation as torchvision does it, so that the bits agree.
    fn normalise(&self, pixels: &Pixels) -> Array {
        let count = pixels.channels.count();
        let tables: Vec<[f32; 256]> = self
            .statistics(pixels.channels)
            .into_iter()
            .map(|(mean, std)| std::array::from_fn(|level| (level as f32 / 255.0 - mean) / std))
            .collect();
        let (height, width) = (pixels.size.height as usize, pixels.size.width as usize);
        let values = Array4::from_shape_fn((1, count, height, width), |(_, c, y, x)| {
            tables[c][usize::from(pixels.data[(y * width + x) * count + c])]
        });
        Array::F32(values.into_dyn().into_shared())
    }

    /// Mean and std of each channel; one channel takes the average of three, as timm's `adapt_to_chs`.
    fn statistics(&self, channels: Channels) -> Vec<(f32, f32)> {
        let average =
            |values: [f32; 3]| (values.into_iter().map(f64::from).sum::<f64>() / 3.0) as f32;
        match channels {
            Channels::Luma => vec![(average(self.mean), average(self.std))],
            Channels::Rgb => self.mean.into_iter().zip(self.std).collect(),
        }
    }
}

impl fmt::Display for Preprocess {
    /// The contract in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.resize {
            Some(resize) => write!(f, "resize {resize} ({}), ", self.interpolation)?,
            None => write!(f, "no resize, ")?,
        }
        match self.crop {
            Some(crop) => write!(f, "centre crop {crop}, ")?,
            None => write!(f, "no crop, ")?,
        }
        write!(f, "(x/255 - {:?}) / {:?}, RGB, NCHW", self.mean, self.std)
    }
}
