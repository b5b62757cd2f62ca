//! What each site costs, for people and for programs.

use std::fmt::{self, Display, Formatter};
use std::path::Path;

use serde::Serialize;

use super::FileReport;
use super::plot;
use crate::calibrate::Scope;
use crate::calibrate::sensitivity::{Cost, Sensitivity, SiteCost};
use crate::error::Error;
use crate::output;

/// Version of the JSON form.
const VERSION: u32 = 1;

/// Sites that are marked at each width as the ones that cost most.
const WORST: usize = 10;

/// Every site's cost, and sums over parts of the model. The JSON is this, field by field; within a `version` fields are
/// only added.
#[derive(Clone, Debug, Serialize)]
pub struct SensitivityReport {
    /// 1
    pub version: u32,
    /// Version of the program.
    pub vitq: &'static str,
    /// The float model.
    pub model: FileReport,
    /// The samples that were calibrated on and how they were prepared.
    pub calibration: String,
    /// How many of them, the first ones, the outputs were compared on.
    pub inputs: usize,
    /// `linear` or `all`
    pub scope: String,
    /// Widths measured at.
    pub widths: Vec<u32>,
    /// Sites in the graph's order; `costs` in the order of `widths`.
    pub sites: Vec<SiteCost>,
    /// Sites with the same role together.
    pub roles: Vec<Group>,
    /// Sites of the same block together, the ones outside all blocks by their role.
    pub blocks: Vec<Group>,
    /// All sites together.
    pub total: Group,
}

/// Several sites together.
#[derive(Clone, Debug, Serialize)]
pub struct Group {
    /// What they have in common.
    pub name: String,
    /// How many there are.
    pub sites: usize,
    /// Elements of their weights and biases.
    pub parameters: usize,
    /// Energies of the errors of the sites' `both_db` added, dB, one a width: what quantising all of them would cost if
    /// their errors were independent.
    pub both_db: Vec<f64>,
}

impl SensitivityReport {
    /// What was measured on the model at `model`.
    ///
    /// # Errors
    /// The model's file is gone.
    pub fn new(
        model: &Path,
        calibration: String,
        (scope, widths): (Scope, Vec<u32>),
        measured: Sensitivity,
    ) -> Result<Self, Error> {
        let sites = measured.sites;
        Ok(Self {
            version: VERSION,
            vitq: env!("CARGO_PKG_VERSION"),
            model: FileReport::of(model)?,
            calibration,
            inputs: measured.inputs,
            scope: format!("{scope:?}").to_lowercase(),
            roles: groups(&sites, |site| site.role),
            blocks: groups(&sites, |site| site.block.as_deref().unwrap_or(site.role)),
            total: Group::new("all sites", &sites.iter().collect::<Vec<_>>()),
            widths,
            sites,
        })
    }

    /// Writes the JSON, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<(), Error> {
        output::write_json(path, self)
    }

    /// Writes an SVG with all sites at all widths, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_plot(&self, path: &Path) -> Result<(), Error> {
        output::write_svg(path, plot::svg(self))
    }

    /// For each width the dB up to which a site is one of the worst.
    fn worst(&self) -> Vec<f64> {
        let worst = |i: usize| {
            let mut figures: Vec<f64> = self.sites.iter().map(|it| it.costs[i].both_db).collect();
            figures.sort_by(f64::total_cmp);
            figures.get(WORST - 1).copied().unwrap_or(f64::INFINITY)
        };
        (0..self.widths.len()).map(worst).collect()
    }

    /// Columns that the longest of all names needs.
    fn name_width(&self) -> usize {
        let paths = self.sites.iter().map(|site| site.path.len());
        let groups = self.roles.iter().chain(&self.blocks);
        paths
            .chain(groups.map(|group| group.name.len()))
            .chain([self.total.name.len()])
            .max()
            .unwrap_or(0)
    }
}

impl Group {
    fn new(name: &str, sites: &[&SiteCost]) -> Self {
        let widths = sites.first().map_or(0, |site| site.costs.len());
        let energy = |i: usize| {
            sites
                .iter()
                .map(move |it| 10f64.powf(-it.costs[i].both_db / 10.0))
        };
        Self {
            name: name.into(),
            sites: sites.len(),
            parameters: sites.iter().map(|site| site.parameters).sum(),
            both_db: (0..widths)
                .map(|i| -10.0 * energy(i).sum::<f64>().log10())
                .collect(),
        }
    }
}

