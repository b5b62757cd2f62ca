//! What arrives at a site, as matrices of tokens.

use std::ops::Deref;
use std::sync::Arc;

use rayon::prelude::*;
use tract_onnx::prelude::Tensor;
use vitq_passes::structure::{Site, SiteKind};

use super::CalibrateError;
use crate::walk::{Walk, WalkError, World, floats, gather};

/// Rows of an operand, shared with the walk where they lie there as they are.
pub struct Rows {
    operand: Arc<Tensor>,
    /// Patches cut out of it.
    cut: Option<Vec<f32>>,
}

impl Rows {
    /// Shape of the operand that they are rows of.
    pub fn shape(&self) -> &[usize] {
        self.operand.shape()
    }
}

impl Deref for Rows {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        // Checked to be f32 when it was made.
        let whole = || floats(&self.operand).unwrap_or_default();
        self.cut.as_deref().unwrap_or_else(whole)
    }
}

/// The operand of lane `lane` as `[rows, columns]`: tokens of a Linear, patches of a patch embedding.
pub fn rows(
    walk: &Walk<'_>,
    site: &Site,
    columns: usize,
    lane: usize,
    world: World,
) -> Result<Rows, CalibrateError> {
    let operand = tensor(walk, site, lane, 0, world)?;
    let values = values(site, &operand)?;
    let wrong = || wrong_shape(site, operand.shape(), columns);
    if site.kind != SiteKind::PatchEmbed && operand.shape().last() != Some(&columns) {
        return Err(wrong());
    }
    let mut cut = None;
    if let Some(patch) = site.parameters.as_ref().and_then(|p| p.patch) {
        let &[n, c, h, w] = operand.shape() else {
            return Err(wrong());
        };
        if c * patch[0] * patch[1] != columns {
            return Err(wrong());
        }
        cut = Some(unfold(values, [n, c, h, w], patch));
    }
    Ok(Rows { operand, cut })
}

/// Those of [`rows`] that `pick` names of so many, one after the other. Nothing else is read of values that wait in files.
pub fn picked(
    walk: &Walk<'_>,
    site: &Site,
    columns: usize,
    lane: usize,
    world: World,
    pick: impl FnOnce(usize) -> Vec<usize>,
) -> Result<Vec<f32>, CalibrateError> {
    if site.kind == SiteKind::PatchEmbed {
        let rows = rows(walk, site, columns, lane, world)?;
        return Ok(gather(&rows, columns, &pick(rows.len() / columns.max(1))));
    }
    let held = walk
        .operand(lane, 0, world)
        .ok_or_else(|| missing(site, 0))?;
    if held.shape().last() != Some(&columns) {
        return Err(wrong_shape(site, held.shape(), columns));
    }
    let rows = held.rows(columns, pick)?;
    Ok(rows.ok_or_else(|| WalkError::NotFloat(site.name.clone()))?)
}

fn wrong_shape(site: &Site, shape: &[usize], columns: usize) -> CalibrateError {
    CalibrateError::Shape {
        site: site.name.clone(),
        shape: shape.to_vec(),
        columns,
    }
}

fn missing(site: &Site, i: usize) -> WalkError {
    WalkError::Site {
        site: site.name.clone(),
        message: format!("operand {i} has no value"),
    }
}

/// The operand's tensor.
pub fn tensor(
    walk: &Walk<'_>,
    site: &Site,
    lane: usize,
    i: usize,
    world: World,
) -> Result<Arc<Tensor>, CalibrateError> {
    let held = walk.operand(lane, i, world);
    Ok(held.ok_or_else(|| missing(site, i))?.get()?)
}

/// Its elements.
pub fn values<'t>(site: &Site, tensor: &'t Tensor) -> Result<&'t [f32], CalibrateError> {
    Ok(floats(tensor).map_err(|_| WalkError::NotFloat(site.name.clone()))?)
}

/// Non-overlapping patches: `[n, c, h, w]` → `[n·(h/ph)·(w/pw), c·ph·pw]`.
fn unfold(values: &[f32], [n, c, h, w]: [usize; 4], [ph, pw]: [usize; 2]) -> Vec<f32> {
    let mut out = Vec::with_capacity(values.len());
    for image in 0..n {
        for (y, x) in (0..h / ph).flat_map(|y| (0..w / pw).map(move |x| (y, x))) {
            for (channel, line) in
                (0..c).flat_map(|channel| (0..ph).map(move |line| (channel, line)))
            {
                let start = ((image * c + channel) * h + y * ph + line) * w + x * pw;
                out.extend_from_slice(&values[start..start + pw]);
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
    let each = count.div_ceil(walk.len()).max(1);
    let parts: Vec<Vec<f32>> = (0..walk.len())
        .into_par_iter()
        .map(|lane| {
            // Another phase in each lane, so that all token positions are seen.
            let phase = lane * 7919;
            picked(walk, site, columns, lane, world, |total| {
                let each = each.min(total);
                (0..each)
                    .map(|i| (i * total / each + phase) % total)
                    .collect()
            })
        })
        .collect::<Result<_, CalibrateError>>()?;
    Ok(parts.concat())
}
