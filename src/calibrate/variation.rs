//! What makes a vision transformer hard to quantise, on the model in hand (Quantization Variation, arXiv 2307.00331 §3): how much its modules and
//! heads differ in what rounding them costs, and how far the outliers of weights and activations stand out. The third of the
//! paper's variations, weights that oscillate, is one of training: `vitq train --log` has it step by step.

use serde::Serialize;
use vitq_passes::ir::Graph;
use vitq_passes::structure::{Site, Structure};

use super::bench::{Bench, at_each_site};
use super::fold::Channels;
use super::guard::INPUTS;
use super::moments::over_lanes;
use super::operand::{tensor, values};
use super::sensitivity::{SiteCost, cost_of, settings};
use super::{CalibrateError, Feeds, Progress, Scope};
use crate::run::Runtime;
use crate::walk::{Walk, World};

/// What [`measure`] gives.
#[derive(Clone, Debug)]
pub struct Variation {
    /// Inputs that the outputs were compared on: the first ones of calibration.
    pub inputs: usize,
    /// One a site, in the graph's order.
    pub sites: Vec<SiteVariation>,
}

/// One site.
#[derive(Clone, Debug, Serialize)]
pub struct SiteVariation {
    /// What it costs quantised alone, at one width.
    #[serde(flatten)]
    pub cost: SiteCost,
    /// Of an attention product: dB at the model's outputs with one head alone quantised, head by head.
    pub heads_db: Vec<f64>,
    /// Outliers of the weight; `null` of an attention product.
    pub weight: Option<Outliers>,
    /// Outliers of the input, of an attention product's first operand.
    pub activation: Outliers,
    /// Outliers of an attention product's second operand.
    pub second: Option<Outliers>,
    /// Range of a Linear's widest input channel, next to the median channel's.
    pub widest_channel: Option<f64>,
}

/// How far values stand out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Outliers {
    /// Largest distance from the mean, in standard deviations: normal values reach 4 to 6.
    pub most: f64,
    /// Fourth moment over the square of the second: 3 of normal values, more of heavier tails.
    pub kurtosis: f64,
}

/// Measures every site at a width of 2..=8 bits.
///
/// # Errors
/// There is nothing to measure on, an input cannot be read, or the float graph cannot be run.
pub fn measure(
    graph: &Graph,
    structure: &Structure,
    feeds: &dyn Feeds,
    bits: u32,
    executor: Runtime,
    progress: &dyn Progress,
) -> Result<Variation, CalibrateError> {
    let settings = [settings(bits, Scope::All, executor)];
    let in_scope = |site: &Site| settings[0].float_reason(site).is_none();
    let model = (graph, structure, feeds);
    let asked = at_each_site(model, (&settings, INPUTS), progress, in_scope, look)?;
    Ok(Variation {
        inputs: asked.inputs,
        sites: asked.sites,
    })
}

fn look(
    bench: &mut Bench<'_>,
    walk: &Walk<'_>,
    index: usize,
) -> Result<SiteVariation, CalibrateError> {
    let cost = cost_of(bench, walk, index)?;
    let channels = bench.channels(walk, index)?;
    let site = &bench.state.structure.sites[index];
    let parameters = bench.state.parameters[index].as_ref();
    let is_product = parameters.is_none();
    let heads_db = match is_product {
        true => bench.head_dbs(walk, index, bench.state.settings.activation_bits)?,
        false => Vec::new(),
    };
    let weight = parameters.map(|it| {
        let mut powers = Powers::default();
        powers.add(&it.weight);
        powers.outliers()
    });
    let second = is_product.then(|| operand(walk, site, 1)).transpose()?;
    Ok(SiteVariation {
        cost,
        heads_db,
        weight,
        activation: operand(walk, site, 0)?,
        second,
        widest_channel: channels.as_ref().map(widest),
    })
}

fn operand(walk: &Walk<'_>, site: &Site, i: usize) -> Result<Outliers, CalibrateError> {
    let powers = over_lanes(
        walk.len(),
        Powers::default,
        |powers, lane| {
            let tensor = tensor(walk, site, lane, i, World::Float)?;
            powers.add(values(site, &tensor)?);
            Ok(())
        },
        Powers::merge,
    )?;
    Ok(powers.outliers())
}

fn widest(channels: &Channels) -> f64 {
    let ends = channels.lo.iter().zip(&channels.hi);
    let mut ranges: Vec<f32> = ends.map(|(lo, hi)| hi - lo).collect();
    ranges.sort_by(f32::total_cmp);
    let median = ranges.get(ranges.len() / 2).copied().unwrap_or(0.0);
    let most = ranges.last().copied().unwrap_or(0.0);
    f64::from(most) / f64::from(median.max(f32::MIN_POSITIVE))
}

/// Sums of the powers 0 to 4, and the ends.
struct Powers {
    sums: [f64; 5],
    least: f32,
    most: f32,
}

impl Default for Powers {
    fn default() -> Self {
        Self {
            sums: [0.0; 5],
            least: f32::INFINITY,
            most: f32::NEG_INFINITY,
        }
    }
}

impl Powers {
    fn add(&mut self, values: &[f32]) {
        for &x in values {
            self.least = self.least.min(x);
            self.most = self.most.max(x);
            let mut power = 1.0;
            for sum in &mut self.sums {
                *sum += power;
                power *= f64::from(x);
            }
        }
    }

    fn merge(&mut self, other: &Powers) {
        let sums = self.sums.iter_mut().zip(other.sums);
        sums.for_each(|(sum, other)| *sum += other);
        self.least = self.least.min(other.least);
        self.most = self.most.max(other.most);
    }

    fn outliers(&self) -> Outliers {
        let [m1, m2, m3, m4] = [1, 2, 3, 4].map(|i| self.sums[i] / self.sums[0].max(1.0));
        let variance = (m2 - m1 * m1).max(f64::MIN_POSITIVE);
        let fourth = m4 - 4.0 * m1 * m3 + 6.0 * m1 * m1 * m2 - 3.0 * m1.powi(4);
        let farthest = (f64::from(self.most) - m1).max(m1 - f64::from(self.least));
        Outliers {
            most: farthest / variance.sqrt(),
            kurtosis: fourth / variance.powi(2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outliers_are_told_by_their_distance_and_their_tails() {
        let of = |values: &[f32]| {
            let mut powers = Powers::default();
            powers.add(values);
            powers.outliers()
        };
        // Two values, each one deviation from the mean; their kurtosis is the least there is.
        let two = of(&[1.0, 3.0, 1.0, 3.0]);
        assert!((two.most - 1.0).abs() < 1e-12 && (two.kurtosis - 1.0).abs() < 1e-12);
        // One of a hundred stands out: the mean is 0.01, the variance 0.01·0.99.
        let mut rare = vec![0.0f32; 99];
        rare.push(1.0);
        let rare = of(&rare);
        assert!(
            (rare.most - (0.99 / 0.01f64).sqrt()).abs() < 1e-9,
            "{rare:?}"
        );
        assert!((rare.kurtosis - 98.0).abs() < 0.1, "{rare:?}");
    }
}
