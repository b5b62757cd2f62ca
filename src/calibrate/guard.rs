//! The guard: a site that spoils the network when it is quantised alone is mended, or stays float.
//!
//! Each site is quantised alone on a few inputs while the rest of the network stays float, and the error at the model's
//! outputs is measured. Mends are tried from the cheapest on: a scale per channel before the quantiser (one `Mul`), 8 bits,
//! float. Where the widths of single sites are given, the first of these mends is the only one.

use std::ops::Range;

use vitq_passes::structure::{Site, SiteKind};

use super::fold::{Channels, Fold};
use super::linear::{Choice, sqnr};
use super::solution::Solved;
use super::{CalibrateError, Calibration, SiteReport};
use crate::walk::{SiteOutput, Walk, World};

/// Inputs that calibration's guard looks at where a site is in question; one of them, in turn, where it is clearly harmless.
pub const INPUTS: usize = 2;

/// dB above the threshold from which one input is enough: how much worse another could be.
const CLEAR_DB: f64 = 6.0;

/// dB at the model's outputs that a site quantised alone must reach at 8 bits; less below, the narrower of the two widths
/// counting more. Half of the sites lie 5 to 10 dB above.
const THRESHOLD_DB: f64 = 34.0;

/// The float network's outputs on the guard's inputs.
pub struct Guard {
    outputs: Vec<Vec<f32>>,
}

impl Guard {
    /// Runs the float network on the first `inputs` of the walk.
    pub fn new(
        state: &Calibration<'_>,
        walk: &Walk<'_>,
        inputs: usize,
    ) -> Result<Guard, CalibrateError> {
        let mut branch = walk.branch(0..inputs);
        finish(state, &mut branch)?;
        Ok(Guard {
            outputs: branch.outputs(World::Float)?,
        })
    }

    /// dB at the model's outputs on one input, if that is enough to keep the solution.
    pub fn glance(
        &self,
        state: &Calibration<'_>,
        walk: &Walk<'_>,
        index: usize,
        solved: &Solved,
    ) -> Result<Option<f64>, CalibrateError> {
        let lane = index % self.outputs.len().max(1);
        let db = self.network_sqnr(state, walk, index, solved, lane..lane + 1)?;
        Ok(Some(db).filter(|db| *db >= threshold(state) + CLEAR_DB))
    }

    /// Keeps the solution, or the first mend that reaches the threshold, or the site float.
    #[allow(clippy::too_many_arguments)]
    pub fn judge(
        &self,
        state: &Calibration<'_>,
        walk: &Walk<'_>,
        index: usize,
        solved: Solved,
        channels: &Channels,
        folded: bool,
        report: &mut SiteReport,
    ) -> Result<Choice, CalibrateError> {
        let threshold = threshold(state);
        let alone = self.network_sqnr(state, walk, index, &solved, 0..INPUTS)?;
        report.network_sqnr_db = Some(alone);
        if alone >= threshold {
            return Ok(Choice::Keep {
                solved,
                mended: false,
            });
        }
        let mut best = Mended {
            db: alone,
            solved,
            how: None,
        };
        let site = &state.structure.sites[index];
        let bits = state.settings.bits(site);
        let given = state.settings.widths.is_some();
        for mend in mends(bits, scalable(site, folded), given) {
            if best.db >= threshold {
                break;
            }
            let fold = match mend.strength {
                Some(strength) => Fold::outliers(channels, strength),
                None => best.solved.fold.clone(),
            };
            let solved = state.solve(walk, index, &fold, channels, mend.bits)?;
            let db = self.network_sqnr(state, walk, index, &solved, 0..INPUTS)?;
            if db > best.db {
                best = Mended {
                    db,
                    solved,
                    how: Some(mend),
                };
            }
        }
        // A site that no mend brings near the threshold would cost more than its speed is worth.
        if best.db < threshold - FLOAT_MARGIN_DB && !given {
            let note = format!(
                "{alone:.1} dB alone, {:.1} dB at best after mending, below {threshold:.0} dB: left float",
                best.db
            );
            report.note = Some(note.clone());
            return Ok(Choice::Float(note));
        }
        let mended = best.how.is_some();
        if let Some(mend) = best.how {
            let wider = if mend.strength.is_none() {
                "8 bits bring"
            } else {
                "a scale per channel (one Mul) brings"
            };
            report.note = Some(format!("{alone:.1} dB alone; {wider} {:.1} dB", best.db));
            report.network_sqnr_db = Some(best.db);
        }
        Ok(Choice::Keep {
            solved: best.solved,
            mended,
        })
    }

