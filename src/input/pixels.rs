//! Decoded 8-bit images.

use super::geometry::{Size, crop_offset};

/// What the channels of an image, or of a model's image input, mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// One channel: brightness.
    Luma,
    /// Three channels: red, green, blue.
    Rgb,
}

impl Channels {
    /// 1 or 3.
    pub fn count(self) -> usize {
        match self {
            Self::Luma => 1,
            Self::Rgb => 3,
        }
    }
}

/// An image of 8 bits a channel: `data` is `[height, width, channels]`, row-major.
pub(super) struct Pixels {
    pub size: Size,
    pub channels: Channels,
    pub data: Vec<u8>,
}

impl Pixels {
    /// The same image with the channels that the model takes.
    pub fn into_channels(self, channels: Channels) -> Self {
        let data = match (self.channels, channels) {
            (Channels::Luma, Channels::Rgb) => {
                self.data.iter().flat_map(|&grey| [grey; 3]).collect()
            }
            (Channels::Rgb, Channels::Luma) => self
                .data
                .as_chunks()
                .0
                .iter()
                .map(|&rgb| luma(rgb))
                .collect(),
            _ => self.data,
        };
        Self {
            channels,
            data,
            ..self
        }
    }

    /// The centre of the image, padded with black where the image is smaller (torchvision `center_crop`).
    pub fn centre_crop(self, crop: Size) -> Self {
        if self.size == crop {
            return self;
        }
        let channels = self.channels.count();
        let (top, left) = (
            crop_offset(self.size.height, crop.height),
            crop_offset(self.size.width, crop.width),
        );
        let columns = overlap(left, self.size.width, crop.width);
        let mut data = vec![0; crop.pixels() as usize * channels];
        for y in overlap(top, self.size.height, crop.height) {
            let from = (((y as i64 + top) * i64::from(self.size.width))
                + columns.start as i64
                + left) as usize
                * channels;
            let to = (y * crop.width as usize + columns.start) * channels;
            let len = columns.len() * channels;
            data[to..to + len].copy_from_slice(&self.data[from..from + len]);
        }
        Self {
            size: crop,
            data,
            ..self
        }
    }
}

/// The positions on a cropped side that show a pixel of the image.
fn overlap(offset: i64, length: u32, crop: u32) -> std::ops::Range<usize> {
    let start = (-offset).max(0);
    let end = (i64::from(length) - offset).min(i64::from(crop));
    start as usize..end as usize
}

/// ITU-R 601 luma in Pillow's fixed point (`L24` in its `Convert.c`).
fn luma([red, green, blue]: [u8; 3]) -> u8 {
    ((u32::from(red) * 19595 + u32::from(green) * 38470 + u32::from(blue) * 7471 + 0x8000) >> 16)
        as u8
}
