//! `size=`: the least predicted error within so many bytes.
//!
//! Bytes are those of the very file: a hollow plan, all numbers zero, is emitted and weighed. What a site's widths differ by
//! is counted first, so that the choice can be made, and the file is weighed again after calibration.

use prost::Message;
use vitq_passes::plan::{
    Activation, Decision, LinearPlan, Plan, Segment, SitePlan, VERSION, Weight,
};
use vitq_passes::structure::Site;
use vitq_passes::target;

use super::allocate::{Allocation, allocate};
use super::table::{Row, Table};
use super::{BudgetError, Job, Size};
use crate::calibrate::{Outcome, Width, Widths};
use crate::error::Error;
use crate::pipeline::Quantizer;
use crate::quant::{FLOAT_BITS, around_zero};

/// Times that a file too large leads to a tighter choice.
const ROUNDS: usize = 8;

/// Key of the budget among a plan's settings.
pub const BUDGET: &str = "budget";

/// Calibrates within `size`.
pub fn plan(job: &Job<'_>, size: Size) -> Result<Outcome, Error> {
    let limit = bytes(job, size)?;
    let table = Table::of_sizes(job)?;
    let scale = Scale::new(job, &table)?;
    let (outcome, ..) = within(job, &table, &scale, limit)?;
    Ok(outcome)
}

fn bytes(job: &Job<'_>, size: Size) -> Result<u64, Error> {
    Ok(match size {
        Size::Bytes(bytes) => bytes,
        Size::Fraction(part) => (part * float_bytes(job)? as f64) as u64,
    })
}

fn float_bytes(job: &Job<'_>) -> Result<u64, Error> {
    crate::report::FileReport::of(&job.model.path).map(|file| file.bytes)
}

/// Calibrates with the least predicted error in a file of at most `limit` bytes, and what was chosen.
pub fn within(
    job: &Job<'_>,
    table: &Table,
    scale: &Scale,
    limit: u64,
) -> Result<(Outcome, Allocation), Error> {
    let mut tight = limit;
    let mut quantizer = job.quantizer.clone();
    quantizer.budget = None;
    for _ in 0..ROUNDS {
        let allocation = scale.allocate(job, table, tight)?;
        let picked = table.picked(&allocation.picks);
        let hollow = weigh(job, &quantizer, &hollow(job, table, &picked))?;
        if hollow > limit {
            tight = scale.below(&allocation, hollow - limit);
            continue;
        }
        quantizer.settings.widths = Some(table.widths(job, &allocation.picks));
        let mut outcome = quantizer.plan(job.model, job.calibration, job.progress)?;
        let settings = &mut outcome.plan.settings;
        settings.insert(BUDGET.into(), job.budget.to_string());
        let bytes = weigh(job, &quantizer, &outcome.plan)?;
        if bytes <= limit {
            outcome.budget = Some(table.kept(job, &allocation, bytes));
            return Ok((outcome, allocation));
        }
        tracing::info!(bytes, limit, "too large");
        tight = scale.below(&allocation, bytes - limit);
    }
    Err(too_small(job, table)?)
}

/// Bytes of the file that a plan stands for.
pub fn weigh(job: &Job<'_>, quantizer: &Quantizer, plan: &Plan) -> Result<u64, Error> {
    let message = quantizer.apply(job.model, plan)?;
    Ok(message.encoded_len() as u64)
}

/// What widths take.
pub struct Scale {
    /// Bytes of the file without the table's weights.
    base: u64,
    /// Bytes with every site as narrow as may be.
    pub least: u64,
}

impl Scale {
    /// Weighs the file with every site at its smallest.
    pub fn new(job: &Job<'_>, table: &Table) -> Result<Scale, Error> {
        let smallest = smallest(job, table);
        let mut quantizer = job.quantizer.clone();
        quantizer.budget = None;
        let least = weigh(job, &quantizer, &hollow(job, table, &smallest))?;
        let rows = table.rows.iter().zip(&smallest);
        let weights: u64 = rows.map(|(row, &width)| stored(job, row, width)).sum();
        Ok(Scale {
            base: least.saturating_sub(weights),
            least,
        })
    }

    /// The choice with the least predicted error in about `limit` bytes.
    fn allocate(&self, job: &Job<'_>, table: &Table, limit: u64) -> Result<Allocation, Error> {
        let candidates = table.candidates(|row, width| stored(job, row, width));
        let Some(room) = limit.checked_sub(self.base) else {
            return Err(too_small(job, table)?);
        };
        match allocate(&candidates, room) {
            Ok(allocation) => Ok(allocation),
            Err(_) => Err(too_small(job, table)?),
        }
    }

    /// A limit that `excess` bytes less than this choice keep.
    fn below(&self, allocation: &Allocation, excess: u64) -> u64 {
        (self.base + allocation.cost).saturating_sub(excess)
    }

    /// Bytes, about, with the least predicted error of all.
    pub fn most(&self, job: &Job<'_>, table: &Table) -> u64 {
        let largest = table.rows.iter().map(|row| {
            let costs = row.widths.iter().map(|(width, _)| stored(job, row, *width));
            costs.max().unwrap_or(0)
        });
        self.base + largest.sum::<u64>()
    }
}

fn smallest(job: &Job<'_>, table: &Table) -> Vec<Width> {
    let rows = table.rows.iter().filter_map(|row| {
        let widths = row.widths.iter().map(|(width, _)| *width);
        widths.min_by_key(|&width| stored(job, row, width))
    });
    rows.collect()
}

