//! The plan: every number that quantisation decided, as plain data.
//!
//! Solvers write it without seeing a graph node; [`crate::quantise`] reads it without seeing an image.
//! Arrays are row-major; weights are `[out, in]`.

use serde::{Deserialize, Serialize};

/// Version of the plan's form.
pub const VERSION: u32 = 7;

/// All decisions for one model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`] when it was written.
    pub version: u32,
    /// Fingerprint of the float model that the plan belongs to.
    pub model: String,
    /// What was asked for (`key → value`), for the reader and the emitted model's metadata.
    pub settings: std::collections::BTreeMap<String, String>,
    /// What is rotated, if anything is: norms and sites are those of the rotated graph.
    pub rotation: Option<Rotation>,
    /// LayerNormalizations whose affine part was changed by a fold.
    pub norms: Vec<NormPlan>,
    /// One entry a site, in the graph's order.
    pub sites: Vec<SitePlan>,
    /// Ranges of the values of the graph with its sites quantised, for targets that want them ([`crate::target::Values`]).
    pub values: Vec<ValuePlan>,
}

/// The range of a value that a target wants quantised though no site reads it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ValuePlan {
    /// Its name ([`crate::quantise::values`]).
    pub value: String,
    /// Least of it.
    pub least: f32,
    /// Most of it.
    pub most: f32,
}

/// Channels that are rotated before anything is calibrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Seed that the matrices are drawn from.
    pub seed: u64,
    /// The residual streams ([`crate::transform::rotate()`]).
    pub streams: bool,
    /// V, head by head ([`crate::transform::rotate_values`]).
    pub values: bool,
}

/// New affine parameters of a LayerNormalization.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NormPlan {
    /// Name of the node ([`crate::structure::Norm::name`]).
    pub norm: String,
    /// `[channels]`
    pub gamma: Vec<f32>,
    /// `[channels]`
    pub beta: Vec<f32>,
}

/// What happens at one site.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct SitePlan {
    /// Name of the site ([`crate::structure::Site::name`]).
    pub site: String,
    /// The decision.
    pub decision: Decision,
}

/// Quantised or not.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// Stays float. Where a fold changed its input, `weight` and `bias` are the folded ones.
    Float {
        /// Why, for a person.
        reason: String,
        /// Weight `[out, in]` and bias `[out]` that replace the old ones.
        replace: Option<(Vec<f32>, Vec<f32>)>,
    },
    /// A Linear or patch embedding.
    Linear(LinearPlan),
    /// Q·Kᵀ or attention·V: a quantiser on each operand.
    Product {
        /// First operand.
        left: Activation,
        /// Second operand.
        right: Activation,
    },
}

/// A quantised Linear (or patch embedding, its kernel flattened to `[out, in·kh·kw]`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinearPlan {
    /// Quantiser of the input.
    pub activation: Activation,
    /// `[in]`: the input is multiplied by this just before its quantiser (the weight already holds the inverse).
    pub pre_scale: Option<Vec<f32>>,
    /// The quantised weight (of a branch's rest), folds included.
    pub weight: Weight,
    /// `[out]`, corrected; a bias is created where there was none.
    pub bias: Vec<f32>,
    /// Low-rank branch added to the output.
    pub low_rank: Option<LowRank>,
}

/// `y += x·Aᵀ·Bᵀ`: what `B·A` carries of the weight in float, beside the codes of the rest (AIQViT, SVDQuant). `x` is the input behind
/// `pre_scale` and before its quantiser.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LowRank {
    /// Rank `r`.
    pub rank: usize,
    /// How the factors are stored: 8, each row `scale·code` with a scale of its own, or 32, float.
    #[serde(default = "float_bits")]
    pub bits: u32,
    /// `A`: `[r, in]`
    pub down: Vec<f32>,
    /// `B`: `[out, r]`
    pub up: Vec<f32>,
}

fn float_bits() -> u32 {
    32
}

impl LowRank {
    /// The same with factors that are stored in `bits`: the nearest that can be.
    pub fn stored_in(mut self, bits: u32) -> Self {
        self.bits = bits;
        if bits == 8 && self.rank > 0 {
            let inputs = self.down.len() / self.rank;
            round_rows(&mut self.down, inputs);
            round_rows(&mut self.up, self.rank);
        }
        self
    }
}

/// Rounds each row of a factor of `k` columns to multiples of its [`row_scale`].
fn round_rows(factor: &mut [f32], k: usize) {
    for row in factor.chunks_mut(k.max(1)) {
        let scale = row_scale(row);
        row.iter_mut()
            .for_each(|v| *v = f32::from(code(*v, scale)) * scale);
    }
}

/// Scale of a row of a factor in 8 bits, of which its largest value is 127. It has 16 significant bits, so that its multiples are exact
/// and rounding them again changes nothing.
pub fn row_scale(row: &[f32]) -> f32 {
    let most = row.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    let scale = f32::from_bits(((most / 127.0).to_bits() + 0x80) & !0xff);
    scale.max(f32::MIN_POSITIVE)
}

