//! ```text
//! operator set 13: LayerNormalization(x, γ, β)  →  operator set 17: LayerNormalization(x, γ, β)
//! ```
//! ONNX Runtime has had this operator in the standard domain from operator set 1 on, and its transformer optimiser writes
//! it into models of any set; ONNX has it from 17 on, with the same meaning. So the model is raised.
//!
//! Declines models that cannot be raised, with the operator that hinders.

use super::{Report, upgrade};
use crate::infer::Shapes;
use crate::ir::Graph;

/// Operator set that brought LayerNormalization.
const OPSET: i64 = 17;

pub(super) fn apply(graph: &mut Graph, _: &Shapes, report: &mut Report) -> usize {
    if graph.opset() >= OPSET || !graph.ops().any(|(_, op)| op.is("LayerNormalization")) {
        return 0;
    }
    match upgrade::to(graph, OPSET) {
        Ok(()) => 1,
        Err(error) => {
            report.decline(format!(
                "LayerNormalization in a model of operator set {}: {error}",
                graph.opset()
            ));
            0
        }
    }
}
