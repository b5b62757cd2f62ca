//! Attention products: Q·Kᵀ and attention·V.

use std::borrow::Cow;

use tract_onnx::prelude::tract_ndarray::ArrayD;
use tract_onnx::prelude::{IntoTensor, Tensor};
use vitq_passes::plan::{Activation, Decision};
use vitq_passes::structure::SiteKind;
use vitq_passes::target;

use super::moments::{by_group, over_lanes};
use super::operand::{tensor, values};
use super::{CalibrateError, Calibration, Part, SiteReport};
use crate::linalg::{gemm_into, square_sum, squared_distance};
use crate::quant::{self, Histogram};
use crate::run::vector::vectorised;
use crate::walk::{SiteOutput, Walk, World};

/// Lanes that the competing forms of codes are compared on.
const JUDGES: usize = 4;

/// Quantisers of both operands, and the head that they are for where they are not for all.
pub(super) type Rounding<'q> = (&'q Activation, &'q Activation, Option<usize>);

/// Every element of an operand is seen: enough not to widen its range for fear of the few that were.
const EACH: usize = usize::MAX;

impl Calibration<'_> {
    /// Decides a product and gives all lanes its result.
    pub(super) fn product(
        &mut self,
        walk: &mut Walk<'_>,
        index: usize,
        report: &mut SiteReport,
    ) -> Result<Decision, CalibrateError> {
        let site = &self.structure.sites[index];
        let (_, bits) = self.settings.bits(site);
        let (error, left, right) = self.product_quantisers(walk, index, bits)?;
        report.output_sqnr_db = Some(-10.0 * error.max(f64::MIN_POSITIVE).log10());
        self.complete(walk, |walk, lane| {
            self.product_output(walk, index, lane, Some((&left, &right)))
        })?;
        Ok(Decision::Product { left, right })
    }

    /// The operands' quantisers, and the error energy that they leave relative to the product's signal.
    pub(super) fn product_quantisers(
        &self,
        walk: &Walk<'_>,
        index: usize,
        bits: u32,
    ) -> Result<(f64, Activation, Activation), CalibrateError> {
        let site = &self.structure.sites[index];
        let (left, right) = (
            self.operand_histograms(walk, index, 0)?,
            self.operand_histograms(walk, index, 1)?,
        );
        let right = self.range(&right, bits, EACH);
        // Those of a Softmax itself; weights that were mixed since may even be negative.
        let weights = site.kind == SiteKind::AttentionValue
            && self.graph.is(site.activation.node, "Softmax")
            && self.settings.target_codes == target::Codes::Unsigned;
        let candidates = match weights {
            true => self.attention_weights(&left, bits),
            false => vec![self.range(&left, bits, EACH)],
        };
        let mut best: Option<(f64, Activation)> = None;
        for left in candidates {
            let error = self.product_error(walk, index, &left, &right)?;
            if best.as_ref().is_none_or(|(e, _)| error < *e) {
                best = Some((error, left));
            }
        }
        let Some((error, left)) = best else {
            return Err(CalibrateError::NoInputs);
        };
        Ok((error, left, right))
    }

    /// Quantisers that attention weights can have.
    fn attention_weights(&self, groups: &[Histogram], bits: u32) -> Vec<Activation> {
        let points = Histogram::merged(groups).points();
        let mut candidates = vec![self.range(groups, bits, EACH)];
        if self.settings.focusing {
            let most = points.values.last().copied().unwrap_or(1.0);
            candidates.extend(quant::intervals(most, bits));
        }
        if self.settings.has(Part::Logarithm) {
            candidates.push(quant::log(&points, bits));
        }
        candidates
    }

    /// Histograms of an operand over each group of lanes.
    fn operand_histograms(
        &self,
        walk: &Walk<'_>,
        index: usize,
        i: usize,
    ) -> Result<Vec<Histogram>, CalibrateError> {
        let site = &self.structure.sites[index];
        let world = self.world();
        let (lo, hi) = over_lanes(
            walk.len(),
            || (0.0f32, 0.0f32),
            |range, lane| {
                let tensor = tensor(walk, site, lane, i, world)?;
                let (lo, hi) = range_of(values(site, &tensor)?);
                // NaN, too, is found: it makes the sum one.
                if !(lo + hi).is_finite() {
                    return Err(CalibrateError::NotFinite {
                        site: site.name.clone(),
                    });
                }
                *range = (range.0.min(lo), range.1.max(hi));
                Ok(())
            },
            |a, b| *a = (a.0.min(b.0), a.1.max(b.1)),
        )?;
        by_group(
            walk.len(),
            || Histogram::new(lo, hi),
            |histogram, lane| {
                let tensor = tensor(walk, site, lane, i, world)?;
                histogram.add(values(site, &tensor)?, &[1.0]);
                Ok(())
            },
        )
    }

    /// Error energy at the product relative to its signal.
    fn product_error(
        &self,
        walk: &Walk<'_>,
        index: usize,
        left: &Activation,
        right: &Activation,
    ) -> Result<f64, CalibrateError> {
        let site = &self.structure.sites[index];
        let world = self.world();
        let (mut error, mut signal) = (0.0, 0.0);
        for lane in 0..walk.len().min(JUDGES) {
            let operands = (
                &*tensor(walk, site, lane, 0, world)?,
                &*tensor(walk, site, lane, 1, world)?,
            );
            let exact = multiply(operands, None)?;
            let rounded = multiply(operands, Some((left, right, None)))?;
            error += squared_distance(&exact.1, &rounded.1);
            signal += square_sum(&exact.1);
        }
        Ok(error / signal.max(f64::MIN_POSITIVE))
    }

    /// The product in a lane; the float one where no quantisers are given.
    pub(super) fn product_output(
        &self,
        walk: &Walk<'_>,
        index: usize,
        lane: usize,
        quantisers: Option<(&Activation, &Activation)>,
    ) -> Result<SiteOutput, CalibrateError> {
        let at = |world, quantisers| self.product_result(walk, index, (lane, world), quantisers);
        let quantisers = quantisers.map(|(left, right)| (left, right, None));
        let rounds = quantisers.is_some() && self.recipe.sequential;
        let quantised = (rounds || walk.differs(lane))
            .then(|| at(World::Quantised, quantisers))
            .transpose()?;
        Ok(SiteOutput {
            float: at(World::Float, None)?,
            quantised,
        })
    }

    /// The quantised product in place of the float one: what the rest of a float network makes of it.
    pub(super) fn product_alone(
        &self,
        walk: &Walk<'_>,
        index: usize,
        lane: usize,
        quantisers: Rounding<'_>,
    ) -> Result<SiteOutput, CalibrateError> {
        let float = self.product_result(walk, index, (lane, World::Float), Some(quantisers))?;
        Ok(SiteOutput {
            float,
            quantised: None,
        })
    }

    fn product_result(
        &self,
        walk: &Walk<'_>,
        index: usize,
        (lane, world): (usize, World),
        quantisers: Option<Rounding<'_>>,
    ) -> Result<Tensor, CalibrateError> {
        let site = &self.structure.sites[index];
        let operands = (
            &*tensor(walk, site, lane, 0, world)?,
            &*tensor(walk, site, lane, 1, world)?,
        );
        let (shape, y) = multiply(operands, quantisers)?;
        let product = ArrayD::from_shape_vec(shape, y).map_err(|e| failed(&e.to_string()))?;
        Ok(product.into_tensor())
    }
}

