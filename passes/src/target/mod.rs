//! What a runtime wants: one file a runtime, each a small table of rules with its reasons.

mod check;
mod onnxruntime;
mod openvino;
mod portable;
mod qnn;
mod tensorrt;
mod tract;

pub use check::TargetError;
pub use onnxruntime::ONNX_RUNTIME;
pub use openvino::OPENVINO;
pub use portable::PORTABLE;
pub use qnn::QNN;
pub use tensorrt::TENSORRT;
pub use tract::TRACT;

pub(crate) use check::{check_blocks, check_codes, check_ranges};

use crate::structure::{Site, SiteKind, Structure};

/// All of them, the default first.
pub const ALL: [Target; 6] = [ONNX_RUNTIME, TRACT, PORTABLE, OPENVINO, TENSORRT, QNN];

/// Rules of a runtime. [`crate::quantise`] reads them for the form that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the command line names it.
    pub name: &'static str,
    /// What it is for, in a line.
    pub about: &'static str,
    /// What is written and why, a line each.
    pub reasons: &'static [&'static str],
    /// Least standard operator set of an emitted model.
    pub opset: i64,
    /// Newest standard operator set that it runs, if there is one.
    pub newest_opset: Option<i64>,
    /// Whether it computes what depends on constants alone when it loads a model: weights of narrow codes in shared bytes, floats of int8 factors.
    pub folds_codes: bool,
    /// Blocks of a weight with a scale each.
    pub blocks: Blocks,
    /// How a Linear is multiplied.
    pub linear: LinearForm,
    /// Output channels of the Linears that read a value from which on it pays to quantise that value.
    pub least_outputs: usize,
    /// What is to be known about Linears whose weight alone is quantised.
    pub weight_only_advice: Option<&'static str>,
    /// How its bias is written.
    pub bias: BiasForm,
    /// What activations are quantised to.
    pub codes: Codes,
    /// Whether it adds neighbouring products of codes in 16 bits where a processor has no better instruction (x86-64 without VNNI).
    pub narrow_sums: bool,
    /// How they are quantised.
    pub quantiser: Quantiser,
    /// Which values are quantised.
    pub values: Values,
    /// What operations cost, where that was measured.
    pub costs: Option<Costs>,
    /// Whether a float attention is one operator from operator set 23 on, as that is faster.
    pub attention: bool,
    /// Whether operators of other domains than ONNX's own are refused.
    pub standard_only: bool,
    /// Whether the form was run in the runtime; if not, it follows the runtime's documentation alone.
    pub measured: bool,
}

/// Time that operations take, all in the same unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Costs {
    /// A multiply-accumulate of floats.
    pub float: u64,
    /// One of codes.
    pub quantised: u64,
    /// An element that a product reads or writes: what is no product (LayerNormalization, GELU, Softmax, residuals) grows in
    /// their number.
    pub element: u64,
}

/// How a quantised Linear is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearForm {
    /// `MatMul` of dequantised operands and a bias, which the runtime fuses.
    Dequantised,
    /// `MatMulInteger → Cast → Mul → Add`, integer as it stands; of scales that are constants, or computed.
    Integer(Scales),
    /// `Gemm` of dequantised operands with its bias, which is one operator of the runtime.
    Gemm,
}

/// Scales of an integer product.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scales {
    /// A tensor of the file.
    Constant,
    /// That tensor times a one that the runtime does not know beforehand.
    Computed,
}

/// How the bias of a dequantised product is written; that of an integer one is float.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BiasForm {
    /// int32 codes on the grid of the product's sums, dequantised.
    Int32,
    /// As it is.
    Float,
}

/// Codes of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codes {
    /// uint8 with any zero point; widths from 2 to 8 bits, codebooks and logarithmic codes among them.
    Unsigned,
    /// uint8 with any zero point: 8 bits, evenly spaced.
    Even,
    /// int8 with zero point 0: 8 bits, evenly spaced.
    Symmetric,
}

/// Blocks of inputs that share a scale of a weight (`block_size` of DequantizeLinear, operator set 21).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocks {
    /// None: a scale for each output channel alone.
    None,
    /// Where they divide the inputs.
    Whole,
    /// Everywhere: the last one may have fewer inputs.
    Any,
}

impl Blocks {
    /// Whether `inputs` can be cut in blocks of `block`.
    pub fn cut(self, inputs: usize, block: usize) -> bool {
        match self {
            Blocks::None => false,
            Blocks::Whole => block > 0 && inputs.is_multiple_of(block),
            Blocks::Any => block > 0,
        }
    }
}

/// How the codes of an activation are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quantiser {
    /// `QuantizeLinear`; codes of fewer bits are held to their range in uint8.
    Operator,
    /// `QuantizeLinear` of values that are held to their range before, where there is no integer operator that could.
    Clipped,
    /// The same in arithmetic of floats, where `QuantizeLinear` is slow.
    Arithmetic,
}

/// Values that are quantised.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Values {
    /// What sites read: all else stays float.
    Read,
    /// Every float value: each operator stands between dequantisers and quantisers, as the runtime computes all in integers.
    All,
}

impl Target {
    /// How many codes of a weight share a byte of the file.
    pub fn codes_a_byte(&self, bits: u32) -> usize {
        match bits {
            ..=2 if self.folds_codes => 4,
            ..=4 if self.folds_codes => 2,
            _ => 1,
        }
    }

    /// The same for models of at least this standard operator set.
    pub fn at_least(self, opset: Option<i64>) -> Target {
        Target {
            opset: self.opset.max(opset.unwrap_or(0)),
            ..self
        }
    }

    /// Names of the Linears whose weight alone is to be quantised: quantising their input takes longer than it saves.
    pub fn weight_only(&self, structure: &Structure) -> Vec<String> {
        let outputs = |site: &Site| site.parameters.as_ref().map_or(0, |it| it.outputs);
        let linears = || {
            let sites = structure.sites.iter();
            sites.filter(|site| site.kind == SiteKind::Linear)
        };
        linears()
            .filter(|site| {
                let beside = linears().filter(|other| other.activation == site.activation);
                beside.map(outputs).sum::<usize>() < self.least_outputs
            })
            .map(|site| site.name.clone())
            .collect()
    }
}

impl Default for Target {
    fn default() -> Self {
        ONNX_RUNTIME
    }
}
