//! The parts of the recipe that can be switched off, to see what each is worth.

use serde::Serialize;

/// A part of the recipe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Part {
    /// Residual streams in rotated channels (QuaRot).
    Rotation,
    /// Scales per channel folded into the LayerNormalization before a Linear (RepQ-ViT).
    Fold,
    /// Scales per channel before a Linear carried by the one that makes its input, through an attention or a ReLU.
    Migration,
    /// Ranges wide enough for inputs that were not seen.
    Margin,
    /// Sites that see what the quantised part of the network produced.
    Sequential,
    /// Weights fitted again to the quantised input (ERQ, GPTAQ).
    Refit,
    /// Weights rounded one channel after the other (GPTQ).
    Gptq,
    /// Codes and scales improved by coordinate descent.
    Descent,
    /// The bias takes away the mean error.
    Bias,
    /// Logarithmic codes after Softmax.
    Logarithm,
    /// Sites that spoil the network are mended or stay float.
    Guard,
    /// Low-rank branches beside the rounded weights (AIQViT).
    LowRank,
    /// Attention weights in one interval that learns (AIQViT), where that suits them best.
    Focusing,
    /// Samples from easy to hard (AIQViT).
    Curriculum,
}

impl Part {
    /// All of them, in the order in which they act.
    pub const ALL: [Part; 14] = [
        Part::Rotation,
        Part::Fold,
        Part::Migration,
        Part::Margin,
        Part::Sequential,
        Part::Refit,
        Part::Gptq,
        Part::Descent,
        Part::Bias,
        Part::Logarithm,
        Part::Guard,
        Part::LowRank,
        Part::Focusing,
        Part::Curriculum,
    ];

    /// Those that only AIQViT's learning has.
    pub const AIQVIT: [Part; 3] = [Part::LowRank, Part::Focusing, Part::Curriculum];

    /// As the command line has it.
    pub fn name(self) -> &'static str {
        match self {
            Part::Rotation => "rotation",
            Part::Fold => "fold",
            Part::Migration => "migration",
            Part::Margin => "margin",
            Part::Sequential => "sequential",
            Part::Refit => "refit",
            Part::Gptq => "gptq",
            Part::Descent => "descent",
            Part::Bias => "bias",
            Part::Logarithm => "logarithm",
            Part::Guard => "guard",
            Part::LowRank => "low-rank",
            Part::Focusing => "focusing",
            Part::Curriculum => "curriculum",
        }
    }

    /// What it is, in a line.
    pub fn describe(self) -> &'static str {
        match self {
            Part::Rotation => "residual streams in rotated channels",
            Part::Fold => "scales per channel folded into LayerNormalizations",
            Part::Migration => "scales before a Linear carried by the one that makes its input",
            Part::Margin => "ranges wide enough for inputs that were not seen",
            Part::Sequential => "sites see the quantised part of the network",
            Part::Refit => "weights fitted again to the quantised input",
            Part::Gptq => "weights rounded one channel after the other",
            Part::Descent => "codes and scales improved by coordinate descent",
            Part::Bias => "the bias takes away the mean error",
            Part::Logarithm => "logarithmic codes after Softmax",
            Part::Guard => "sites that spoil the network are mended",
            Part::LowRank => "low-rank branches learn (--method aiqvit)",
            Part::Focusing => {
                "attention weights in one interval that learns, where that suits them best (--method aiqvit)"
            }
            Part::Curriculum => "samples from easy to hard (--method aiqvit)",
        }
    }
}
