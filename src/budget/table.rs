//! The sites that a budget chooses for, each with the widths that it may have.

use vitq_passes::structure::{Site, SiteKind};

use super::allocate::{Allocation, Candidate};
use super::{Job, Kept, db};
use crate::batches::Batches;
use crate::calibrate::candidates::{SiteCandidates, measure};
use crate::calibrate::{Scope, Width, Widths};
use crate::error::Error;

/// Widths of stored weights that differ in size: the emitter packs codebooks of at most 4 bits into 4.
const STORED: [u32; 2] = [8, 4];

/// Sites and their widths.
pub struct Table {
    /// Those with something to choose.
    pub rows: Vec<Row>,
    /// Every site's measurement, in the graph's order.
    pub sites: Vec<SiteCandidates>,
    /// Error that no choice changes: of sites whose widths are given.
    pub fixed: f64,
}

/// A site with something to choose.
pub struct Row {
    /// Index in the structure.
    pub site: usize,
    /// What it may become, and the error that comes of it.
    pub widths: Vec<(Width, f64)>,
    /// Whether its input gets a scale per channel.
    pub scaled: bool,
}

impl Table {
    /// For budgets of bytes: stored widths from the settings' weights on; the patch embedding even where only Linears are in
    /// scope, as its weights take room too; float where that was an option.
    pub fn of_sizes(job: &Job<'_>) -> Result<Table, Error> {
        let settings = &job.quantizer.settings;
        let four = settings.block.is_some() || settings.codes.codebook(4);
        let packs = four && job.quantizer.target.folds_codes;
        let widths: Vec<u32> = STORED
            .into_iter()
            .filter(|&bits| bits == 8 || (bits >= settings.weight_bits && packs))
            .collect();
        let outside =
            |site: &Site| site.kind == SiteKind::PatchEmbed && settings.scope == Scope::Linear;
        let kept = |site: &Site| settings.keeps_float(site);
        let eligible =
            |site: &Site| !kept(site) && (outside(site) || settings.float_reason(site).is_none());
        Table::new(job, &widths, eligible, |site, measured| {
            measured.spoils || outside(site)
        })
    }

    /// For budgets of time: the settings' widths, or float.
    pub fn of_speeds(job: &Job<'_>) -> Result<Table, Error> {
        let settings = &job.quantizer.settings;
        let eligible = |site: &Site| settings.float_reason(site).is_none();
        Table::new(job, &[settings.weight_bits], eligible, |_, _| true)
    }

    fn new(
        job: &Job<'_>,
        widths: &[u32],
        eligible: impl Fn(&Site) -> bool,
        may_be_float: impl Fn(&Site, &SiteCandidates) -> bool,
    ) -> Result<Table, Error> {
        let Job {
            quantizer, model, ..
        } = job;
        let feeds = Batches::new(job.calibration, 0..quantizer.samples, model.batch());
        let sites = measure(
            (job.written.graph(), job.written.structure(), &feeds),
            &quantizer.settings,
            widths,
            job.progress,
            eligible,
        )?;
        let mut table = Table {
            rows: Vec::new(),
            sites: Vec::new(),
            fixed: 0.0,
        };
        for measured in &sites {
            let site = &job.written.structure().sites[measured.site];
            if site.parameters.is_none() {
                table.fixed += measured.errors.iter().map(|it| it.activation).sum::<f64>();
                continue;
            }
            if measured.errors.is_empty() {
                continue;
            }
            let float = may_be_float(site, measured).then_some((Width::Float, 0.0));
            let quantised = measured.errors.iter().map(|it| {
                let (weights, activations) = it.bits;
                (Width::Bits(weights, activations), it.weight + it.activation)
            });
            table.rows.push(Row {
                site: measured.site,
                widths: quantised.chain(float).collect(),
                scaled: measured.scaled,
            });
        }
        table.sites = sites;
        Ok(table)
    }

    /// Candidates whose cost is given by site and width.
    pub fn candidates(&self, cost: impl Fn(&Row, Width) -> u64) -> Vec<Vec<Candidate>> {
        let rows = self.rows.iter().map(|row| {
            let widths = row.widths.iter().map(|&(width, error)| Candidate {
                cost: cost(row, width),
                error,
            });
            widths.collect()
        });
        rows.collect()
    }

    /// What was picked.
    pub fn picked(&self, picks: &[usize]) -> Vec<Width> {
        let pairs = self.rows.iter().zip(picks);
        pairs
            .filter_map(|(row, &pick)| row.widths.get(pick).map(|(width, _)| *width))
            .collect()
    }

    /// The same for calibration.
    pub fn widths(&self, job: &Job<'_>, picks: &[usize]) -> Widths {
        let sites = &job.written.structure().sites;
        let names = self.rows.iter().map(|row| sites[row.site].name.clone());
        names.zip(self.picked(picks)).collect()
    }

    /// Predicted signal to error at the outputs, dB.
    pub fn predicted_db(&self, error: f64) -> f64 {
        db(error + self.fixed)
    }

    /// What an allocation comes to.
    pub fn kept(&self, job: &Job<'_>, allocation: &Allocation, bytes: u64) -> Kept {
        let mut kept = Kept {
            budget: job.budget.to_string(),
            widths: Default::default(),
            bytes,
            predicted_sqnr_db: self.predicted_db(allocation.error),
            bound_sqnr_db: self.predicted_db(allocation.bound),
            predicted_speedup: None,
            trials: Vec::new(),
            held_out: None,
        };
        for width in self.picked(&allocation.picks) {
            *kept.widths.entry(width.to_string()).or_default() += 1;
        }
        kept
    }
}
