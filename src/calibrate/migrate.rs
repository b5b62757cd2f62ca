//! A scale and a shift per channel before a Linear, carried by the Linear that makes the channels: the one of V before the Linear
//! behind an attention (`proj`), the first of an MLP before the second where the function between them is ReLU.
//!
//! ```text
//! V = x·Wvᵀ + bv → attention·V → proj      becomes      (V + shift)/r → attention·V → proj with W·diag(r), b - W·shift
//! h = x·W₁ᵀ + b₁ → Relu → fc2              becomes      h/r → Relu → fc2 with W·diag(r)
//! ```
//! `Wv' = Wv/r`, `bv' = (bv + shift)/r` row by row: the codes of `Wv` stay, only its scales and the bias change, so the
//! rounded network changes as exactly as the float one. Shifts pass because each row of an attention's weights sums to one;
//! ReLU lets positive scales through, no shift. No other activation function lets anything through.
//! (SmoothQuant's migration and RepQ-ViT's fold, arXiv 2211.10438 and 2212.08254, taken one operator further.)
//!
//! Which row of which Linear makes channel `j` is not read off the graph but asked of it: rows are numbered, and the numbers
//! that arrive before the reader are its channels' rows. Declined where they do not arrive as they are (talking heads, a
//! convolution, GELU), where the values have another reader, and where attention·V is quantised itself.

use tract_onnx::prelude::Tensor;
use vitq_passes::plan::{Decision, LowRank, SitePlan};
use vitq_passes::structure::Role;

use super::fold::Fold;
use super::operand::{rows, tensor};
use super::parameters::Parameters;
use super::{CalibrateError, Calibration, Part, Scope};
use crate::walk::{SiteOutput, Walk, World, floats};

/// Where the channels of a site's input are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Carrier {
    /// The site that makes them.
    pub site: usize,
    /// Its row for each channel.
    pub rows: Vec<usize>,
    /// Whether a shift arrives as well as a scale.
    pub shifts: bool,
}

/// A fold that a site's carrier takes over.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The site whose input is folded.
    pub reader: usize,
    /// Who takes it over.
    pub carrier: Carrier,
    /// The fold.
    pub fold: Fold,
}

impl Migration {
    /// Changes the carrier's plan, or its float parameters where it stays float.
    pub fn apply(&self, carrier: &mut SitePlan, parameters: &Parameters) {
        let channels = self
            .carrier
            .rows
            .iter()
            .zip(&self.fold.r)
            .zip(&self.fold.shift);
        match &mut carrier.decision {
            Decision::Linear(plan) => {
                for ((&row, r), shift) in channels {
                    let scales = plan.weight.scales_of_row(parameters.k);
                    let row_of = row * scales..(row + 1) * scales;
                    plan.weight.scale[row_of].iter_mut().for_each(|s| *s /= r);
                    plan.bias[row] = (plan.bias[row] + shift) / r;
                    if let Some(LowRank { rank, up, .. }) = &mut plan.low_rank {
                        let row_of = row * *rank..(row + 1) * *rank;
                        up[row_of].iter_mut().for_each(|b| *b /= r);
                    }
                }
            }
            Decision::Float { replace, .. } => {
                let (weight, bias) = replace
                    .get_or_insert_with(|| (parameters.weight.clone(), parameters.bias.clone()));
                for ((&row, r), shift) in channels {
                    let row_of = row * parameters.k..(row + 1) * parameters.k;
                    weight[row_of].iter_mut().for_each(|w| *w /= r);
                    bias[row] = (bias[row] + shift) / r;
                }
            }
            Decision::Product { .. } => {}
        }
    }
}

