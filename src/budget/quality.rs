//! `drop=` and `sqnr=`: the smallest file that is good enough on samples held out.
//!
//! Predictions only rank: sizes are tried out, each with its best choice of widths, halving what lies between the largest
//! that missed the bar and the smallest that met it.

use super::size::{Scale, within};
use super::table::Table;
use super::{Budget, BudgetError, Job, Trial};
use crate::batches::Batches;
use crate::calibrate::Outcome;
use crate::error::Error;
use crate::verify::{Candidate, verify};

/// Samples held out that a trial is judged on, at most.
const JUDGES: usize = 256;

/// Sizes tried between the ends.
const TRIALS: usize = 4;

/// Calibrates with the smallest file that meets the bar.
pub fn plan(job: &Job<'_>) -> Result<Outcome, Error> {
    let first = job.quantizer.samples;
    let held_out = first..first.saturating_add(JUDGES);
    let held_out = Batches::new(job.calibration, held_out, job.model.batch());
    if held_out.samples() == 0 {
        return Err(BudgetError::NothingHeldOut(job.budget).into());
    }
    let table = Table::of_sizes(job)?;
    let scale = Scale::new(job, &table)?;
    let mut search = Search {
        job,
        table: &table,
        scale: &scale,
        held_out: &held_out,
        trials: Vec::new(),
    };
    let mut outcome = search.run()?;
    if let Some(kept) = &mut outcome.budget {
        kept.trials = search.trials;
        kept.held_out = Some(held_out.describe());
    }
    Ok(outcome)
}

struct Search<'a> {
    job: &'a Job<'a>,
    table: &'a Table,
    scale: &'a Scale,
    held_out: &'a Batches<'a>,
    trials: Vec<Trial>,
}

impl Search<'_> {
    fn run(&mut self) -> Result<Outcome, Error> {
        let (mut small, mut large) = (self.scale.least, self.scale.most(self.job, self.table));
        // A little more than the count, which the file is not bound to.
        let (mut best, kept) = self.try_out(large + large / 100)?;
        if !kept {
            return Err(self.missed());
        }
        let (outcome, kept) = self.try_out(small + small / 100)?;
        if kept {
            return Ok(outcome);
        }
        for _ in 0..TRIALS {
            let between = ((small as f64) * (large as f64)).sqrt() as u64;
            let (outcome, kept) = self.try_out(between)?;
            if kept {
                (best, large) = (outcome, between);
            } else {
                small = between;
            }
        }
        Ok(best)
    }

    /// The best choice within `limit` bytes, and whether it meets the bar.
    fn try_out(&mut self, limit: u64) -> Result<(Outcome, bool), Error> {
        let Job {
            quantizer,
            budget,
            model,
            progress,
            ..
        } = *self.job;
        let (outcome, allocation) = within(self.job, self.table, self.scale, limit)?;
        let message = quantizer.apply(model, &outcome.plan)?;
        let candidate = Candidate {
            path: &model.path,
            message: &message,
        };
        let judged = verify(
            model,
            candidate,
            self.held_out,
            quantizer.settings.executor,
            progress,
        )?;
        let sqnr_db = judged.outputs.first().and_then(|output| output.sqnr_db);
        let agreement = judged.classifier.map(|classifier| classifier.agreement);
        let kept = match budget {
            Budget::Drop(points) => {
                let agreement = agreement.ok_or(BudgetError::NoClassifier(budget))?;
                agreement >= 100.0 - points
            }
            // Without a figure nothing differs.
            Budget::Sqnr(bar) => sqnr_db.is_none_or(|db| db >= bar),
            Budget::Size(_) | Budget::Speedup(_) => true,
        };
        let bytes = outcome.budget.as_ref().map_or(limit, |it| it.bytes);
        let predicted_sqnr_db = self.table.predicted_db(allocation.error);
        tracing::info!(bytes, ?sqnr_db, ?agreement, kept, "tried");
        self.trials.push(Trial {
            bytes,
            predicted_sqnr_db,
            sqnr_db,
            agreement,
            kept,
        });
        Ok((outcome, kept))
    }

    /// The widest widths miss the bar.
    fn missed(&self) -> Error {
        let budget = self.job.budget;
        let reached = self.trials.last().map(|trial| match budget {
            Budget::Drop(_) => format!("drop={:.2}", 100.0 - trial.agreement.unwrap_or(0.0)),
            _ => format!("sqnr={:.1}", trial.sqnr_db.unwrap_or(f64::INFINITY)),
        });
        BudgetError::Quality {
            budget,
            reached: reached.unwrap_or_default(),
        }
        .into()
    }
}
