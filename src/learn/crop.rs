//! Random crops of a sample: a part of the image drawn to its full size, mirrored or not.
//!
//! A share of the area and a ratio of the sides as in Inception's training (Szegedy et al. 2015, §6), bilinear. Inputs are
//! normalised already, which a crop commutes with. A crop is never smaller than its result, so nothing is left out by sampling.

use candle_core::{Result, Tensor};

use super::draw::Random;
use super::kernels::read;

/// Least share of the area.
const AREA: f32 = 0.3;
/// Most that the sides' ratio changes.
const RATIO: f32 = 4.0 / 3.0;

/// A crop of `image [n, c, h, w]`.
///
/// # Errors
/// It is no image on the CPU.
pub fn crop(image: &Tensor, random: &mut Random) -> Result<Tensor> {
    let (n, c, height, width) = image.dims4()?;
    let area = AREA + (1.0 - AREA) * random.unit();
    let ratio = RATIO.powf(2.0 * random.unit() - 1.0).sqrt();
    let share = [
        (area.sqrt() * ratio).min(1.0),
        (area.sqrt() / ratio).min(1.0),
    ];
    let start = share.map(|s| (1.0 - s) * random.unit());
    let mirrored = random.unit() < 0.5;
    let rows = places(height, start[0], share[0], false);
    let columns = places(width, start[1], share[1], mirrored);
    let values = read(image, |pixels| {
        let mut values = Vec::with_capacity(pixels.len());
        for plane in pixels.chunks_exact(height * width) {
            for &(top, below) in &rows {
                let row = |y: usize| &plane[y * width..][..width];
                let (upper, lower) = (row(top), row((top + 1).min(height - 1)));
                values.extend(columns.iter().map(|&(left, right)| {
                    let next = (left + 1).min(width - 1);
                    let across = |row: &[f32]| row[left] + (row[next] - row[left]) * right;
                    let (a, b) = (across(upper), across(lower));
                    a + (b - a) * below
                }));
            }
        }
        values
    })?;
    Tensor::from_vec(values, (n, c, height, width), image.device())
}

/// For each of `size` places the pixel before it and how far it lies behind that, in pixels.
fn places(size: usize, start: f32, share: f32, mirrored: bool) -> Vec<(usize, f32)> {
    let last = size.saturating_sub(1);
    let place = |i: usize| {
        let i = if mirrored { last - i } else { i };
        let at = ((i as f32 + 0.5) * share + start * size as f32 - 0.5).clamp(0.0, last as f32);
        (at as usize, at.fract())
    };
    (0..size).map(place).collect()
}
