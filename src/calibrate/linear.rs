//! A Linear or patch embedding on the walk: decided, and its result handed to all lanes.

use tract_onnx::prelude::{Tensor, TractError};
use vitq_passes::plan::{Decision, Plan};
use vitq_passes::structure::{Site, SiteKind};

use super::fold::{Channels, Fold};
use super::moments::over_lanes;
use super::operand::{rows, sample};
use super::parameters::{Parameters, transpose};
use super::solution::Solved;
use super::{CalibrateError, Calibration, SiteReport};
use crate::linalg::{square_sum, squared_distance};
use crate::run::vector::all_finite;
use crate::walk::{SiteOutput, Walk, WalkError, World};

/// Inputs for which a weight is turned.
const MANY: usize = 16;

impl Calibration<'_> {
    /// Decides a Linear and gives all lanes its result.
    pub(super) fn linear(
        &mut self,
        walk: &mut Walk<'_>,
        index: usize,
        report: &mut SiteReport,
    ) -> Result<Decision, CalibrateError> {
        let site = &self.structure.sites[index];
        let Some(k) = self.parameters[index].as_ref().map(|p| p.k) else {
            return self.keep_float(walk, index, "its weight is no constant".into());
        };
        let float = sample(walk, site, k, self.recipe.rows, World::Float)?;
        let channels = self.channels(walk, site, k)?;
        let upstream = self.upstream_fold(walk, index, &channels)?;
        let fold = upstream.clone().unwrap_or_else(|| Fold::identity(k));
        let solved = self.solve(walk, index, &fold, &channels, self.settings.bits(site))?;
        report.output_sqnr_db = Some(self.local_sqnr(index, &solved, &float));
        let tokens = self.tokens(walk, site, k)? / walk.len().max(1);
        report.macs = Some((tokens * k * solved.bias.len()) as u64);
        report.low_rank = solved.branch(tokens);
        let Some(guard) = self.guard.take() else {
            return self.keep(walk, index, &solved, upstream.is_some());
        };
        // While one core looks whether the site is harmless, the others go on as if it were.
        let mut ahead = walk.clone();
        let (glance, decision) = rayon::join(
            || guard.glance(self, walk, index, &solved),
            || self.keep(&mut ahead, index, &solved, upstream.is_some()),
        );
        if let Some(db) = glance? {
            report.network_sqnr_db = Some(db);
            self.guard = Some(guard);
            *walk = ahead;
            return decision;
        }
        decision?;
        let choice = guard.judge(
            self,
            walk,
            index,
            solved,
            &channels,
            upstream.is_some(),
            report,
        );
        self.guard = Some(guard);
        let choice = choice?;
        let decision = match &choice {
            Choice::Float(reason) => {
                report.low_rank = None;
                left_float(reason.clone())
            }
            Choice::Keep { solved, .. } => {
                report.low_rank = solved.branch(tokens);
                Decision::Linear(solved.plan(upstream.is_some()))
            }
        };
        // The float values behind the site are the same whatever was decided.
        let stands =
            !self.recipe.sequential || matches!(choice, Choice::Keep { mended: false, .. });
        if stands {
            *walk = ahead;
        } else {
            drop(ahead);
            self.go_on(walk, index, choice.solved())?;
        }
        Ok(decision)
    }

    /// Goes on with the site quantised like this, or float.
    fn go_on(
        &self,
        walk: &mut Walk<'_>,
        index: usize,
        solved: Option<&Solved>,
    ) -> Result<(), CalibrateError> {
        let parameters = self.parameters[index].as_ref();
        let turned = parameters
            .filter(|_| walk.len() >= MANY)
            .map(Parameters::inputs_first);
        let how = (solved, turned.as_deref());
        self.complete(walk, |walk, lane| self.output(walk, index, lane, how))
    }

    /// Goes on with the site quantised like this.
    fn keep(
        &self,
        walk: &mut Walk<'_>,
        index: usize,
        solved: &Solved,
        folded_upstream: bool,
    ) -> Result<Decision, CalibrateError> {
        self.go_on(walk, index, Some(solved))?;
        Ok(Decision::Linear(solved.plan(folded_upstream)))
    }

    /// The world that quantisers are chosen in.
    pub(super) fn world(&self) -> World {
        if self.recipe.sequential {
            World::Quantised
        } else {
            World::Float
        }
    }

    /// Range of each input channel over all tokens; fails where one is no number, before anything is chosen on it.
    pub(super) fn channels(
        &self,
        walk: &Walk<'_>,
        site: &Site,
        k: usize,
    ) -> Result<Channels, CalibrateError> {
        over_lanes(
            walk.len(),
            || Channels::new(k),
            |channels, lane| {
                let rows = rows(walk, site, k, lane, self.world())?;
                if !all_finite(&rows) {
                    return Err(CalibrateError::NotFinite {
                        site: site.name.clone(),
                    });
                }
                channels.add(&rows);
                Ok(())
            },
            Channels::merge,
        )
    }

    /// Tokens that reach the site over all lanes.
    pub(super) fn tokens(
        &self,
        walk: &Walk<'_>,
        site: &Site,
        k: usize,
    ) -> Result<usize, CalibrateError> {
        Ok(walk.len() * rows(walk, site, k, 0, World::Float)?.len() / k.max(1))
    }

    /// dB of the site quantised alone, at its own output.
    fn local_sqnr(&self, index: usize, solved: &Solved, float: &[f32]) -> f64 {
        let Some(parameters) = &self.parameters[index] else {
            return f64::NAN;
        };
        let y = parameters.forward(float);
        sqnr(&y, &solved.forward(float))
    }

    /// The site's result in a lane; the float one where `solved` is absent. `turned` is the float weight as `[in, out]`.
    fn output(
        &self,
        walk: &Walk<'_>,
        index: usize,
        lane: usize,
        (solved, turned): (Option<&Solved>, Option<&[f32]>),
    ) -> Result<SiteOutput, CalibrateError> {
        let site = &self.structure.sites[index];
        let Some(parameters) = &self.parameters[index] else {
            return self.product_output(walk, index, lane, None);
        };
        let at = |world, solved: Option<&Solved>| {
            let x = rows(walk, site, parameters.k, lane, world)?;
            match solved {
                Some(it) => shaped(site, x.shape(), &it.bias, |y| it.add_product(&x, y)),
                None => {
                    let bias = &parameters.bias;
                    shaped(site, x.shape(), bias, |y| {
                        parameters.add_product_of(turned, &x, y);
                    })
                }
            }
        };
        let rounds = solved.is_some() && self.recipe.sequential;
        let quantised = (rounds || walk.differs(lane))
            .then(|| at(World::Quantised, solved))
            .transpose()?;
        Ok(SiteOutput {
            float: at(World::Float, None)?,
            quantised,
        })
    }

    /// The quantised result in place of the float one: what the rest of a float network makes of it.
    pub(super) fn alone(
        &self,
        walk: &Walk<'_>,
        index: usize,
        lane: usize,
        solved: &Solved,
    ) -> Result<SiteOutput, CalibrateError> {
        let site = &self.structure.sites[index];
        let Some(parameters) = &self.parameters[index] else {
            return self.product_output(walk, index, lane, None);
        };
        let x = rows(walk, site, parameters.k, lane, World::Float)?;
        Ok(SiteOutput {
            float: shaped(site, x.shape(), &solved.bias, |y| {
                solved.add_product(&x, y);
            })?,
            quantised: None,
        })
    }

    /// Lets the site stay float ([`Calibration::follow_folds`] changes its parameters in the end).
    pub(super) fn keep_float(
        &mut self,
        walk: &mut Walk<'_>,
        index: usize,
        reason: String,
    ) -> Result<Decision, CalibrateError> {
        self.go_on(walk, index, None)?;
        Ok(left_float(reason))
    }

    /// Gives float sites the parameters that undo the folds of the LayerNormalizations that they read. In the end, as a site
    /// may have been left float before another reader chose the fold.
    pub(super) fn follow_folds(&self, plan: &mut Plan) {
        let sites = self.structure.sites.iter().zip(&self.parameters);
        for (site, parameters) in sites {
            let fold = site.norm.and_then(|norm| self.folds.get(&norm));
            let planned = plan.sites.iter_mut().find(|it| it.site == site.name);
            if let (Some(fold), Some(parameters), Some(planned)) = (fold, parameters, planned)
                && let Decision::Float { replace, .. } = &mut planned.decision
                && !fold.is_identity()
            {
                let folded = parameters.folded(fold);
                *replace = Some((folded.weight, folded.bias));
            }
        }
    }

    /// The float result of a Linear or product in a lane (both worlds).
    pub(super) fn float_output(
        &self,
        walk: &Walk<'_>,
        index: usize,
        lane: usize,
    ) -> Result<SiteOutput, CalibrateError> {
        self.output(walk, index, lane, (None, None))
    }
}

