//! What became of the sites.

use std::collections::BTreeMap;

use serde::Serialize;
use vitq_passes::plan::{Activation, Decision, Plan};
use vitq_passes::structure::{Declined, SiteKind};
use vitq_passes::target::Target;

use super::expected::expect;
use crate::budget::Kept;
use crate::calibrate::{Branch, Outcome, SiteReport};
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
    /// What the runtime does with Linears whose weight alone is quantised; `null` where there are none or it needs no word.
    pub weight_only: Option<&'static str>,
    /// Float time / quantised time, as the target's cost model predicts it; `null` where there is none.
    pub expected_speedup: Option<f64>,
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
    /// Multiply-accumulates of the branches, percent of those of all quantised Linears.
    pub macs: f64,
    /// Median of what they take off the energy of the rounding error of their weight at its output, dB.
    pub gain_db: f64,
}

impl LowRankSummary {
    fn new(sites: &[SiteReport]) -> Option<Self> {
        let mut branches: Vec<Branch> = sites.iter().filter_map(|site| site.low_rank).collect();
        branches.sort_by(|a, b| a.gain_db.total_cmp(&b.gain_db));
        let all: u64 = sites.iter().filter_map(|site| site.macs).sum();
        let added: u64 = branches.iter().map(|branch| branch.macs).sum();
        let ranks = || branches.iter().map(|branch| branch.rank);
        Some(Self {
            branches: branches.len(),
            least: ranks().min()?,
            most: ranks().max()?,
            macs: 100.0 * added as f64 / all as f64,
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

fn has_weight_only(plan: &Plan) -> bool {
    plan.sites.iter().any(|site| match &site.decision {
        Decision::Linear(linear) => linear.activation == Activation::Float,
        Decision::Float { .. } | Decision::Product { .. } => false,
    })
}

impl SitesReport {
    /// What calibration decided for a model.
    pub fn new(model: &FloatModel, outcome: &Outcome, target: &Target) -> Self {
        let mut sites = outcome.sites.clone();
        let expected_speedup = expect(&mut sites, &outcome.plan, target);
        let mut summary = Summary {
            linears: model.linears(),
            left_float: 0,
            forms: BTreeMap::new(),
            float_sites: Vec::new(),
            folded_norms: outcome.plan.norms.len(),
            low_rank: LowRankSummary::new(&outcome.sites),
            weight_only: target
                .weight_only_advice
                .filter(|_| has_weight_only(&outcome.plan)),
            expected_speedup,
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
            sites,
            declined: model.structure.declined.clone(),
            budget: outcome.budget.clone(),
        }
    }
}