/// Code of a value of a factor.
pub fn code(value: f32, scale: f32) -> i8 {
    (value / scale).round().clamp(-127.0, 127.0) as i8
}

/// Quantiser of an activation, one for the whole tensor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Activation {
    /// None: the input of a Linear whose weight alone is quantised.
    Float,
    /// `x̂ = (clamp(round(x/scale) + zero_point, 0, 2^bits - 1) - zero_point)·scale`
    Uniform {
        /// 2..=8
        bits: u32,
        /// Step, > 0.
        scale: f32,
        /// `0..2^bits`
        zero_point: u8,
    },
    /// Logarithmic codes of a Softmax output: `k = round(-log2(x)/step)`, `x̂ = 2^(-k·step)`, and 0 for
    /// `k ≥ min(2^bits + shift, 255)`; codes below `shift` are raised to it (δ = 2^(-shift·step)). Step ½ is log√2 (RepQ-ViT §3.4), a free step is AdaLog's base.
    Log {
        /// 2..=8
        bits: u32,
        /// Octaves a code, > 0.
        step: f32,
        /// Codes by which δ lies below one.
        shift: u8,
    },
    /// A codebook with levels on the uint8 grid, evenly spaced within each of a few segments:
    /// `x̂ = scale·(from₁ + Σ_j (clamp(step_j·round(x/(step_j·scale)), from_j, to_j) - from_j))`
    Codebook {
        /// Unit of the grid, > 0.
        scale: f32,
        /// Ascending; each begins where the one before ends. Zero lies within one of them, or below the first.
        segments: Vec<Segment>,
    },
}

/// Levels `from, from + step, …, to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Segment {
    /// Distance of the levels in units of the grid, > 0.
    pub step: u8,
    /// First level, a multiple of `step`; zero stands for 0.0.
    pub from: i16,
    /// Last level, a multiple of `step`.
    pub to: i16,
}

/// A quantised weight: `ŵ[o][i] = (codes[o][i] - zero_point[o])·scale[o]`; in blocks `scale[o][i / block]`, and the zero point so too.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Weight {
    /// 2..=8
    pub bits: u32,
    /// Rows.
    pub out: usize,
    /// `[out, in]`, on the int8 grid.
    pub codes: Vec<i8>,
    /// Inputs of a row that share a scale, in their order; the last block may have fewer. All of the row where absent.
    pub block: Option<usize>,
    /// `[out]`, or `[out, ceil(in / block)]`; > 0.
    pub scale: Vec<f32>,
    /// As many as scales; empty means all zero (symmetric).
    pub zero_point: Vec<i8>,
    /// The 2^bits levels that `codes` takes, ascending, if they are a codebook stored as packed codes.
    pub table: Option<Vec<i8>>,
}

impl Weight {
    /// The weight that the codes stand for, `[out, in]`.
    pub fn dequantise(&self) -> Vec<f32> {
        let inputs = self.inputs().max(1);
        let rows = self.codes.chunks_exact(inputs);
        let blocks = rows.flat_map(|row| row.chunks(self.block_of(inputs)));
        let mut values = Vec::with_capacity(self.codes.len());
        for ((b, block), scale) in blocks.enumerate().zip(&self.scale) {
            let zero = self.zero_point.get(b).copied().map_or(0.0, f32::from);
            values.extend(block.iter().map(|&c| (f32::from(c) - zero) * scale));
        }
        values
    }

    /// Columns.
    pub fn inputs(&self) -> usize {
        self.codes.len() / self.out.max(1)
    }

    /// How many scales a row of so many inputs has.
    pub fn scales_of_row(&self, inputs: usize) -> usize {
        inputs.div_ceil(self.block_of(inputs)).max(1)
    }

    /// Inputs that share a scale in a row of so many.
    fn block_of(&self, inputs: usize) -> usize {
        self.block.unwrap_or(inputs).max(1)
    }
}

impl Plan {
    /// The plan of a site.
    pub fn site(&self, name: &str) -> Option<&SitePlan> {
        self.sites.iter().find(|s| s.site == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn factors_in_codes_stay_as_they_are_when_they_are_rounded_again() {
        let mut seed = 1u32;
        let mut draw = || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
        };
        let rows =
            [1e-30f32, 0.003, 1.0, 77.7].map(|size| (0..50).map(|_| size * draw()).collect());
        let floats: Vec<f32> = rows
            .into_iter()
            .flat_map(|row: Vec<f32>| row)
            .chain([0.0; 50])
            .collect();
        let mut once = floats.clone();
        round_rows(&mut once, 50);
        let mut twice = once.clone();
        round_rows(&mut twice, 50);
        assert_eq!(once, twice);
        for (row, rounded) in floats.chunks(50).zip(once.chunks(50)) {
            let scale = row_scale(row);
            let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.501 * scale;
            assert!(row.iter().zip(rounded).all(near), "{row:?} {rounded:?}");
        }
    }
}