/// Sites of one name together, in the order in which the names first appear.
fn groups<'a>(sites: &'a [SiteCost], name: impl Fn(&'a SiteCost) -> &'a str) -> Vec<Group> {
    let mut groups: Vec<(&str, Vec<&SiteCost>)> = Vec::new();
    for site in sites {
        let name = name(site);
        match groups.iter_mut().find(|(known, _)| *known == name) {
            Some((_, members)) => members.push(site),
            None => groups.push((name, vec![site])),
        }
    }
    groups
        .iter()
        .map(|(name, members)| Group::new(name, members))
        .collect()
}

impl Display for SensitivityReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let names = self.name_width();
        writeln!(
            f,
            "{}: each site quantised alone, all else float; signal to error at the outputs in dB: the lower, the dearer",
            self.model.path.display()
        )?;
        write!(f, "{:names$} {:<11} {:>10}", "site", "role", "parameters")?;
        for bits in &self.widths {
            let (weights, activation) = (format!("w{bits}"), format!("a{bits}"));
            let both = together(*bits);
            write!(f, "  {weights:>6} {activation:>6} {both:>6} ")?;
        }
        writeln!(f)?;
        let worst = self.worst();
        for site in &self.sites {
            let (path, role, parameters) = (&site.path, site.role, site.parameters);
            write!(f, "{path:names$} {role:<11} {parameters:>10}")?;
            for (cost, worst) in site.costs.iter().zip(&worst) {
                write!(f, "  {}", Figures(cost, cost.both_db <= *worst))?;
            }
            writeln!(f)?;
        }
        writeln!(f, "* one of the {WORST} sites that cost most at this width")?;
        if self.narrower_than_emitted() {
            writeln!(f, "the patch embedding's input keeps 8 bits at every width")?;
        }
        self.write_groups(f, names)?;
        writeln!(
            f,
            "calibrated on {}; outputs compared on the first {}",
            self.calibration, self.inputs
        )
    }
}

impl SensitivityReport {
    fn narrower_than_emitted(&self) -> bool {
        let mut costs = self.sites.iter().flat_map(|site| &site.costs);
        costs.any(|cost| cost.activation_bits != cost.bits)
    }

    fn write_groups(&self, f: &mut Formatter<'_>, names: usize) -> fmt::Result {
        writeln!(
            f,
            "together, as far as the sites' errors are independent (their energies added):"
        )?;
        write!(f, "{:names$} {:<11} {:>10}", "", "sites", "parameters")?;
        for bits in &self.widths {
            write!(f, "  {:>6}", together(*bits))?;
        }
        writeln!(f)?;
        // What stands outside all blocks is a role of its own.
        let blocks = self.blocks.iter();
        let blocks = blocks.filter(|it| self.roles.iter().all(|role| role.name != it.name));
        let groups = self.roles.iter().chain(blocks).chain([&self.total]);
        for group in groups {
            let (name, sites, parameters) = (&group.name, group.sites, group.parameters);
            write!(f, "{name:names$} {sites:<11} {parameters:>10}")?;
            for db in &group.both_db {
                write!(f, "  {db:>6.1}")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// `w4a4`
pub fn together(bits: u32) -> String {
    format!("w{bits}a{bits}")
}

/// A site at one width, and whether it is marked.
struct Figures<'a>(&'a Cost, bool);

impl Display for Figures<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Figures(cost, marked) = self;
        match cost.weight_db {
            Some(db) => write!(f, "{db:>6.1}")?,
            None => write!(f, "{:>6}", "-")?,
        }
        let mark = if *marked { "*" } else { " " };
        write!(
            f,
            " {:>6.1} {:>6.1}{mark}",
            cost.activation_db, cost.both_db
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site(path: &str, role: &'static str, both_db: f64) -> SiteCost {
        let cost = Cost {
            bits: 8,
            activation_bits: 8,
            weight_db: Some(both_db),
            activation_db: both_db,
            both_db,
        };
        SiteCost {
            site: path.into(),
            path: path.into(),
            role,
            block: None,
            parameters: 5,
            costs: vec![cost],
        }
    }

    #[test]
    fn two_errors_of_one_energy_are_3_db_worse_than_one() {
        let sites = [
            site("a", "fc1", 30.0),
            site("b", "fc2", 10.0),
            site("c", "fc1", 30.0),
        ];
        let groups = groups(&sites, |site| site.role);
        assert_eq!(groups.len(), 2);
        let fc1 = &groups[0];
        assert_eq!(
            (fc1.name.as_str(), fc1.sites, fc1.parameters),
            ("fc1", 2, 10)
        );
        let expected = 30.0 - 10.0 * 2f64.log10();
        assert!((fc1.both_db[0] - expected).abs() < 1e-9, "{fc1:?}");
    }
}
