//! Resizing as Pillow does it.

use std::fmt;
use std::str::FromStr;

use fast_image_resize::images::{TypedImage, TypedImageRef};
use fast_image_resize::pixels::{F32, F32x3};
use fast_image_resize::{FilterType, PixelTrait, ResizeAlg, ResizeError, ResizeOptions, Resizer};
use serde::{Deserialize, Serialize};

use super::error::InputError;
use super::geometry::Size;
use super::pixels::{Channels, Pixels};

/// Rows that the horizontal pass takes at a time.
const STRIP: usize = 64;

/// The filter that resizes an image; all but `Nearest` widen with the scale when they shrink one (antialias).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interpolation {
    /// Cubic convolution with a = -0.5, as Pillow's `BICUBIC`.
    Bicubic,
    /// Triangle filter, as Pillow's `BILINEAR`.
    Bilinear,
    /// The nearest pixel, as Pillow's `NEAREST`.
    Nearest,
    /// Windowed sinc of three lobes, as Pillow's `LANCZOS`.
    Lanczos,
}

impl Interpolation {
    /// All of them, in the order in which help texts list them.
    pub const ALL: [Self; 4] = [Self::Bicubic, Self::Bilinear, Self::Nearest, Self::Lanczos];

    /// The convolution's filter; `None` where nothing is convolved.
    fn filter(self) -> Option<FilterType> {
        match self {
            Self::Bicubic => Some(FilterType::CatmullRom),
            Self::Bilinear => Some(FilterType::Bilinear),
            Self::Lanczos => Some(FilterType::Lanczos3),
            Self::Nearest => None,
        }
    }
}

impl fmt::Display for Interpolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Bicubic => "bicubic",
            Self::Bilinear => "bilinear",
            Self::Nearest => "nearest",
            Self::Lanczos => "lanczos",
        })
    }
}

impl FromStr for Interpolation {
    type Err = InputError;

    fn from_str(name: &str) -> Result<Self, InputError> {
        Self::ALL
            .into_iter()
            .find(|it| it.to_string() == name)
            .ok_or_else(|| InputError::unknown_name("interpolation", name, &Self::ALL))
    }
}

/// Resizes to `size`: horizontally, then vertically, with 8 bits between and after, as Pillow does.
///
/// The resizer's own path for 8-bit images takes the passes in the other order and with coarser coefficients, which
/// moves some values by two levels; so each pass is asked for in `f32` and rounded here.
pub(super) fn resize(
    pixels: Pixels,
    size: Size,
    interpolation: Interpolation,
) -> Result<Pixels, ResizeError> {
    let Some(filter) = interpolation.filter() else {
        return Ok(nearest(&pixels, size));
    };
    let widened = Size {
        width: size.width,
        ..pixels.size
    };
    let pixels = horizontal(pixels, widened, filter)?;
    pass(&pixels.data, pixels.size, size, pixels.channels, filter).map(|data| Pixels {
        size,
        data,
        ..pixels
    })
}

/// The horizontal pass, strip by strip, as a photograph in `f32` takes four times its memory.
fn horizontal(pixels: Pixels, size: Size, filter: FilterType) -> Result<Pixels, ResizeError> {
    let row = pixels.size.width as usize * pixels.channels.count();
    let mut data = Vec::with_capacity(size.pixels() as usize * pixels.channels.count());
    for strip in pixels.data.chunks(row * STRIP) {
        let height = (strip.len() / row) as u32;
        let (from, to) = (
            Size {
                height,
                ..pixels.size
            },
            Size { height, ..size },
        );
        data.extend(pass(strip, from, to, pixels.channels, filter)?);
    }
    Ok(Pixels {
        size,
        data,
        ..pixels
    })
}

fn pass(
    data: &[u8],
    from: Size,
    to: Size,
    channels: Channels,
    filter: FilterType,
) -> Result<Vec<u8>, ResizeError> {
    if from == to {
        return Ok(data.to_vec());
    }
    match channels {
        Channels::Luma => {
            let source: Vec<F32> = data.iter().map(|&level| F32::new(level.into())).collect();
            let target = convolve(&source, from, to, filter)?;
            Ok(target
                .pixels()
                .iter()
                .map(|pixel| rounded(pixel.0))
                .collect())
        }
        Channels::Rgb => {
            let source: Vec<F32x3> = data
                .as_chunks()
                .0
                .iter()
                .map(|rgb: &[u8; 3]| F32x3::new(rgb.map(f32::from)))
                .collect();
            let target = convolve(&source, from, to, filter)?;
            Ok(target
                .pixels()
                .iter()
                .flat_map(|pixel| pixel.0.map(rounded))
                .collect())
        }
    }
}

fn convolve<P: PixelTrait>(
    source: &[P],
    from: Size,
    to: Size,
    filter: FilterType,
) -> Result<TypedImage<'static, P>, ResizeError> {
    let source = TypedImageRef::new(from.width, from.height, source)
        .map_err(|_| ResizeError::PixelTypesAreDifferent)?;
    let mut target = TypedImage::new(to.width, to.height);
    let options = ResizeOptions::new()
        .resize_alg(ResizeAlg::Convolution(filter))
        .use_alpha(false);
    Resizer::new().resize_typed(&source, &mut target, &options)?;
    Ok(target)
}

/// To the nearest level, halves up; the cast saturates.
fn rounded(value: f32) -> u8 {
    (value + 0.5).floor() as u8
}

fn nearest(pixels: &Pixels, size: Size) -> Pixels {
    let channels = pixels.channels.count();
    let columns = positions(pixels.size.width, size.width);
    let mut data = Vec::with_capacity(size.pixels() as usize * channels);
    for y in positions(pixels.size.height, size.height) {
        let row = &pixels.data[y * pixels.size.width as usize * channels..];
        for x in &columns {
            data.extend_from_slice(&row[x * channels..(x + 1) * channels]);
        }
    }
    Pixels {
        size,
        data,
        ..*pixels
    }
}

/// Where each of `to` pixels is taken from on a side of `from` pixels. The steps are summed up instead of multiplied,
/// as `ImagingScaleAffine` of Pillow does: on ties the two disagree by a pixel.
fn positions(from: u32, to: u32) -> Vec<usize> {
    let step = f64::from(from) / f64::from(to);
    let centres = std::iter::successors(Some(step * 0.5), |centre| Some(centre + step));
    centres
        .take(to as usize)
        .map(|centre| (centre as usize).min(from as usize - 1))
        .collect()
}
