//! What `quantize` and `plan` have in common: where the numbers come from.

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;

use clap::ValueEnum;
use vitq::calibrate::{Codes, Effort, Part, Ranks, Scope, Settings};
#[cfg(feature = "learn")]
use vitq::learn::BlockOptions;
use vitq::pipeline::{BLOCKS, RANK_SHARE};
use vitq::quant::FLOAT_BITS;
use vitq::{Budget, CALIBRATION_SAMPLES, Quantizer, Source};
use vitq_passes::target::{Target, Values};

#[cfg(feature = "learn")]
use super::method::{self, Method};
use super::{preprocessing, runtime, targets, threads};

/// Samples, widths and searches.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// Samples to calibrate on: a folder of images, a tree of labelled folders, or preprocessed arrays (.npy, .npz,
    /// .safetensors). Real ones, of the kind that the model will see
    #[arg(long, value_name = "PATH")]
    calib: PathBuf,
    /// How many of them, the first by path
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(CALIBRATION_SAMPLES).unwrap_or(NonZeroUsize::MIN))]
    samples: NonZeroUsize,
    /// Widths of weights and activations, 2 to 8 bits each: w8a8, w6a6, w4a8 … a16 leaves activations float: w8a16 and w4a16
    /// round weights alone, for a smaller file at float's speed. With --budget the narrowest weights that may be
    /// chosen, and the width of all activations [default: w8a8; w4a8 with a --budget of size, drop or sqnr; w8a16 for qnn, where
    /// a16 is uint16]
    #[arg(long, value_name = "wXaY")]
    bits: Option<Widths>,
    /// A scale for each 32, 64 or 128 inputs of an output channel's weights, where one for all of them is the default: less error
    /// for 1, 0.5 or 0.25 bits more a weight. For weights alone: --bits w4a16 or w8a16
    #[arg(long, value_name = "32|64|128", value_parser = block)]
    block: Option<usize>,
    /// Choose widths site by site, so that the least error is made within a budget: size=0.4 (of the float file) or size=3MB;
    /// drop=2 (the smallest file that decides at most 2 % of samples otherwise than the float model), sqnr=20 (the smallest one
    /// with 20 dB at the output), both measured on samples of --calib that calibration leaves over; speedup=1.8 (over float, as
    /// predicted for the target: the dearest sites stay float)
    #[arg(long, value_name = "KIND=VALUE")]
    pub budget: Option<Budget>,
    /// linear: every Linear (fastest in ONNX Runtime); all: the patch embedding and both attention products as well
    #[arg(long, value_enum, default_value = "linear")]
    scope: ScopeName,
    /// uniform: evenly spaced levels; codebook: levels placed freely on the 8-bit grid; auto: codebooks where they pay
    #[arg(long, value_enum, default_value = "auto")]
    codes: CodesName,
    /// Another width for the patch embedding and the head
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(2..=8))]
    edge_bits: Option<u32>,
    /// Let a branch of low rank carry a part of each Linear past the rounding, two small float products beside the rounded rest: less error of weights
    /// and activations. N for all, or auto: ranks where they take the most error away, for at most 2 % of the Linears' multiply-adds (auto=10: 10 %). Weights of 8 bits get none. Mixed widths
    /// (--budget size=…) gain more for the same room [default: 0; with --method aiqvit: auto]
    #[arg(long, value_name = "N|auto|auto=PERCENT", conflicts_with = "budget")]
    rank: Option<Rank>,
    /// How the factors of these branches are stored: 8 bits with a scale a row, which runtimes make floats of when they load the model
    /// (float for tensorrt and qnn), or 32
    #[arg(long, value_name = "N", value_parser = branch_bits, default_value_t = Settings::default().branch_bits)]
    branch_bits: u32,
    /// The runtime that the model is written for; `vitq targets` lists them
    #[arg(long, value_name = "NAME", value_parser = targets::parse, default_value = "onnxruntime")]
    pub target: Target,
    /// Least operator set of the written model. 23 has Attention, which new ONNX Runtimes (1.31 was measured) run faster than its
    /// parts, and older ones not at all [default: what the model and its codes need]
    #[arg(long, value_name = "N", value_parser = targets::opset())]
    opset: Option<i64>,
    /// How long to search for better numbers: fast takes seconds; balanced solves for weights at 8 bits too; best draws, for
    /// activations of 5 bits and fewer, eight rotations of the residual streams, keeps the one that comes nearest to the float
    /// model, and takes eight times as long
    #[arg(long, value_enum, default_value = "fast")]
    effort: EffortName,
    /// Sites that stay float, by node name or path as `vitq inspect` prints them; may be given more than once
    #[arg(long, value_name = "NAME", num_args = 1..)]
    keep_float: Vec<String>,
    /// Quantise even the sites that spoil the network: --without guard
    #[arg(long)]
    no_guard: bool,
    /// Parts of the recipe to leave out, to see what they are worth (`vitq ablate` tries them all)
    #[arg(long, value_name = "PART", num_args = 1.., value_parser = part)]
    without: Vec<Part>,
    /// Seed of what is drawn at random: the rotation of the residual streams
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Only errors: no bar, no summary
    #[arg(long, short)]
    pub quiet: bool,
    #[cfg(feature = "learn")]
    #[command(flatten)]
    method: method::Args,
    #[command(flatten)]
    executor: runtime::Executor,
    #[command(flatten)]
    pub threads: threads::Args,
    #[command(flatten)]
    pub preprocessing: preprocessing::Args,
}