/// Least and largest value; NaN where one is.
fn range_of(values: &[f32]) -> (f32, f32) {
    let mut sum = 0.0f32;
    let (mut lo, mut hi) = (0.0f32, 0.0f32);
    vectorised(|| {
        for &v in values {
            lo = lo.min(v);
            hi = hi.max(v);
            sum += v * 0.0;
        }
    });
    (lo + sum, hi)
}

fn failed(message: &str) -> CalibrateError {
    crate::walk::WalkError::Site {
        site: "attention product".into(),
        message: message.into(),
    }
    .into()
}

/// Heads of an attention product's operand `[batch, heads, rows, columns]`; one where it has no such axis.
pub(super) fn heads(shape: &[usize]) -> usize {
    match shape {
        [_, heads, _, _] => *heads,
        _ => 1,
    }
}

fn round_head(quantiser: &Activation, values: &mut [f32], shape: &[usize], head: Option<usize>) {
    let heads = heads(shape);
    let size = shape.iter().rev().take(2).product::<usize>().max(1);
    match head {
        None => quant::apply(quantiser, values),
        Some(head) => {
            let parts = values.chunks_mut(size).enumerate();
            let chosen = parts.filter(|(i, _)| i % heads == head);
            chosen.for_each(|(_, part)| quant::apply(quantiser, part));
        }
    }
}

/// `[…, m, k] · […, k, n]` with leading axes alike, each operand quantised first if asked for.
fn multiply(
    (left, right): (&Tensor, &Tensor),
    quantisers: Option<Rounding<'_>>,
) -> Result<(Vec<usize>, Vec<f32>), CalibrateError> {
    let floats = |t| crate::walk::floats(t).map_err(|e| failed(&format!("{e:#}")));
    let (mut a, mut b) = (Cow::Borrowed(floats(left)?), Cow::Borrowed(floats(right)?));
    if let Some((l, r, head)) = quantisers {
        round_head(l, a.to_mut(), left.shape(), head);
        round_head(r, b.to_mut(), right.shape(), head);
    }
    let rank = left.rank();
    if rank < 2 || right.rank() != rank || left.shape()[..rank - 2] != right.shape()[..rank - 2] {
        return Err(failed("the operands' leading axes differ"));
    }
    let (m, k, n) = (
        left.shape()[rank - 2],
        left.shape()[rank - 1],
        right.shape()[rank - 1],
    );
    if right.shape()[rank - 2] != k {
        return Err(failed("the operands' inner axes differ"));
    }
    let batch: usize = left.shape()[..rank - 2].iter().product();
    let mut y = vec![0.0; batch * m * n];
    for i in 0..batch {
        gemm_into(
            &mut y[i * m * n..(i + 1) * m * n],
            &a[i * m * k..(i + 1) * m * k],
            &b[i * k * n..(i + 1) * k * n],
            m,
            k,
            n,
        );
    }
    let mut shape = left.shape().to_vec();
    shape[rank - 1] = n;
    Ok((shape, y))
}