    /// dB at the model's outputs with this site alone quantised.
    fn network_sqnr(
        &self,
        state: &Calibration<'_>,
        walk: &Walk<'_>,
        index: usize,
        solved: &Solved,
        lanes: Range<usize>,
    ) -> Result<f64, CalibrateError> {
        self.sqnr_with(state, walk, lanes, |walk, lane| {
            state.alone(walk, index, lane, solved)
        })
    }

    /// Inputs that it looks at.
    pub fn inputs(&self) -> usize {
        self.outputs.len()
    }

    /// dB at the model's outputs with another result at the site that the walk stands at.
    pub fn sqnr_with(
        &self,
        state: &Calibration<'_>,
        walk: &Walk<'_>,
        lanes: Range<usize>,
        output: impl Fn(&Walk<'_>, usize) -> Result<SiteOutput, CalibrateError> + Sync,
    ) -> Result<f64, CalibrateError> {
        let lanes = lanes.start..lanes.end.min(self.outputs.len());
        let float = self.outputs[lanes.clone()].concat();
        let mut branch = walk.branch(lanes);
        branch.complete(output)?;
        finish(state, &mut branch)?;
        let outputs = branch.outputs(World::Float)?;
        Ok(sqnr(&float, &outputs.concat()))
    }
}

/// A way to quantise a site with less harm.
struct Mend {
    /// Of a scale per channel; as before where absent.
    strength: Option<f32>,
    /// Of weights and activations.
    bits: (u32, u32),
}

/// The best so far.
struct Mended {
    db: f64,
    solved: Solved,
    how: Option<Mend>,
}

/// Strengths of a scale per channel that are tried where no LayerNormalization takes it over.
pub const STRENGTHS: [f32; 3] = [0.5, 0.75, 1.0];

/// Whether the site's input may get a scale per channel of its own. The columns of a patch embedding are pixels, which
/// no scale per channel of the image tells apart; a `folded` input has its scales already.
pub fn scalable(site: &Site, folded: bool) -> bool {
    !folded && site.kind != SiteKind::PatchEmbed
}

/// From the cheapest on. Behind a LayerNormalization the scales per channel are folded already.
fn mends(bits: (u32, u32), scalable: bool, given: bool) -> Vec<Mend> {
    let strengths: &[f32] = if scalable { &STRENGTHS } else { &[] };
    let scales = strengths.iter().map(|&strength| Mend {
        strength: Some(strength),
        bits,
    });
    let widest = (8, bits.1.max(8));
    let wider = (bits != widest && !given).then_some(Mend {
        strength: None,
        bits: widest,
    });
    scales.chain(wider).collect()
}

/// From the widths asked for, also for a site at the edge with another one.
fn threshold(state: &Calibration<'_>) -> f64 {
    threshold_db(state.settings.narrowest())
}

/// dB at the model's outputs below which a site with these widths (weight, activation) is mended.
pub fn threshold_db((weight, activation): (u32, u32)) -> f64 {
    let missing = |bits: u32| f64::from(8 - bits.min(8));
    THRESHOLD_DB - 2.9 * missing(weight.min(activation)) - 1.1 * missing(weight.max(activation))
}

/// How far below the threshold a mended site may end before it is left float.
pub const FLOAT_MARGIN_DB: f64 = 3.0;

/// Walks to the end with every site float.
fn finish(state: &Calibration<'_>, walk: &mut Walk<'_>) -> Result<(), CalibrateError> {
    while let Some(index) = walk.advance()? {
        walk.complete(|walk, lane| state.float_output(walk, index, lane))?;
    }
    Ok(())
}