impl Args {
    /// The samples to calibrate on.
    pub fn source(&self) -> Source {
        Source {
            path: self.calib.clone(),
            classes: None,
            contract: self.preprocessing.contract(),
        }
    }

    /// The parts of the recipe that are at work.
    pub fn parts(&self) -> impl Iterator<Item = Part> {
        let without = self.without(None);
        let parts = Part::ALL.into_iter();
        parts.filter(move |part| {
            !without.contains(part) && (self.is_aiqvit() || !Part::AIQVIT.contains(part))
        })
    }

    fn without(&self, more: Option<Part>) -> Vec<Part> {
        let guard = self.no_guard.then_some(Part::Guard);
        let without = self.without.iter().copied().chain(guard);
        without.chain(more).collect()
    }

    /// The quantiser that they describe.
    pub fn quantizer(&self) -> Quantizer {
        self.quantizer_without(None)
    }

    /// The same without one more part of the recipe.
    pub fn quantizer_without(&self, part: Option<Part>) -> Quantizer {
        let settings = self.settings(self.without(part));
        let rank = self.rank(&settings);
        let quantizer = Quantizer::new();
        #[cfg(feature = "learn")]
        let quantizer = self.reconstructing(quantizer, &settings);
        quantizer
            .settings(settings)
            .samples(self.samples.get())
            .budget(self.budget)
            .auto_rank(rank.share())
            .target(self.target.at_least(self.opset))
    }

    /// Whether blocks learn behind calibration.
    #[cfg(feature = "learn")]
    pub fn learns(&self) -> bool {
        self.method.method != Method::ClosedForm
    }

    /// Whether blocks learn behind calibration: not in this build.
    #[cfg(not(feature = "learn"))]
    pub fn learns(&self) -> bool {
        false
    }

    #[cfg(feature = "learn")]
    fn reconstructing(&self, quantizer: Quantizer, settings: &Settings) -> Quantizer {
        let options = match self.method.method {
            Method::ClosedForm => return quantizer,
            Method::Reconstruct => BlockOptions::default(),
            Method::Aiqvit => BlockOptions {
                curriculum: settings.has(Part::Curriculum),
                ..BlockOptions::aiqvit()
            },
        };
        quantizer.reconstruction(BlockOptions {
            steps: self.method.block_steps,
            seed: self.seed,
            device: self.method.device.into(),
            ..options
        })
    }

    /// Refuses a device for learning where nothing learns.
    #[cfg(feature = "learn")]
    pub fn check_device(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.learns() || self.method.device == method::DeviceName::Cpu,
            "--device says where blocks learn, and none do: give --method reconstruct or aiqvit, or use `vitq train`"
        );
        Ok(())
    }

    #[cfg(not(feature = "learn"))]
    pub fn check_device(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Where it learns.
    #[cfg(feature = "learn")]
    pub fn device(&self) -> vitq::learn::Device {
        self.method.device.into()
    }

    /// Whether weights stay as they were rounded, and branches learn.
    #[cfg(feature = "learn")]
    pub fn is_aiqvit(&self) -> bool {
        self.method.method == Method::Aiqvit
    }

    #[cfg(not(feature = "learn"))]
    fn is_aiqvit(&self) -> bool {
        false
    }

    fn rank(&self, settings: &Settings) -> Rank {
        match self.rank {
            _ if self.is_aiqvit() && !settings.has(Part::LowRank) => Rank::Fixed(0),
            Some(rank) => rank,
            None if self.is_aiqvit() => Rank::Auto(RANK_SHARE),
            None => Rank::Fixed(0),
        }
    }

    fn bits(&self) -> Widths {
        let narrow = matches!(
            self.budget,
            Some(Budget::Size(_) | Budget::Drop(_) | Budget::Sqnr(_))
        );
        self.bits.unwrap_or(Widths {
            weights: if narrow { 4 } else { 8 },
            // In a network of uint16 activations products of uint8 would lose what the others keep.
            activations: if self.target.values == Values::All {
                FLOAT_BITS
            } else {
                8
            },
        })
    }

    /// What is asked of the numbers.
    fn settings(&self, without: Vec<Part>) -> Settings {
        let bits = self.bits();
        let settings = Settings {
            weight_bits: bits.weights,
            activation_bits: bits.activations,
            block: self.block,
            scope: self.scope.into(),
            effort: self.effort.into(),
            codes: self.codes.into(),
            target_codes: self.target.codes,
            narrow_sums: self.target.narrow_sums,
            edge_bits: self.edge_bits,
            widths: None,
            keep_float: self.keep_float.clone(),
            without,
            seed: self.seed,
            executor: (&self.executor).into(),
            ..Settings::default()
        };
        Settings {
            ranks: self.rank(&settings).ranks(),
            branch_bits: self.branch_bits,
            focusing: self.is_aiqvit() && settings.has(Part::Focusing),
            ..settings
        }
    }
}

