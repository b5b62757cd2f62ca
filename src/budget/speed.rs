//! `speedup=`: the least predicted error with which the target's cost model predicts so much speed.
//!
//! `time = Σ_float sites MACs + Σ_quantised sites MACs / 3.6 + 22·Σ elements`, in units of a float multiply-accumulate;
//! `elements` are those that products read and write, in whose number everything that is no product (LayerNormalization,
//! GELU, Softmax, residuals) grows. The 3.6 is ONNX Runtime's int8 over its float GEMM at these shapes on AVX512-VNNI (3.3 to
//! 4.1 measured), the 22 is fitted: with all Linears quantised the model gives 2.0, 2.4 and 2.9 for DeiT-T, S and B, where
//! 1.87, 2.44 and 2.90 were measured on one core. A prediction, no promise: machines differ.

use super::allocate::{Candidate, allocate};
use super::table::Table;
use super::{BudgetError, Job};
use crate::calibrate::candidates::Work;
use crate::calibrate::{Outcome, Width};
use crate::error::Error;

/// Units of time a float multiply-accumulate takes: whole ones, tenths of a quantised one.
const FLOAT: u64 = 36;
/// The same of a quantised one.
const QUANTISED: u64 = 10;
/// What an element of an operand or a result costs, in float multiply-accumulates.
const ELEMENT: u64 = 22;

/// Calibrates with the predicted speed-up.
pub fn plan(job: &Job<'_>, speedup: f64) -> Result<Outcome, Error> {
    let settings = &job.quantizer.settings;
    if settings.codes.codebook(settings.activation_bits) {
        return Err(BudgetError::Unpriced(job.budget).into());
    }
    let table = Table::of_speeds(job)?;
    let float: u64 = table.sites.iter().map(|site| time(site.work, false)).sum();
    let chosen: u64 = table
        .rows
        .iter()
        .map(|row| time(work(&table, row.site), false))
        .sum();
    let rest = float - chosen;
    let candidates =
        table.candidates(|row, width| time(work(&table, row.site), width != Width::Float));
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

fn time(work: Work, quantised: bool) -> u64 {
    let mac = if quantised { QUANTISED } else { FLOAT };
    work.macs * mac + work.elements * ELEMENT * FLOAT
}

fn least(candidates: &[Vec<Candidate>]) -> u64 {
    let sites = candidates
        .iter()
        .filter_map(|site| site.iter().map(|it| it.cost).min());
    sites.sum()
}
