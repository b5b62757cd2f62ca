//! What arrives at a site, as matrices of tokens.

use std::borrow::Cow;

use rayon::prelude::*;
use tract_onnx::prelude::Tensor;
use vitq_passes::structure::{Site, SiteKind};

use super::CalibrateError;
use crate::walk::{Walk, World, floats};

/// Operand `i` of lane `lane` as `[rows, columns]`: tokens of a Linear, patches of a patch embedding.
pub fn rows<'w>(
    walk: &'w Walk<'_>,
    site: &Site,
    columns: usize,
    lane: usize,
    world: World,
) -> Result<Cow<'w, [f32]>, CalibrateError> {
    let tensor = tensor(walk, site, lane, 0, world)?;
    let values = values(site, tensor)?;
    if site.kind != SiteKind::PatchEmbed {
        return Ok(Cow::Borrowed(values));
    }
    Ok(Cow::Owned(unfold(values, tensor.shape(), columns)))
}

/// The operand's tensor.
pub fn tensor<'w>(
    walk: &'w Walk<'_>,
    site: &Site,
    lane: usize,
    i: usize,
    world: World,
) -> Result<&'w Tensor, CalibrateError> {
    walk.program()
        .operand(&walk.lanes[lane], walk.step(), i, world)
        .map(|t| t.as_ref())
        .ok_or_else(|| CalibrateError::NotFinite { site: site.name.clone() })
}

/// Its elements.
pub fn values<'t>(site: &Site, tensor: &'t Tensor) -> Result<&'t [f32], CalibrateError> {
    Ok(floats(tensor).map_err(|_| crate::walk::WalkError::NotFloat(site.name.clone()))?)
}

/// Non-overlapping square patches: `[n, c, h, w]` → `[n·(h/p)·(w/p), c·p·p]`.
fn unfold(values: &[f32], shape: &[usize], columns: usize) -> Vec<f32> {
    let [n, c, h, w] = *shape else { return values.to_vec() };
    let p = ((columns / c.max(1)) as f64).sqrt().round() as usize;
    let mut out = Vec::with_capacity(values.len());
    for image in 0..n {
        for (y, x) in (0..h / p).flat_map(|y| (0..w / p).map(move |x| (y, x))) {
            for (channel, line) in (0..c).flat_map(|channel| (0..p).map(move |line| (channel, line))) {
                let start = ((image * c + channel) * h + y * p + line) * w + x * p;
                out.extend_from_slice(&values[start..start + p]);
            }
        }
    }
    out
}

/// Evenly spaced rows of the operand over all lanes, at most `count`, `[rows, columns]`: a fixed choice, so the same rows
/// in both worlds and whatever the number of threads.
pub fn sample(
    walk: &Walk<'_>,
    site: &Site,
    columns: usize,
    count: usize,
    world: World,
) -> Result<Vec<f32>, CalibrateError> {
    let each = count.div_ceil(walk.lanes.len()).max(1);
    let parts: Vec<Vec<f32>> = (0..walk.lanes.len())
        .into_par_iter()
        .map(|lane| {
            let rows = rows(walk, site, columns, lane, world)?;
            let total = rows.len() / columns;
            let each = each.min(total);
            // Another phase in each lane, so that all token positions are seen.
            let phase = lane * 7919;
            Ok((0..each)
                .flat_map(|i| {
                    let row = (i * total / each + phase) % total;
                    rows[row * columns..(row + 1) * columns].iter().copied()
                })
                .collect())
        })
        .collect::<Result<_, CalibrateError>>()?;
    Ok(parts.concat())
}