impl Calibration<'_> {
    /// Whose channels the site that `walk` stands at makes: `(reader, carrier)`.
    pub(super) fn carrier(
        &self,
        walk: &Walk<'_>,
        index: usize,
    ) -> Result<Option<(usize, Carrier)>, CalibrateError> {
        let sites = &self.structure.sites;
        let role = match sites[index].role {
            Role::Qkv | Role::Value if self.settings.scope == Scope::Linear => Role::Proj,
            Role::Fc1 => Role::Fc2,
            _ => return Ok(None),
        };
        if !self.settings.has(Part::Migration) {
            return Ok(None);
        }
        let blocks = &self.structure.blocks;
        let block = blocks.iter().find(|b| b.sites.contains(&index));
        let readers: Vec<usize> = block
            .iter()
            .flat_map(|b| &b.sites)
            .copied()
            .filter(|&s| sites[s].role == role)
            .collect();
        let [reader] = readers[..] else {
            return Ok(None);
        };
        let Some(rows) = self.rows_behind(walk, index, reader)? else {
            return Ok(None);
        };
        let carrier = Carrier {
            site: index,
            rows,
            shifts: role == Role::Proj,
        };
        let exact = self.passes_through(walk, &carrier, reader)?;
        Ok(exact.then_some((reader, carrier)))
    }

    /// The rows of site `index` that arrive as the channels of `to`, if whole rows do.
    fn rows_behind(
        &self,
        walk: &Walk<'_>,
        index: usize,
        to: usize,
    ) -> Result<Option<Vec<usize>>, CalibrateError> {
        let out = self.parameters[index].as_ref().map_or(0, Parameters::out);
        let numbered = |walk: &Walk<'_>, lane| {
            let x = tensor(walk, &self.structure.sites[index], lane, 0, World::Float)?;
            let leading = &x.shape()[..x.rank().saturating_sub(1)];
            let shape = [leading, &[out]].concat();
            let count: usize = shape.iter().product();
            let numbers: Vec<f32> = (0..count).map(|i| (i % out.max(1)) as f32).collect();
            Tensor::from_shape(&shape, &numbers).map_err(failed)
        };
        let (Some(behind), Some(reader)) = (
            self.behind(walk, to, numbered)?,
            self.parameters[to].as_ref(),
        ) else {
            return Ok(None);
        };
        let arrived = rows(
            &behind,
            &self.structure.sites[to],
            reader.k,
            0,
            World::Float,
        )?;
        let first = &arrived[..reader.k.min(arrived.len())];
        let numbers: Vec<usize> = first.iter().map(|x| x.round().max(0.0) as usize).collect();
        let whole = arrived.chunks_exact(reader.k).all(|row| {
            let near = |(x, n): (&f32, &usize)| (x - *n as f32).abs() < 0.05;
            row.iter().zip(&numbers).all(near)
        });
        let mut distinct = numbers.clone();
        distinct.sort_unstable();
        distinct.dedup();
        let sound =
            whole && distinct.len() == reader.k && distinct.last().is_some_and(|&n| n < out);
        Ok(sound.then_some(numbers))
    }

    /// Whether scales on the carrier's rows arrive at the channels of `to`, and nowhere else.
    fn passes_through(
        &self,
        walk: &Walk<'_>,
        carrier: &Carrier,
        to: usize,
    ) -> Result<bool, CalibrateError> {
        // Powers of two: products and sums of scaled values are the scaled ones, bit for bit.
        let scale = |channel: usize| [1.0, 2.0, 0.5][channel % 3];
        let plain = |walk: &Walk<'_>, lane| {
            let output = self.float_output(walk, carrier.site, lane)?;
            Ok(output.float)
        };
        let out = self.parameters[carrier.site].as_ref();
        let out = out.map_or(1, Parameters::out);
        let scaled = |walk: &Walk<'_>, lane| {
            let float = plain(walk, lane)?;
            let mut y = floats(&float).map_err(failed)?.to_vec();
            for row in y.chunks_exact_mut(out) {
                for (channel, &r) in carrier.rows.iter().enumerate() {
                    row[r] *= scale(channel);
                }
            }
            Tensor::from_shape(float.shape(), &y).map_err(failed)
        };
        let (plain, changed) = rayon::join(
            || self.behind(walk, to, plain),
            || self.behind(walk, to, scaled),
        );
        let (Some(plain), Some(changed), Some(reader)) =
            (plain?, changed?, self.parameters[to].as_ref())
        else {
            return Ok(false);
        };
        let site = &self.structure.sites[to];
        let (x, y) = (
            rows(&plain, site, reader.k, 0, World::Float)?,
            rows(&changed, site, reader.k, 0, World::Float)?,
        );
        let mut pairs = x.iter().zip(y.iter()).enumerate();
        let arrive = pairs
            .all(|(i, (x, y))| (x * scale(i % reader.k) - y).abs() <= 1e-5 * x.abs().max(1e-3));
        Ok(arrive && plain.differs_only_in_operand(&changed)?)
    }

    /// A walk of one lane that stands at `to`, with this result of the site that `walk` stands at; `None` if it never does.
    fn behind<'w>(
        &self,
        walk: &Walk<'w>,
        to: usize,
        result: impl Fn(&Walk<'w>, usize) -> Result<Tensor, CalibrateError> + Sync,
    ) -> Result<Option<Walk<'w>>, CalibrateError> {
        let mut branch = walk.branch(0..1);
        branch.complete(|walk, lane| {
            Ok::<_, CalibrateError>(SiteOutput {
                float: result(walk, lane)?,
                quantised: None,
            })
        })?;
        while let Some(site) = branch.advance()? {
            if site == to {
                return Ok(Some(branch));
            }
            branch.complete(|walk, lane| self.float_output(walk, site, lane))?;
        }
        Ok(None)
    }
}

fn failed(error: tract_onnx::prelude::TractError) -> CalibrateError {
    crate::walk::WalkError::Site {
        site: "V".into(),
        message: format!("{error:#}"),
    }
    .into()
}
