//! What each site costs: quantised alone at several widths while everything else stays float, measured at the model's
//! outputs.
//!
//! The figures are those of calibration's own solvers at effort `fast`, of the float world only: no site sees another one's
//! errors, and no guard mends anything. How the errors of many sites add up is left to the reader; a sum of their energies is
//! a fair first guess.

use rayon::prelude::*;
use serde::Serialize;
use vitq_passes::ir::Graph;
use vitq_passes::structure::{Role, Site, SiteKind, Structure};

use super::bench::{Bench, at_each_site};
use super::fold::{Channels, Fold};
use super::guard::INPUTS;
use super::solution::Solved;
use super::{CalibrateError, Feeds, Part, Progress, Scope, Settings};
use crate::run::Runtime;
use crate::walk::Walk;

/// What of a Linear or patch embedding is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rounded {
    /// Weights and activation.
    Both,
    /// The weights alone.
    Weight,
    /// The activation alone.
    Activation,
}

/// What [`measure`] gives.
#[derive(Clone, Debug)]
pub struct Sensitivity {
    /// Inputs that the outputs were compared on: the first ones of calibration.
    pub inputs: usize,
    /// One a site in scope, in the graph's order.
    pub sites: Vec<SiteCost>,
}

/// What one site costs.
#[derive(Clone, Debug, Serialize)]
pub struct SiteCost {
    /// Node name.
    pub site: String,
    /// Path as a person says it.
    pub path: String,
    /// `qkv`, `proj`, `fc1`, `fc2`, `head`, `patch_embed`, … of a Linear, `qk` or `av` of an attention product.
    pub role: &'static str,
    /// Path of the block that it belongs to.
    pub block: Option<String>,
    /// Elements of weight and bias; 0 of an attention product.
    pub parameters: usize,
    /// One a width, in the order that the widths were given in.
    pub costs: Vec<Cost>,
}

/// Signal to error at the model's outputs with one site alone quantised; the higher, the less it costs.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// The width that was asked for.
    pub bits: u32,
    /// Width of the activation: `bits`, but 8 at the patch embedding, whose input `quantize` never gives less.
    pub activation_bits: u32,
    /// Weights rounded, activation float, dB; `None` of an attention product.
    pub weight_db: Option<f64>,
    /// Activation rounded (both operands of an attention product), weights float, dB.
    pub activation_db: f64,
    /// Everything rounded, dB.
    pub both_db: f64,
}

/// Measures every site in scope at each of `widths` (2..=8 bits).
///
/// # Errors
/// There is nothing to measure on, an input cannot be read, or the float graph cannot be run.
pub fn measure(
    graph: &Graph,
    structure: &Structure,
    feeds: &dyn Feeds,
    (scope, widths): (Scope, &[u32]),
    executor: Runtime,
    progress: &dyn Progress,
) -> Result<Sensitivity, CalibrateError> {
    let settings: Vec<Settings> = widths
        .iter()
        .map(|&bits| settings(bits, scope, executor))
        .collect();
    let in_scope = |site: &Site| {
        let first = settings.first();
        first.is_some_and(|settings| settings.float_reason(site).is_none())
    };
    let asked = at_each_site(
        (graph, structure, feeds),
        (&settings, INPUTS),
        progress,
        in_scope,
        cost_of,
    )?;
    Ok(Sensitivity {
        inputs: asked.inputs,
        sites: asked.sites,
    })
}

pub(super) fn settings(bits: u32, scope: Scope, executor: Runtime) -> Settings {
    Settings {
        weight_bits: bits,
        activation_bits: bits,
        scope,
        // Each site stands alone in a float network.
        without: vec![Part::Guard, Part::Sequential],
        executor,
        ..Settings::default()
    }
}

pub(super) fn cost_of(
    bench: &mut Bench<'_>,
    walk: &Walk<'_>,
    index: usize,
) -> Result<SiteCost, CalibrateError> {
    let channels = bench.channels(walk, index)?;
    let mut costs = Vec::new();
    for i in 0..bench.len() {
        costs.push(bench.under(i, |bench| match &channels {
            Some(channels) => linear(bench, walk, index, channels),
            None => product(bench, walk, index),
        })?);
    }
    let structure = bench.state.structure;
    let site = &structure.sites[index];
    let block = structure
        .blocks
        .iter()
        .find(|block| block.sites.contains(&index));
    Ok(SiteCost {
        site: site.name.clone(),
        path: site.path.clone(),
        role: role(site),
        block: block.map(|block| block.path.clone()),
        parameters: site.parameters.as_ref().map_or(0, |p| {
            p.inputs * p.outputs + p.bias.map_or(0, |_| p.outputs)
        }),
        costs,
    })
}

fn linear(
    bench: &mut Bench<'_>,
    walk: &Walk<'_>,
    index: usize,
    channels: &Channels,
) -> Result<Cost, CalibrateError> {
    let fold = bench
        .state
        .upstream_fold(walk, index, channels)?
        .unwrap_or_else(|| Fold::identity(channels.lo.len()));
    let state = &bench.state;
    let (weight_bits, activation_bits) = state.settings.bits(&state.structure.sites[index]);
    let solve = |rounded| {
        // Codes of weights that stay float are not looked at: the cheapest ones.
        let weight_bits = if rounded == Rounded::Activation {
            8
        } else {
            weight_bits
        };
        let bits = (weight_bits, activation_bits);
        state.solve_part(walk, index, &fold, channels, bits, rounded)
    };
    let solved = [Rounded::Weight, Rounded::Activation, Rounded::Both]
        .into_iter()
        .map(solve)
        .collect::<Result<Vec<Solved>, _>>()?;
    let figures = solved
        .par_iter()
        .map(|solved| bench.linear_db(walk, index, solved))
        .collect::<Result<Vec<f64>, _>>()?;
    Ok(Cost {
        bits: state.settings.weight_bits,
        activation_bits,
        weight_db: Some(figures[0]),
        activation_db: figures[1],
        both_db: figures[2],
    })
}

fn product(bench: &Bench<'_>, walk: &Walk<'_>, index: usize) -> Result<Cost, CalibrateError> {
    let bits = bench.state.settings.activation_bits;
    let db = bench.product_db(walk, index, bits)?;
    Ok(Cost {
        bits,
        activation_bits: bits,
        weight_db: None,
        activation_db: db,
        both_db: db,
    })
}

/// What a site does, in one word.
fn role(site: &Site) -> &'static str {
    match (site.kind, site.role) {
        (SiteKind::QueryKey, _) => "qk",
        (SiteKind::AttentionValue, _) => "av",
        (SiteKind::PatchEmbed, _) | (_, Role::PatchEmbed) => "patch_embed",
        (_, Role::Qkv) => "qkv",
        (_, Role::Query) => "query",
        (_, Role::Key) => "key",
        (_, Role::Value) => "value",
        (_, Role::Proj) => "proj",
        (_, Role::Fc1) => "fc1",
        (_, Role::Fc2) => "fc2",
        (_, Role::Head) => "head",
        (_, Role::Product | Role::Other) => "other",
    }
}