/// What the guard decided.
#[allow(clippy::large_enum_variant)] // One lives at a time.
pub enum Choice {
    /// Quantise like this, as it was solved for at first or mended.
    Keep {
        /// How.
        solved: Solved,
        /// Whether it was mended.
        mended: bool,
    },
    /// Stay float, for this reason.
    Float(String),
}

impl Choice {
    fn solved(&self) -> Option<&Solved> {
        match self {
            Choice::Keep { solved, .. } => Some(solved),
            Choice::Float(_) => None,
        }
    }
}

pub(super) fn left_float(reason: String) -> Decision {
    Decision::Float {
        reason,
        replace: None,
    }
}

/// Signal to error, dB.
pub fn sqnr(signal: &[f32], other: &[f32]) -> f64 {
    10.0 * (square_sum(signal) / squared_distance(signal, other).max(f64::MIN_POSITIVE)).log10()
}

/// The bias and what `add` adds to it as `[tokens, out]`, in the shape that the network goes on with.
fn shaped(
    site: &Site,
    input: &[usize],
    bias: &[f32],
    add: impl FnOnce(&mut [f32]),
) -> Result<Tensor, CalibrateError> {
    let out = bias.len();
    let patch = site.parameters.as_ref().and_then(|p| p.patch);
    let shape = match (patch, input) {
        (Some([ph, pw]), &[n, _, h, w]) => vec![n, out, h / ph.max(1), w / pw.max(1)],
        _ => {
            let leading = &input[..input.len().saturating_sub(1)];
            [leading, &[out]].concat()
        }
    };
    let write = || {
        if site.kind == SiteKind::PatchEmbed {
            let mut result = Tensor::zero::<f32>(&shape)?;
            let mut view = result.try_as_plain_ram_mut()?;
            let y = view.as_slice_mut::<f32>()?;
            let tokens = y.len() / out / shape[0].max(1);
            let mut rows = bias.repeat(y.len() / out);
            add(&mut rows);
            for (y, rows) in y
                .chunks_exact_mut(tokens * out)
                .zip(rows.chunks_exact(tokens * out))
            {
                y.copy_from_slice(&transpose(rows, tokens, out));
            }
            return Ok(result);
        }
        let mut result = Tensor::from_shape(&[out], bias)?.broadcast_to_shape(&shape)?;
        add(result.try_as_plain_ram_mut()?.as_slice_mut::<f32>()?);
        Ok(result)
    };
    write().map_err(|e: TractError| {
        WalkError::Site {
            site: site.name.clone(),
            message: format!("{e:#}"),
        }
        .into()
    })
}
