//! What became of the sites.

use std::collections::BTreeMap;

use serde::Serialize;
use vitq_passes::plan::Decision;
use vitq_passes::structure::{Declined, SiteKind};

use crate::budget::Kept;
use crate::calibrate::{Outcome, SiteReport};
use crate::model::FloatModel;

/// Sites counted and one by one.
#[derive(Clone, Debug, Serialize)]
pub struct SitesReport {
    /// Counts.
    pub summary: Summary,
    /// Every site in the graph's order.
    pub sites: Vec<SiteReport>,
    /// Candidates that are no sites, each with the reason.
    pub declined: Vec<Declined>,
    /// The budget that the widths were chosen for; `null` where none was given.
    pub budget: Option<Kept>,
}

/// Sites counted.
#[derive(Clone, Debug, Serialize)]
pub struct Summary {
    /// Linears in the model, the head among them.
    pub linears: usize,
    /// How many of them stayed float.
    pub left_float: usize,
    /// Sites by what was emitted for them.
    pub forms: BTreeMap<String, usize>,
    /// Every site that stayed float, those out of scope among them.
    pub float_sites: Vec<LeftFloat>,
    /// LayerNormalizations that a fold changed.
    pub folded_norms: usize,
    /// The low-rank branches; `null` where there is none.
    pub low_rank: Option<LowRankSummary>,
}

/// All low-rank branches together.
#[derive(Clone, Debug, Serialize)]
pub struct LowRankSummary {
    /// How many there are.
    pub branches: usize,
    /// The lowest rank.
    pub least: usize,
    /// The highest rank.
    pub most: usize,
    /// Multiply-accumulates of the branches for each of all Linears' of one token, percent.
    pub macs: f64,
    /// Median of what they take off the energy of the rounding error of their weight at its output, dB.
    pub gain_db: f64,
}

impl LowRankSummary {
    fn new(model: &FloatModel, outcome: &Outcome) -> Option<Self> {
        let sites = model.structure.sites.iter();
        let linears = sites.filter(|site| site.kind == SiteKind::Linear);
        let (mut all, mut added) = (0.0, 0.0);
        let mut branches = Vec::new();
        for site in linears {
            let macs = site
                .parameters
                .as_ref()
                .map_or(0, |it| it.inputs * it.outputs) as f64;
            all += macs;
            let report = outcome.sites.iter().find(|it| it.site == site.name);
            if let Some(branch) = report.and_then(|it| it.low_rank) {
                added += branch.macs * macs;
                branches.push(branch);
            }
        }
        branches.sort_by(|a, b| a.gain_db.total_cmp(&b.gain_db));
        let ranks = || branches.iter().map(|it| it.rank);
        Some(Self {
            branches: branches.len(),
            least: ranks().min()?,
            most: ranks().max()?,
            macs: added / all,
            gain_db: branches.get(branches.len() / 2)?.gain_db,
        })
    }
}

/// A site that stayed float.
#[derive(Clone, Debug, Serialize)]
pub struct LeftFloat {
    /// Its path.
    pub path: String,
    /// Why.
    pub reason: String,
}

impl SitesReport {
    /// What calibration decided for a model.
    pub fn new(model: &FloatModel, outcome: &Outcome) -> Self {
        let mut summary = Summary {
            linears: model.linears(),
            left_float: 0,
            forms: BTreeMap::new(),
            float_sites: Vec::new(),
            folded_norms: outcome.plan.norms.len(),
            low_rank: LowRankSummary::new(model, outcome),
        };
        for report in &outcome.sites {
            *summary.forms.entry(report.form.clone()).or_default() += 1;
        }
        for site in &model.structure.sites {
            let reason = match outcome.plan.site(&site.name).map(|it| &it.decision) {
                None => "the plan does not name it",
                Some(Decision::Float { reason, .. }) => reason,
                Some(_) => continue,
            };
            summary.left_float += usize::from(site.kind == SiteKind::Linear);
            summary.float_sites.push(LeftFloat {
                path: site.path.clone(),
                reason: reason.into(),
            });
        }
        Self {
            summary,
            sites: outcome.sites.clone(),
            declined: model.structure.declined.clone(),
            budget: outcome.budget.clone(),
        }
    }
}
