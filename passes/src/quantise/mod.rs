//! The plan's quantisers written into the graph, as standard operators: one file a form.

mod bias;
mod codebook;
mod error;
mod integer;
mod linear;
mod log;
mod low_rank;
mod operand;
mod opset;
mod product;
mod report;
mod uniform;
mod units;
mod weight;

pub use codebook::fits;
pub use error::ApplyError;
pub use report::{Form, Report, SiteReport};
pub use uniform::affine;
pub use units::{WIDEST, values};

use crate::check::debug_check;
use crate::ir::Graph;
use crate::lower::{choose_early, fuse_attentions, fuse_gelus, to_gemm};
use crate::plan::{Activation, Decision, Plan, SitePlan, VERSION};
use crate::structure::{Site, Structure};
use crate::target::{LinearForm, Target, Values, check_blocks, check_codes, check_ranges};
use crate::transform::{TransformError, apply_norm, replace_linear};

use operand::Operands;

/// Key of the emitted model's metadata that holds the seed of [`Plan::rotation`]; names with the ending
/// [`crate::transform::ROTATED`] tell what is rotated.
pub const ROTATION: &str = "vitq.rotation";

/// Writes `plan` into `graph`, whose `structure` was recognised on this very graph.
///
/// Sites that the plan does not name stay as they are. Graph inputs and outputs keep their names and types, and a site's
/// result keeps its name, so that both models can be compared layer by layer. On an error the graph is left
/// half rewritten: apply plans to a copy.
pub fn apply(
    graph: &mut Graph,
    structure: &Structure,
    plan: &Plan,
    target: &Target,
) -> Result<Report, ApplyError> {
    check_ranges(plan, target)?;
    let mut report = apply_to_sites(graph, structure, plan, target)?;
    if target.values == Values::All {
        let units = units::emit(graph, &plan.values, target);
        (report.units, report.declined) = (units.made, units.declined);
        graph.remove_dead();
        debug_check(graph, "units");
    }
    Ok(report)
}

/// As [`apply`], but for what targets want quantised between sites: [`values`] of this graph are those whose ranges they need.
///
/// # Errors
/// As of [`apply`].
pub fn apply_to_sites(
    graph: &mut Graph,
    structure: &Structure,
    plan: &Plan,
    target: &Target,
) -> Result<Report, ApplyError> {
    check_form(structure, plan)?;
    check_codes(plan, target)?;
    check_blocks(plan, target)?;
    opset::raise(graph, plan, target)?;
    target.check(graph)?;
    fold_norms(graph, structure, plan)?;
    let mut operands = Operands::new(graph, *target);
    let mut sites = Vec::new();
    for site in &structure.sites {
        if let Some(decided) = plan.site(&site.name) {
            sites.push(emit(&mut operands, site, &decided.decision)?);
        }
    }
    let quantisers = operands.written();
    graph.remove_dead();
    match target.values {
        Values::Read => _ = choose_early(graph),
        // A choice of tokens would stand among codes, where it is no unit.
        Values::All => _ = fuse_gelus(graph),
    }
    if target.attention {
        fuse_attentions(graph);
    }
    if target.linear == LinearForm::Gemm {
        to_gemm(graph);
    }
    graph.remove_dead();
    describe(graph, plan);
    debug_check(graph, "quantise");
    Ok(Report {
        norms: plan.norms.len(),
        sites,
        quantisers,
        opset: graph.opset(),
        units: 0,
        declined: Vec::new(),
    })
}

/// Writes the folded affine parameters of `plan` into the norms of `graph`, and nothing else.
///
/// # Errors
/// The plan names a norm that the structure lacks, or whose parameters cannot be changed.
pub fn fold_norms(graph: &mut Graph, structure: &Structure, plan: &Plan) -> Result<(), ApplyError> {
    for norm in &plan.norms {
        let index = structure.norms.iter().position(|n| n.name == norm.norm);
        let index = index.ok_or_else(|| ApplyError::UnknownNorm(norm.norm.clone()))?;
        apply_norm(graph, structure, index, &norm.gamma, &norm.beta)?;
    }
    Ok(())
}

fn emit(
    operands: &mut Operands<'_>,
    site: &Site,
    decision: &Decision,
) -> Result<SiteReport, TransformError> {
    match decision {
        Decision::Float { replace, .. } => {
            if let Some((weight, bias)) = replace {
                replace_linear(operands.graph, site, weight, bias)?;
            }
            Ok(SiteReport {
                site: site.name.clone(),
                form: Form::Float,
                raised_scales: 0,
            })
        }
        Decision::Linear(plan) => linear::emit(operands, site, plan),
        Decision::Product { left, right } => product::emit(operands, site, left, right),
    }
}

/// The largest uint8 code that a product of integers reads of an activation; `None` where it reads others, or floats.
pub fn highest_code(activation: &Activation) -> Option<i32> {
    match activation {
        Activation::Uniform { bits, .. } => (*bits <= 8).then(|| (1 << bits) - 1),
        Activation::Codebook { segments, .. } => {
            let most = codebook::highest_code(segments);
            most.and_then(|most| i32::try_from(most).ok())
        }
        Activation::Float | Activation::Log { .. } => None,
    }
}

/// Refuses plans in another form or for another model before anything is changed.
fn check_form(structure: &Structure, plan: &Plan) -> Result<(), ApplyError> {
    if plan.version != VERSION {
        return Err(ApplyError::Version {
            found: plan.version,
            expected: VERSION,
        });
    }
    let known = |s: &&SitePlan| structure.sites.iter().any(|site| site.name == s.site);
    match plan.sites.iter().find(|s| !known(s)) {
        None => Ok(()),
        Some(unknown) => Err(ApplyError::UnknownSite(unknown.site.clone())),
    }
}

/// Says in the model's metadata what was done to it.
fn describe(graph: &mut Graph, plan: &Plan) {
    if let Some(rotation) = plan.rotation {
        graph.set_metadata(ROTATION, &rotation.seed.to_string());
    }
    graph.set_metadata("vitq.version", env!("CARGO_PKG_VERSION"));
    let settings: serde_json::Map<_, _> = plan
        .settings
        .iter()
        .map(|(key, value)| (key.clone(), value.clone().into()))
        .collect();
    graph.set_metadata(
        "vitq.settings",
        &serde_json::Value::Object(settings).to_string(),
    );
}