fn block(text: &str) -> Result<usize, String> {
    let block = text.parse().ok().filter(|block| BLOCKS.contains(block));
    block.ok_or_else(|| "a block has 32, 64 or 128 inputs".into())
}

fn branch_bits(text: &str) -> Result<u32, String> {
    let bits = text.parse().ok().filter(|bits| [8, 32].contains(bits));
    bits.ok_or_else(|| "8 or 32 bits".into())
}

fn part(name: &str) -> Result<Part, String> {
    let known = Part::ALL.map(Part::name).join(", ");
    let named = Part::ALL.into_iter().find(|part| part.name() == name);
    named.ok_or_else(|| format!("there is no such part; there are {known}"))
}

/// Rank of low-rank branches.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Rank {
    /// Share of the Linears' multiply-accumulates.
    Auto(f64),
    Fixed(usize),
}

impl Rank {
    fn ranks(self) -> Ranks {
        match self {
            Rank::Auto(_) | Rank::Fixed(0) => Ranks::None,
            Rank::Fixed(rank) => Ranks::All(rank),
        }
    }

    fn share(self) -> Option<f64> {
        match self {
            Rank::Auto(share) => Some(share),
            Rank::Fixed(_) => None,
        }
    }
}

impl FromStr for Rank {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let fixed = || {
            text.parse()
                .ok()
                .filter(|rank| *rank <= 1024)
                .map(Rank::Fixed)
        };
        let percent = || {
            let percent: f64 = text.strip_prefix("auto=")?.parse().ok()?;
            let known = percent > 0.0 && percent <= 100.0;
            known.then_some(Rank::Auto(percent / 100.0))
        };
        let auto = (text == "auto").then_some(Rank::Auto(RANK_SHARE));
        auto.or_else(percent).or_else(fixed).ok_or_else(|| {
            "give auto, auto= with percent above 0, or a rank from 0 (none) to 1024".into()
        })
    }
}

/// `w4a8`
#[derive(Clone, Copy, Debug, PartialEq)]
struct Widths {
    weights: u32,
    activations: u32,
}

impl FromStr for Widths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let widths = text
            .strip_prefix(['w', 'W'])
            .and_then(|rest| rest.split_once(['a', 'A']));
        let width = |digits: &str| digits.parse().ok().filter(|bits| (2..=8).contains(bits));
        let activation = |digits: &str| {
            let float = digits.parse() == Ok(FLOAT_BITS);
            float.then_some(FLOAT_BITS).or_else(|| width(digits))
        };
        let parsed = widths
            .and_then(|(weights, activations)| Some((width(weights)?, activation(activations)?)));
        let (weights, activations) = parsed.ok_or(
            "give the widths of weights and activations, 2 to 8 bits each, as in w8a8 or w4a8; a16 leaves activations float",
        )?;
        Ok(Self {
            weights,
            activations,
        })
    }
}

/// Command-line names of a library type.
macro_rules! names {
    ($name:ident for $library:ident { $($variant:ident),* }) => {
        #[derive(Clone, Copy, ValueEnum)]
        pub enum $name { $($variant),* }

        impl From<$name> for $library {
            fn from(name: $name) -> Self {
                match name { $($name::$variant => Self::$variant),* }
            }
        }
    };
}

names!(ScopeName for Scope { Linear, All });
names!(CodesName for Codes { Uniform, Codebook, Auto });
names!(EffortName for Effort { Fast, Balanced, Best });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn widths_are_read_and_bounded() {
        assert_eq!(
            "w4a8".parse(),
            Ok(Widths {
                weights: 4,
                activations: 8
            })
        );
        for wrong in ["", "w8", "8a8", "w1a8", "w8a9", "w8a", "w-4a8", "w8a8x"] {
            assert!(wrong.parse::<Widths>().is_err(), "{wrong}");
        }
    }
}
