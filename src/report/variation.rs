//! What makes a model hard to quantise, for people and for programs.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use serde::Serialize;

use super::{FileReport, variation_plot};
use crate::calibrate::variation::{Outliers, SiteVariation, Variation};
use crate::error::Error;
use crate::output;

/// Version of the JSON form.
const VERSION: u32 = 1;

/// Sites that are named for each kind of variation.
const NAMED: usize = 5;

/// Sensitivity and outliers of all sites. The JSON is this, field by field; within a `version` fields are only added.
#[derive(Clone, Debug, Serialize)]
pub struct VariationReport {
    /// 1
    pub version: u32,
    /// Version of the program.
    pub vitq: &'static str,
    /// The float model.
    pub model: FileReport,
    /// The samples that were looked at and how they were prepared.
    pub calibration: String,
    /// How many of them, the first ones, the outputs were compared on.
    pub inputs: usize,
    /// Width that each site was quantised to alone.
    pub bits: u32,
    /// In the graph's order.
    pub sites: Vec<SiteVariation>,
}

impl VariationReport {
    /// What was measured on the model at `model`.
    ///
    /// # Errors
    /// The model's file is gone.
    pub fn new(
        model: &Path,
        calibration: String,
        bits: u32,
        measured: Variation,
    ) -> Result<Self, Error> {
        Ok(Self {
            version: VERSION,
            vitq: env!("CARGO_PKG_VERSION"),
            model: FileReport::of(model)?,
            calibration,
            inputs: measured.inputs,
            bits,
            sites: measured.sites,
        })
    }

    /// Writes the JSON, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        output::write_json(path, self)
    }

    /// Writes an SVG with all sites, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_plot(&self, path: &Path) -> Result<(), Error> {
        output::write_svg(path, variation_plot::svg(self))
    }

    /// The sites that come first by a figure, the highest first.
    fn first(&self, figure: impl Fn(&SiteVariation) -> Option<f64>) -> String {
        let sites = self.sites.iter();
        let figures = sites.filter_map(|site| Some((figure(site)?, site.cost.path.as_str())));
        let mut figures: Vec<(f64, &str)> = figures.collect();
        figures.sort_by(|a, b| b.0.total_cmp(&a.0));
        let named = figures.iter().take(NAMED);
        let named: Vec<String> = named
            .map(|(figure, path)| format!("{path} {:.1}", figure.abs()))
            .collect();
        named.join(", ")
    }
}

/// dB with weights and activation rounded.
pub(super) fn both_db(site: &SiteVariation) -> f64 {
    site.cost
        .costs
        .first()
        .map_or(f64::INFINITY, |it| it.both_db)
}

impl Display for VariationReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = self.sites.iter().map(|it| it.cost.path.len());
        let names = names.max().unwrap_or(0);
        writeln!(
            f,
            "{}: each site alone at {} bits, all else float (dB at the outputs: the lower, the dearer); outliers in standard deviations, and kurtosis (normal: 3)",
            self.model.path.display(),
            self.bits
        )?;
        writeln!(
            f,
            "{:names$} {:>6}  {:>8} {:>8}  {:>10} {:>8} {:>8}  heads alone, dB",
            "site", "dB", "weight", "kurtosis", "activation", "kurtosis", "channel"
        )?;
        for site in &self.sites {
            writeln!(f, "{}", Row(site, names))?;
        }
        writeln!(f, "dearest (dB): {}", self.first(|it| Some(-both_db(it))))?;
        writeln!(
            f,
            "outliers in weights (deviations): {}",
            self.first(|it| it.weight.map(|it| it.most))
        )?;
        writeln!(
            f,
            "outliers in activations (deviations): {}",
            self.first(|it| Some(it.activation.most))
        )?;
        writeln!(
            f,
            "widest channels (times the median one): {}",
            self.first(|it| it.widest_channel)
        )?;
        writeln!(
            f,
            "the third variation, weights that turn back and forth while they learn, is in the course of `vitq train --log`"
        )
    }
}

struct Row<'a>(&'a SiteVariation, usize);

impl Display for Row<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Row(site, names) = self;
        let (path, db) = (&site.cost.path, both_db(site));
        write!(f, "{path:names$} {db:>6.1}  ")?;
        write_outliers(f, site.weight.as_ref(), 8)?;
        write_outliers(f, Some(&site.activation), 10)?;
        match site.widest_channel {
            Some(widest) => write!(f, "{widest:>7.1} ")?,
            None => write!(f, "{:>7} ", "-")?,
        }
        site.heads_db
            .iter()
            .try_for_each(|db| write!(f, " {db:.1}"))
    }
}

fn write_outliers(f: &mut Formatter<'_>, outliers: Option<&Outliers>, width: usize) -> fmt::Result {
    match outliers {
        Some(it) => write!(f, "{:>width$.1} {:>8.1}  ", it.most, it.kurtosis),
        None => write!(f, "{:>width$} {:>8}  ", "-", "-"),
    }
}
