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
