//! The operator set that the emitted forms need.

use crate::ir::Graph;
use crate::plan::{Decision, Plan};
use crate::simplify::upgrade::{self, UpgradeError};
use crate::target::Target;

use super::weight::is_packed;

/// Raises the operator set and IR version to what the plan's forms need at the target; never lowers them.
pub(super) fn raise(graph: &mut Graph, plan: &Plan, target: &Target) -> Result<(), UpgradeError> {
    let packed = plan
        .sites
        .iter()
        .any(|s| matches!(&s.decision, Decision::Linear(l) if is_packed(&l.weight, target)));
    let needed = target
        .packed_opset
        .filter(|_| packed)
        .unwrap_or(target.opset);
    if graph.opset() < needed {
        upgrade::to(graph, needed)?;
    }
    graph.require_ir_version(upgrade::ir_version(graph.opset()));
    Ok(())
}
