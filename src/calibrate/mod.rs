//! Calibration: from a float graph and a few inputs to a [`Plan`].
//!
//! One walk from site to site ([`crate::walk`]). At each site, in this order: the fold of the LayerNormalization it reads,
//! the activation's quantiser, the weight's codes, the bias, the guard. In sequential calibration (below 8 bits) a site
//! sees what the already quantised part of the network produced and aims at the float network's output.

mod bench;
mod branch;
pub mod candidates;
mod fold;
mod fold_choice;
mod guard;
mod linear;
mod migrate;
mod moments;
mod operand;
mod parameters;
mod parts;
mod passing;
mod product;
pub mod ranges;
pub mod ranks;
pub mod sensitivity;
mod solution;
#[cfg(test)]
mod tests;
pub mod variation;
mod widths;

use std::collections::HashMap;
use std::sync::OnceLock;

use rayon::prelude::*;
use serde::Serialize;
use thiserror::Error;
use vitq_passes::ir::Graph;
use vitq_passes::plan::{Decision, NormPlan, Plan, SitePlan, VERSION};
use vitq_passes::structure::{Site, SiteKind, Structure};
use vitq_passes::target;

use crate::budget::Kept;
use crate::input::{Array, InputError};
use crate::quant::FLOAT_BITS;
use crate::report::{Course, Reconstruction};
use crate::run::Runtime;
use crate::walk::{Program, Walk, WalkError, World};

use fold::Fold;
use guard::Guard;
use linear::sqnr;
use migrate::{Carrier, Migration};
pub use parameters::Parameters;
pub use parts::Part;
pub use ranks::Ranks;
pub use widths::{Width, Widths};

/// What is quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Every Linear, the head among them.
    Linear,
    /// Linears, the patch embedding and both attention products.
    All,
}

/// How long to search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Seconds; at 8 bits weights are rounded to nearest.
    Fast,
    /// Weights are solved for at 8 bits too, and sites see the quantised part of the network.
    Balanced,
    /// The balanced search several times over, each with another rotation of the residual streams; the one that comes nearest
    /// to the float outputs stays.
    Best,
}

/// Family of codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// Evenly spaced levels, and log√2 after Softmax.
    Uniform,
    /// 2^bits levels placed freely on the 8-bit grid.
    Codebook,
    /// Codebooks up to 6 bits, uniform above.
    Auto,
}

