//! `speedup=`: the least predicted error with which the target's cost model predicts so much speed.
//!
//! `time = Σ_float sites MACs + Σ_quantised sites MACs / 3.6 + 22·Σ elements` in ONNX Runtime, in units of a float
//! multiply-accumulate; `elements` are those that products read and write, in whose number everything that is no product
//! (LayerNormalization, GELU, Softmax, residuals) grows. The numbers are a rule of the target
//! ([`Costs`]). A prediction, no promise: machines differ.

use vitq_passes::target::Costs;

use super::allocate::{Candidate, allocate};
use super::table::{Row, Table};
use super::{BudgetError, Job};
use crate::calibrate::candidates::Work;
use crate::calibrate::{Outcome, Width};
use crate::error::Error;

/// Calibrates with the predicted speed-up.
pub(super) fn plan(job: &Job<'_>, speedup: f64) -> Result<Outcome, Error> {
    let settings = &job.quantizer.settings;
    if settings.codes.codebook(settings.activation_bits) {
        return Err(BudgetError::Unpriced(job.budget).into());
    }
    let target = &job.quantizer.target;
    let Some(costs) = target.costs else {
        return Err(BudgetError::NoCosts(target.name).into());
    };
    let table = Table::of_speeds(job)?;
    let sites = table.sites.iter();
    let float: u64 = sites.map(|site| time(&costs, site.work, false)).sum();
    let time = |row: &Row, quantised| time(&costs, work(&table, row.site), quantised);
    let chosen: u64 = table.rows.iter().map(|row| time(row, false)).sum();
    let rest = float - chosen;
    let candidates = table.candidates(|row, width| time(row, width != Width::Float));
    let limit = (float as f64 / speedup) as u64;
    let allocation = match limit
        .checked_sub(rest)
        .map(|room| allocate(&candidates, room))
    {
        Some(Ok(allocation)) => allocation,
        _ => {
            let most = float as f64 / (rest + least(&candidates)) as f64;
            let budget = job.budget;
            return Err(BudgetError::Speedup { budget, most }.into());
        }
    };
    let mut quantizer = job.quantizer.clone();
    quantizer.budget = None;
    quantizer.settings.widths = Some(table.widths(job, &allocation.picks));
    let mut outcome = quantizer.plan(job.model, job.calibration, job.progress)?;
    let settings = &mut outcome.plan.settings;
    settings.insert(super::size::BUDGET.into(), job.budget.to_string());
    let bytes = super::size::weigh(job, &quantizer, &outcome.plan)?;
    let mut kept = table.kept(job, &allocation, bytes);
    kept.predicted_speedup = Some(float as f64 / (rest + allocation.cost) as f64);
    outcome.budget = Some(kept);
    Ok(outcome)
}

fn work(table: &Table, site: usize) -> Work {
    let measured = table.sites.iter().find(|it| it.site == site);
    measured.map(|it| it.work).unwrap_or_default()
}

/// Units of time that a site takes.
pub(crate) fn time(costs: &Costs, work: Work, quantised: bool) -> u64 {
    let mac = if quantised {
        costs.quantised
    } else {
        costs.float
    };
    work.macs * mac + work.elements * costs.element
}

fn least(candidates: &[Vec<Candidate>]) -> u64 {
    let sites = candidates
        .iter()
        .filter_map(|site| site.iter().map(|it| it.cost).min());
    sites.sum()
}
