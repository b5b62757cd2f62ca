//! What a runtime wants: one file a runtime, each a small table of rules with its reasons.

mod onnxruntime;

pub use onnxruntime::ONNX_RUNTIME;

/// Rules of a runtime. Solvers read them for the numbers that they choose, [`crate::quantise`] for the form that it writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// As the command line names it.
    pub name: &'static str,
    /// Least standard operator set of an emitted model.
    pub opset: i64,
    /// Least standard operator set of a model with 4-bit initialisers.
    pub packed_opset: i64,
    /// Whether 8-bit weights should have no zero point.
    pub symmetric_weights: bool,
}

impl Default for Target {
    fn default() -> Self {
        ONNX_RUNTIME
    }
}

/// IR version that models with this standard operator set need at least (ONNX `Versioning.md`, table of releases).
pub(crate) fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}