impl Codes {
    /// Whether `bits` are spent on a codebook.
    pub fn codebook(self, bits: u32) -> bool {
        match self {
            Codes::Uniform => false,
            Codes::Codebook => bits < 8,
            Codes::Auto => bits < 7,
        }
    }
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Settings {
    /// 2..=8
    pub weight_bits: u32,
    /// 2..=8, or [`FLOAT_BITS`]: weights alone are quantised.
    pub activation_bits: u32,
    /// Inputs that share a scale of a Linear's weight, one of [`crate::pipeline::BLOCKS`], where activations stay float; all of an output
    /// channel where absent.
    pub block: Option<usize>,
    /// What is quantised.
    pub scope: Scope,
    /// How long to search.
    pub effort: Effort,
    /// Family of codes.
    pub codes: Codes,
    /// Codes of activations that the target has ([`crate::Quantizer::target`] sets it).
    pub target_codes: target::Codes,
    /// Whether weights are chosen so that two neighbouring products fit into 16 bits ([`crate::Quantizer::target`] sets it).
    pub narrow_sums: bool,
    /// Blocks of weights that it has (so too).
    pub target_blocks: target::Blocks,
    /// Width of the patch embedding and the head, if another one.
    pub edge_bits: Option<u32>,
    /// Widths of single sites; the guard then neither widens a site nor leaves it float.
    pub widths: Option<Widths>,
    /// Low-rank branches beside the rounded weights.
    pub ranks: Ranks,
    /// How their factors are stored: 8 or 32 (float).
    pub branch_bits: u32,
    /// Whether attention weights may have evenly spaced levels over one interval (AIQViT), where no other codes suit them better.
    pub focusing: bool,
    /// Sites (name or path) that stay float.
    pub keep_float: Vec<String>,
    /// Sites by name whose weight alone is quantised.
    pub weight_only: Vec<String>,
    /// Parts of the recipe that are switched off.
    pub without: Vec<Part>,
    /// Seed of what is drawn at random: the rotation of the residual streams.
    pub seed: u64,
    /// What runs the operators between the sites, and the models in verification.
    pub executor: Runtime,
}

impl Default for Settings {
    /// W8A8, Linears only, guarded, in seconds.
    fn default() -> Self {
        Settings {
            weight_bits: 8,
            activation_bits: 8,
            block: None,
            scope: Scope::Linear,
            effort: Effort::Fast,
            codes: Codes::Auto,
            target_codes: target::Codes::Unsigned,
            narrow_sums: true,
            target_blocks: target::Blocks::Any,
            edge_bits: None,
            widths: None,
            ranks: Ranks::None,
            branch_bits: 8,
            focusing: false,
            keep_float: Vec::new(),
            weight_only: Vec::new(),
            without: Vec::new(),
            seed: 0,
            executor: Runtime::Tract,
        }
    }
}

/// Source of calibration inputs: one feed a run of the model.
pub trait Feeds: Sync {
    /// Number of feeds.
    fn len(&self) -> usize;
    /// Whether there is none.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Feed `i`: an array for each input of the model.
    fn feed(&self, i: usize) -> Result<Vec<(String, Array)>, InputError>;
}

/// Who is told how far the work is.
pub trait Progress: Sync {
    /// A stage of `total` steps begins.
    fn stage(&self, name: &str, total: u64);
    /// `n` more steps are done.
    fn advance(&self, n: u64);
}

/// What calibration gives.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// The plan.
    pub plan: Plan,
    /// What was seen at each site.
    pub sites: Vec<SiteReport>,
    /// Signal to error at the model's outputs on the calibration inputs, dB; only where sites saw the quantised part of the
    /// network.
    pub sqnr_db: Option<f64>,
    /// The budget that the widths were chosen for.
    pub budget: Option<Kept>,
    /// How learning behind calibration went, block by block.
    pub reconstructed: Option<Reconstruction>,
    /// How learning behind calibration went, from end to end.
    pub learned: Option<Course>,
}

/// What was seen and done at one site.
#[derive(Clone, Debug, Default, Serialize)]
pub struct SiteReport {
    /// Node name.
    pub site: String,
    /// Path as a person says it.
    pub path: String,
    /// Kind of product.
    pub kind: String,
    /// What was emitted: `w8a8 uniform`, `float` …
    pub form: String,
    /// Quantised alone: signal to error at its own output, dB.
    pub output_sqnr_db: Option<f64>,
    /// Quantised alone: signal to error at the model's outputs, dB.
    pub network_sqnr_db: Option<f64>,
    /// What the guard did, and its price; why there are no blocks where they were asked for.
    pub note: Option<String>,
    /// Multiply-accumulates of a Linear in one run of the model, its branch apart.
    pub macs: Option<u64>,
    /// The low-rank branch beside its rounded weight.
    pub low_rank: Option<Branch>,
    /// What it computes in one run of the model.
    #[serde(skip)]
    pub work: candidates::Work,
    /// What quantising it takes off the float model's time, percent, as the target's cost model predicts it; `null` where it
    /// stays float, or there is no such model.
    pub expected_gain: Option<f64>,
}

impl SiteReport {
    fn of(site: &Site, work: candidates::Work) -> Self {
        Self {
            site: site.name.clone(),
            path: site.path.clone(),
            kind: format!("{:?}", site.kind),
            work,
            ..Self::default()
        }
    }
}

/// What a low-rank branch costs and gives.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Branch {
    /// Rank.
    pub rank: usize,
    /// Its multiply-accumulates in one run of the model.
    pub macs: u64,
    /// By how much less noise of the rounded weight and input reaches the site's output, dB; expected, from the weight's singular values.
    pub gain_db: f64,
}