fn too_small(job: &Job<'_>, table: &Table) -> Result<Error, Error> {
    let mut quantizer = job.quantizer.clone();
    quantizer.budget = None;
    let smallest = smallest(job, table);
    let least = weigh(job, &quantizer, &hollow(job, table, &smallest))?;
    let narrowest = smallest
        .iter()
        .map(|width| match width {
            Width::Float => 32,
            Width::Bits(weights, _) => *weights,
        })
        .min();
    Ok(BudgetError::Size {
        budget: job.budget,
        narrowest: format!("{}-bit weights", narrowest.unwrap_or(32)),
        least,
        float: float_bytes(job)?,
    }
    .into())
}

/// Bytes that a site's weight and bias take; of names and nodes only what differs between packed and plain weights.
fn stored(job: &Job<'_>, row: &Row, width: Width) -> u64 {
    /// Operators, and in a dozen places a name beside the site's own.
    const UNPACKING: u64 = 250;
    let site = &job.written.structure().sites[row.site];
    let Some(parameters) = &site.parameters else {
        return 0;
    };
    let (k, out) = (parameters.inputs as u64, parameters.outputs as u64);
    match width {
        Width::Float => 4 * out * (k + 1),
        Width::Bits(bits, _) => {
            let a_byte = job.quantizer.target.codes_a_byte(bits) as u64;
            if let Some(block) = job.quantizer.settings.block(site) {
                // INT4 is the narrowest type.
                let codes = (out * k).div_ceil(a_byte.min(2));
                // Scales of the weight, and the bias.
                return codes + 4 * out * (k.div_ceil(block as u64) + 1);
            }
            // A scale and a zero point of the weight, a code and a scale of the bias.
            let rows = 13 * out;
            let unpacking = match a_byte {
                1 => 0,
                _ => {
                    let table = a_byte * (1u64 << bits).pow(a_byte as u32);
                    table + UNPACKING + 12 * site.name.len() as u64
                }
            };
            (out * k).div_ceil(a_byte) + rows + unpacking
        }
    }
}

/// A plan that takes as much room as one with these widths, all numbers zero.
fn hollow(job: &Job<'_>, table: &Table, widths: &[Width]) -> Plan {
    let sites = &job.written.structure().sites;
    let chosen = table.rows.iter().zip(widths).filter_map(|(row, width)| {
        let &Width::Bits(weights, activations) = width else {
            return None;
        };
        let site = &sites[row.site];
        linear(job, site, (weights, activations), row.scaled).map(|plan| SitePlan {
            site: site.name.clone(),
            decision: Decision::Linear(plan),
        })
    });
    let chosen: Vec<SitePlan> = chosen.collect();
    let products = table.sites.iter().filter_map(|measured| {
        let site = &sites[measured.site];
        let (_, bits) = measured.errors.first()?.bits;
        let operand = activation(job, bits);
        site.second.is_some().then(|| SitePlan {
            site: site.name.clone(),
            decision: Decision::Product {
                left: operand.clone(),
                right: operand,
            },
        })
    });
    let products: Vec<SitePlan> = products.collect();
    let mut quantizer = job.quantizer.clone();
    quantizer.settings.widths = Some(Widths::default());
    let mut settings = quantizer.described(quantizer.samples);
    settings.insert(BUDGET.into(), job.budget.to_string());
    Plan {
        version: VERSION,
        rotation: job.quantizer.rotation(job.model),
        sites: [chosen, products].concat(),
        settings,
        ..Plan::default()
    }
}

fn linear(
    job: &Job<'_>,
    site: &Site,
    (weights, activations): (u32, u32),
    scaled: bool,
) -> Option<LinearPlan> {
    let parameters = site.parameters.as_ref()?;
    let (k, out) = (parameters.inputs, parameters.outputs);
    let levels = 1i32 << weights.min(7);
    // With gaps between, so that no two sites share a table: at the end few do.
    let table = (-levels / 2..levels / 2).map(|level| (2 * level) as i8);
    let block = job.quantizer.settings.block(site);
    let scales = block.map_or(1, |block| k.div_ceil(block));
    let packs = block.is_none() && job.quantizer.target.codes_a_byte(weights) > 1;
    Some(LinearPlan {
        activation: activation(job, activations),
        pre_scale: scaled.then(|| vec![1.0; k]),
        weight: Weight {
            bits: weights,
            out,
            codes: vec![0; out * k],
            block,
            scale: vec![1.0; out * scales],
            zero_point: Vec::new(),
            table: packs.then(|| table.collect()),
        },
        bias: vec![0.0; out],
        low_rank: None,
    })
}

fn activation(job: &Job<'_>, bits: u32) -> Activation {
    if bits == FLOAT_BITS {
        return Activation::Float;
    }
    if job.quantizer.settings.target_codes == target::Codes::Symmetric {
        return around_zero(1.0, bits);
    }
    if job.quantizer.settings.codes.codebook(bits) {
        // As many segments as there can be, with steps of the usual size.
        let segments = [(4, -16, -8), (1, -8, 0), (2, 0, 8), (4, 8, 16)];
        let segment = |(step, from, to)| Segment { step, from, to };
        return Activation::Codebook {
            scale: 1.0,
            segments: segments.map(segment).to_vec(),
        };
    }
    Activation::Uniform {
        bits,
        scale: 1.0,
        zero_point: 0,
    }
}
