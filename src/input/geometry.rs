//! Sizes before and after resizing and cropping, in Python's own arithmetic.
//!
//! One pixel of difference shifts the whole image, so the roundings are those of torchvision and timm:
//! `int()` truncates and `round()` takes halves to the even neighbour.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Height and width in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// Rows.
    pub height: u32,
    /// Columns.
    pub width: u32,
}

impl Size {
    /// `side` × `side` pixels.
    pub fn square(side: u32) -> Self {
        Self {
            height: side,
            width: side,
        }
    }

    /// How many pixels an image of this size has.
    pub(super) fn pixels(self) -> u64 {
        u64::from(self.height) * u64::from(self.width)
    }
}

impl fmt::Display for Size {
    /// `HEIGHTxWIDTH`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}", self.height, self.width)
    }
}

/// How an image is resized before it is cropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Resize {
    /// The short side becomes this many pixels and the aspect ratio is kept (torchvision `Resize(int)`).
    ShortSide(u32),
    /// The smallest size of the same aspect ratio that covers this one (timm `ResizeKeepRatio`).
    Cover(Size),
    /// Exactly this size; the aspect ratio may change (torchvision `Resize((h, w))`).
    Exact(Size),
}

impl Resize {
    /// The size that an image of size `from` gets.
    pub fn target(self, from: Size) -> Size {
        let (height, width) = (f64::from(from.height), f64::from(from.width));
        match self {
            Self::Exact(size) => size,
            // torchvision: int(size * long / short)
            Self::ShortSide(side) if from.width <= from.height => Size {
                height: (f64::from(side) * height / width) as u32,
                width: side,
            },
            Self::ShortSide(side) => Size {
                height: side,
                width: (f64::from(side) * width / height) as u32,
            },
            // timm: round(x / min(h / target_h, w / target_w))
            Self::Cover(size) => {
                let ratio = (height / f64::from(size.height)).min(width / f64::from(size.width));
                Size {
                    height: (height / ratio).round_ties_even() as u32,
                    width: (width / ratio).round_ties_even() as u32,
                }
            }
        }
    }

    pub(super) fn size(self) -> Size {
        match self {
            Self::ShortSide(side) => Size::square(side),
            Self::Cover(size) | Self::Exact(size) => size,
        }
    }
}

impl fmt::Display for Resize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ShortSide(side) => write!(f, "short side to {side}"),
            Self::Cover(size) => write!(f, "to cover {size}"),
            Self::Exact(size) => write!(f, "to {size}"),
        }
    }
}

/// Where a centre crop of `crop` pixels starts on a side of `length` pixels; negative where the image has to be padded.
///
/// torchvision's `center_crop` pads with `(crop - length) // 2` before and crops at `round((length - crop) / 2)`.
pub(super) fn crop_offset(length: u32, crop: u32) -> i64 {
    let (length, crop) = (i64::from(length), i64::from(crop));
    if crop > length {
        -((crop - length) / 2)
    } else {
        ((length - crop) as f64 / 2.0).round_ties_even() as i64
    }
}