/// Why calibration failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CalibrateError {
    /// An input cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The float graph cannot be run.
    #[error(transparent)]
    Walk(#[from] WalkError),
    /// The quantised graph cannot be run.
    #[error("the graph with its sites quantised: {0}")]
    Run(#[from] crate::run::RunError),
    /// Nothing to calibrate on.
    #[error("there is no calibration input: give at least one image")]
    NoInputs,
    /// A site's parameters are no plain floats.
    #[error("site {site}: its weight {tensor:?} cannot be read as float32")]
    Parameters {
        /// The site.
        site: String,
        /// The initialiser.
        tensor: String,
    },
    /// What arrives does not fit the weight.
    #[error(
        "site {site}: its input has shape {shape:?}, its weight takes {columns} values a token: the graph's declared shapes disagree, run the ONNX checker on it"
    )]
    Shape {
        /// The site.
        site: String,
        /// Shape of its input.
        shape: Vec<usize>,
        /// Columns of its weight.
        columns: usize,
    },
    /// NaN or infinity arrives at a site.
    #[error(
        "site {site}: NaN or infinite values reach its input in calibration; check the preprocessing, or the float model itself"
    )]
    NotFinite {
        /// The site.
        site: String,
    },
}

/// How much is searched at one site, from effort and widths.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    /// Rows that a site's own error is measured on.
    pub rows: usize,
    /// Whether sites see the quantised network's values.
    pub sequential: bool,
    /// Whether weights are solved for (re-fit, GPTQ, descent) rather than rounded.
    pub solve: bool,
}

impl Settings {
    /// Whether a part is not switched off.
    pub fn has(&self, part: Part) -> bool {
        !self.without.contains(&part)
    }

    fn recipe(&self) -> Recipe {
        let (weight, activation) = self.narrowest();
        let low = weight.min(activation) < 8;
        let rows = match self.effort {
            Effort::Fast => 128,
            Effort::Balanced => 1024,
            Effort::Best => 2048,
        };
        Recipe {
            rows,
            sequential: (low || self.effort != Effort::Fast) && self.has(Part::Sequential),
            solve: low || self.effort != Effort::Fast,
        }
    }

    /// Width of the narrowest weights and of the narrowest activations, the edges apart.
    fn narrowest(&self) -> (u32, u32) {
        let asked = (self.weight_bits, self.activation_bits);
        self.widths.as_ref().map_or(asked, Widths::narrowest)
    }

    /// Widths (weight, activation) at a site.
    pub(crate) fn bits(&self, site: &Site) -> (u32, u32) {
        let (weight, activation) = self.asked(site);
        if self.weight_only.contains(&site.name) {
            return (weight, FLOAT_BITS);
        }
        (weight, activation)
    }

    fn asked(&self, site: &Site) -> (u32, u32) {
        use vitq_passes::structure::Role;
        if let Some(Width::Bits(weight, activation)) = self.width(site) {
            return (weight, activation);
        }
        let edge = matches!(site.role, Role::Head | Role::PatchEmbed);
        let (weight, activation) = match (edge, self.edge_bits) {
            (true, Some(bits)) => (bits, bits),
            _ => (self.weight_bits, self.activation_bits),
        };
        if self.activation_bits == FLOAT_BITS {
            (weight, FLOAT_BITS)
        } else if site.kind == SiteKind::PatchEmbed {
            // The network's input keeps 8 bits, as in RepQ-ViT.
            (weight, 8)
        } else {
            (weight, activation)
        }
    }

    /// Inputs that share a scale of a site's weight; `None` where all of an output channel do.
    pub(crate) fn block(&self, site: &Site) -> Option<usize> {
        let inputs = site.parameters.as_ref()?.inputs;
        self.block.filter(|&block| {
            let cut = inputs > block && self.target_blocks.cut(inputs, block);
            cut && site.kind == SiteKind::Linear
        })
    }

