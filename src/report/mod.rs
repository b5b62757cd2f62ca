//! What a quantisation did and what it cost, for people ([`Report`]'s `Display`) and for pipelines (JSON).
//!
//! The JSON is the [`Report`] field by field; `version` counts its form. A field is only ever added within a version.

mod course;
mod expected;
mod plot;
mod reconstruction;
mod sensitivity;
mod sites;
pub(crate) mod text;
mod variation;
mod variation_plot;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::bench::Benchmark;
use crate::error::Error;
use crate::output;
use crate::verify::Verification;
pub use course::{Check, Course};
pub use reconstruction::{BlockReport, Reconstruction};
pub use sensitivity::{Group, SensitivityReport};
pub use sites::{LeftFloat, SitesReport, Summary};
pub use variation::VariationReport;

/// Version of the JSON form.
pub const VERSION: u32 = 1;

/// One quantisation.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`VERSION`]
    pub version: u32,
    /// Version of the program.
    pub vitq: &'static str,
    /// The float model.
    pub model: FileReport,
    /// Element types of the float model that were widened to float32: `float16`, `bfloat16`.
    pub widened: Vec<String>,
    /// The quantised model.
    pub output: FileReport,
    /// The runtime that it was written for.
    pub target: &'static str,
    /// What was asked for.
    pub settings: BTreeMap<String, String>,
    /// The samples that were calibrated on and how they were prepared.
    pub calibration: String,
    /// How learning block by block went; `null` where no block learned.
    pub reconstructed: Option<Reconstruction>,
    /// How learning from end to end went; `null` where nothing was learned.
    pub learned: Option<Course>,
    /// Wall time from reading the float model to the finished graph; verification counts its own.
    pub seconds: f64,
    /// What became of the sites: the fields `summary`, `sites` and `declined`.
    #[serde(flatten)]
    pub sites: SitesReport,
    /// How the two models compare; `null` where there were no samples to compare them on.
    pub verification: Option<Verification>,
    /// Both models timed on this machine; `null` where it was not asked for.
    pub bench: Option<Benchmark>,
}

/// A model file.
#[derive(Clone, Debug, Serialize)]
pub struct FileReport {
    /// Where it lies, as it was named.
    pub path: PathBuf,
    /// Its size. Data files beside the model count too.
    pub bytes: u64,
}

impl FileReport {
    /// Measures a model file and the data file that may lie beside it.
    ///
    /// # Errors
    /// The file is gone.
    pub fn of(path: &Path) -> Result<Self, Error> {
        let size = |path: &Path| fs::metadata(path).map(|it| it.len());
        let bytes = size(path).map_err(|source| Error::Write {
            path: path.into(),
            source,
        })?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".data");
        Ok(Self {
            path: path.into(),
            bytes: bytes + size(Path::new(&beside)).unwrap_or(0),
        })
    }
}

impl Report {
    /// Writes the JSON, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        output::write_json(path, self)
    }
}
