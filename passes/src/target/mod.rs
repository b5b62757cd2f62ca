//! What a runtime wants: one file a runtime, each a small table of rules with its reasons.

mod check;
mod onnxruntime;
mod portable;
mod tract;

pub use check::TargetError;
pub use onnxruntime::ONNX_RUNTIME;
pub use portable::PORTABLE;
pub use tract::TRACT;

pub(crate) use check::check;

/// All of them, the default first.
pub const ALL: [Target; 3] = [ONNX_RUNTIME, TRACT, PORTABLE];

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
    /// Least standard operator set of a model with 4-bit initialisers; `None` where 4-bit codes are stored as int8.
    pub packed_opset: Option<i64>,
    /// How a Linear is multiplied.
    pub linear: LinearForm,
    /// Whether operators of other domains than ONNX's own are refused.
    pub standard_only: bool,
}

/// How a quantised Linear is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinearForm {
    /// `MatMul` of dequantised operands and an int32 bias, which the runtime fuses.
    Dequantised,
    /// `MatMulInteger → Cast → Mul → Add`, integer as it stands.
    Integer,
}

impl Default for Target {
    fn default() -> Self {
        ONNX_RUNTIME
    }
}