    /// Why a site has no blocks where they are asked for.
    fn no_blocks(&self, site: &Site) -> Option<String> {
        let block = self.block.filter(|_| self.block(site).is_none())?;
        let inputs = site.parameters.as_ref()?.inputs;
        let reason = match site.kind {
            SiteKind::Linear if inputs <= block => {
                format!("it has {inputs} inputs, no more than a block")
            }
            SiteKind::Linear => format!("blocks of {block} do not divide its {inputs} inputs"),
            _ => "the kernel of a Conv takes no blocks".into(),
        };
        Some(format!("a scale an output channel: {reason}"))
    }

    /// Whether the user keeps a site float.
    pub(crate) fn keeps_float(&self, site: &Site) -> bool {
        let names = &self.keep_float;
        names.iter().any(|k| *k == site.name || *k == site.path)
    }

    fn width(&self, site: &Site) -> Option<Width> {
        self.widths.as_ref()?.get(&site.name)
    }

    /// Why a site stays float without being looked at.
    pub(crate) fn float_reason(&self, site: &Site) -> Option<String> {
        if self.keeps_float(site) {
            return Some("asked for with --keep-float".into());
        }
        match self.width(site) {
            Some(Width::Float) => return Some("the budget leaves it float".into()),
            Some(Width::Bits(..)) => return None,
            None => {}
        }
        if site.second.is_some() && self.activation_bits == FLOAT_BITS {
            return Some("it has no weight, and activations stay float".into());
        }
        let linear = site.kind == SiteKind::Linear;
        (self.scope == Scope::Linear && !linear)
            .then(|| "not in scope: give --scope all to quantise it".into())
    }
}

/// All that is known while the walk goes on.
pub(crate) struct Calibration<'a> {
    pub graph: &'a Graph,
    pub structure: &'a Structure,
    pub settings: &'a Settings,
    pub recipe: Recipe,
    /// Parameters of the Linears and patch embeddings, by site.
    pub parameters: Vec<Option<Parameters>>,
    /// What was decided for each LayerNormalization met so far.
    pub folds: HashMap<usize, Fold>,
    /// Who makes the channels of a site's input, by site.
    pub carriers: HashMap<usize, Carrier>,
    /// Folds that a carrier takes over.
    pub migrations: Vec<Migration>,
    pub guard: Option<Guard>,
    /// What the products compute that the walk goes through, by site.
    pub works: Vec<OnceLock<candidates::Work>>,
}

/// Calibrates a simplified float graph.
pub fn calibrate(
    graph: &Graph,
    structure: &Structure,
    feeds: &dyn Feeds,
    settings: &Settings,
    progress: &dyn Progress,
) -> Result<Outcome, CalibrateError> {
    if feeds.is_empty() {
        return Err(CalibrateError::NoInputs);
    }
    let program = Program::new(graph, structure, &feeds.feed(0)?, settings.executor)?;
    let mut state = Calibration::new(graph, structure, settings)?;
    let mut walk = Walk::start(&program, feeds.len(), |i| {
        feeds.feed(i).map_err(CalibrateError::from)
    })?;
    if settings.has(Part::Guard) {
        state.guard = Some(Guard::new(&state, &walk, guard::INPUTS)?);
    }
    progress.stage("calibrate", structure.sites.len() as u64);
    let mut plan = Plan {
        version: VERSION,
        ..Plan::default()
    };
    let mut sites = Vec::new();
    while let Some(index) = walk.advance()? {
        state.carriers.extend(state.carrier(&walk, index)?);
        let (decision, report) = state.site(&mut walk, index)?;
        if matches!(decision, Decision::Float { .. }) {
            state.migrations.retain(|m| m.reader != index);
        }
        plan.sites.push(SitePlan {
            site: structure.sites[index].name.clone(),
            decision,
        });
        sites.push(report);
        for &index in walk.passed() {
            let (planned, report) = state.passed(index);
            plan.sites.push(planned);
            sites.push(report);
        }
        progress.advance(1 + walk.passed().len() as u64);
    }
    let sqnr_db = if state.recipe.sequential {
        let [x, y] = [World::Float, World::Quantised].map(|world| walk.outputs(world));
        Some(sqnr(&x?.concat(), &y?.concat()))
    } else {
        None
    };
    plan.norms = state.norm_plans();
    state.follow_folds(&mut plan);
    state.migrate(&mut plan);
    Ok(Outcome {
        plan,
        sites,
        sqnr_db,
        budget: None,
        reconstructed: None,
        learned: None,
    })
}

