//! The operator set that the emitted forms need.

use crate::ir::Graph;
use crate::plan::{Decision, Plan, Weight};
use crate::simplify::upgrade::{self, UpgradeError};
use crate::target::Target;

use super::weight::is_packed;

/// The set that brought DequantizeLinear's `block_size`.
const BLOCKS: i64 = 21;

/// Raises the operator set and IR version to what the plan's forms need at the target; never lowers them.
pub(super) fn raise(graph: &mut Graph, plan: &Plan, target: &Target) -> Result<(), UpgradeError> {
    let any = |is: &dyn Fn(&Weight) -> bool| {
        let mut sites = plan.sites.iter();
        sites.any(|site| matches!(&site.decision, Decision::Linear(it) if is(&it.weight)))
    };
    let packed = any(&|weight| is_packed(weight, target));
    let packed = target.packed_opset.filter(|_| packed);
    let blocks = any(&|weight| weight.block.is_some()).then_some(BLOCKS);
    let needed = target.opset.max(packed.max(blocks).unwrap_or(0));
    if graph.opset() < needed {
        upgrade::to(graph, needed)?;
    }
    graph.require_ir_version(upgrade::ir_version(graph.opset()));
    Ok(())
}
