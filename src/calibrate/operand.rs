//! What arrives at a site, as matrices of tokens.

use std::ops::Deref;
use std::sync::Arc;

use rayon::prelude::*;
use tract_onnx::prelude::Tensor;
use vitq_passes::structure::{Site, SiteKind};

use super::CalibrateError;
use crate::walk::{Walk, WalkError, World, floats};

/// Rows of an operand, shared with the walk where they lie there as they are.
pub enum Rows {
    /// The operand itself.
    Shared(Arc<Tensor>),
    /// Patches cut out of it.
    Cut(Vec<f32>),
}

impl Deref for Rows {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match self {
            // Checked to be f32 when it was made.
            Rows::Shared(tensor) => floats(tensor).unwrap_or_default(),
            Rows::Cut(values) => values,
        }
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
    let tensor = tensor(walk, site, lane, 0, world)?;
    let values = values(site, &tensor)?;
    let wrong = || CalibrateError::Shape {
        site: site.name.clone(),
        shape: tensor.shape().to_vec(),
        columns,
    };
    if site.kind != SiteKind::PatchEmbed && tensor.shape().last() != Some(&columns) {
        return Err(wrong());
    }
    if let Some(patch) = site.parameters.as_ref().and_then(|p| p.patch) {
        let &[n, c, h, w] = tensor.shape() else {
            return Err(wrong());
        };
        if c * patch[0] * patch[1] != columns {
            return Err(wrong());
        }
        return Ok(Rows::Cut(unfold(values, [n, c, h, w], patch)));
    }
    Ok(Rows::Shared(tensor))
}

/// The operand's tensor.
pub fn tensor(
    walk: &Walk<'_>,
    site: &Site,
    lane: usize,
    i: usize,
    world: World,
) -> Result<Arc<Tensor>, CalibrateError> {
    let missing = || WalkError::Site {
        site: site.name.clone(),
        message: format!("operand {i} has no value"),
    };
    Ok(walk.operand(lane, i, world)?.ok_or_else(missing)?)
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
            let rows = rows(walk, site, columns, lane, world)?;
            let total = rows.len() / columns.max(1);
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