impl<'a> Calibration<'a> {
    /// Before the first site.
    fn new(
        graph: &'a Graph,
        structure: &'a Structure,
        settings: &'a Settings,
    ) -> Result<Self, CalibrateError> {
        let parameters = structure
            .sites
            .par_iter()
            .map(|site| Parameters::load(graph, site))
            .collect::<Result<_, _>>()?;
        Ok(Calibration {
            graph,
            structure,
            settings,
            recipe: settings.recipe(),
            parameters,
            folds: HashMap::new(),
            carriers: HashMap::new(),
            migrations: Vec::new(),
            guard: None,
            works: structure.sites.iter().map(|_| OnceLock::new()).collect(),
        })
    }
}

impl Calibration<'_> {
    fn site(
        &mut self,
        walk: &mut Walk<'_>,
        index: usize,
    ) -> Result<(Decision, SiteReport), CalibrateError> {
        let site = &self.structure.sites[index];
        let mut report = SiteReport::of(site, candidates::work(self, walk, index)?);
        let decision = match self.settings.float_reason(site) {
            Some(reason) => self.keep_float(walk, index, reason)?,
            None if site.second.is_some() => self.product(walk, index, &mut report)?,
            None => self.linear(walk, index, &mut report)?,
        };
        report.form = form(&decision);
        if matches!(decision, Decision::Linear(_)) {
            let notes = [report.note.take(), self.settings.no_blocks(site)];
            let notes: Vec<String> = notes.into_iter().flatten().collect();
            report.note = (!notes.is_empty()).then(|| notes.join("; "));
        }
        Ok((decision, report))
    }

    /// Lets carriers take over the folds of the sites behind them.
    fn migrate(&self, plan: &mut Plan) {
        for migration in &self.migrations {
            let carrier = migration.carrier.site;
            let name = &self.structure.sites[carrier].name;
            let site = plan.sites.iter_mut().find(|s| s.site == *name);
            if let (Some(site), Some(parameters)) = (site, &self.parameters[carrier]) {
                migration.apply(site, parameters);
            }
        }
    }

    fn norm_plans(&self) -> Vec<NormPlan> {
        let mut indices: Vec<_> = self.folds.keys().copied().collect();
        indices.sort_unstable();
        indices
            .into_iter()
            .filter_map(|i| self.folds[&i].norm_plan(self.graph, &self.structure.norms[i]))
            .collect()
    }
}

fn form(decision: &Decision) -> String {
    use vitq_passes::plan::Activation;
    let name = |a: &Activation| match a {
        Activation::Float => "float",
        Activation::Uniform { .. } => "uniform",
        Activation::Log { .. } => "logarithmic",
        Activation::Codebook { .. } => "codebook",
    };
    match decision {
        Decision::Float { .. } => "float".into(),
        Decision::Product { left, right } => format!(
            "a{} {} × a{} {}",
            crate::quant::bits(left),
            name(left),
            crate::quant::bits(right),
            name(right)
        ),
        Decision::Linear(l) => {
            let weight = if l.weight.table.is_some() {
                "codebook"
            } else {
                "uniform"
            };
            let blocks = l
                .weight
                .block
                .map_or_else(String::new, |block| format!(", blocks of {block}"));
            let scaled = if l.pre_scale.is_some() {
                " with a scale per channel"
            } else {
                ""
            };
            let branch = l
                .low_rank
                .as_ref()
                .map_or_else(String::new, |it| format!(" + rank {}", it.rank));
            format!(
                "w{} {weight}{blocks}, a{} {}{scaled}{branch}",
                l.weight.bits,
                crate::quant::bits(&l.activation),
                name(&l.activation)
            )
        }
    }
}
