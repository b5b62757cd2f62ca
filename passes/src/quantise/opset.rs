//! The operator set that the emitted forms need.

use crate::ir::Graph;
use crate::plan::{Decision, Plan};
use crate::simplify::upgrade::{self, UpgradeError};
use crate::target::Target;

/// The set that brought DequantizeLinear's `block_size`.
const BLOCKS: i64 = 21;

/// Raises the operator set and IR version to what the plan's forms need at the target; never lowers them.
pub(super) fn raise(graph: &mut Graph, plan: &Plan, target: &Target) -> Result<(), UpgradeError> {
    let in_blocks = |decision: &Decision| matches!(decision, Decision::Linear(linear) if linear.weight.block.is_some());
    let needed = match plan.sites.iter().any(|site| in_blocks(&site.decision)) {
        true => target.opset.max(BLOCKS),
        false => target.opset,
    };
    if graph.opset() < needed {
        upgrade::to(graph, needed)?;
    }
    graph.require_ir_version(upgrade::ir_version(graph.opset()));
    Ok(())
}
