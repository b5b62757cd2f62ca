//! Models that a target cannot run.

use thiserror::Error;

use super::Target;
use crate::ir::{Graph, Op};

/// Operators by the standard operator set that brought them, for a message that names the node.
const INTRODUCED: [(i64, &[&str]); 4] = [
    (
        18,
        &[
            "BitwiseAnd",
            "CenterCropPad",
            "Col2Im",
            "GroupNormalization",
            "Mish",
        ],
    ),
    (20, &["AffineGrid", "Gelu", "StringSplit"]),
    (23, &["Attention", "RMSNormalization", "RotaryEmbedding"]),
    (24, &["Swish", "TensorScatter"]),
];

/// What stands against a target, and what mends it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum TargetError {
    /// An operator that only some runtimes have.
    #[error(
        "node `{node}` is {domain}.{op_type}, no operator of ONNX's own, and the target {target} takes no others: export the model without it, or give --target onnxruntime"
    )]
    Domain {
        /// The node.
        node: String,
        /// Its domain.
        domain: String,
        /// Its operator.
        op_type: String,
        /// The target asked for.
        target: &'static str,
    },
    /// A newer operator set than the target has.
    #[error(
        "the model is of operator set {found}{}, and the target {target} goes up to {newest}: export it with opset_version={newest}, or give --target {other}",
        node.as_ref().map_or_else(String::new, |node| format!(" (node `{node}` needs it)"))
    )]
    Opset {
        /// The model's.
        found: i64,
        /// The target's.
        newest: i64,
        /// A node that an older operator set doesn't have.
        node: Option<String>,
        /// The target asked for.
        target: &'static str,
        /// One that takes it.
        other: &'static str,
    },
}

/// Fails where the target cannot run `graph`, which is of its final operator set.
pub(crate) fn check(graph: &Graph, target: &Target) -> Result<(), TargetError> {
    check_domains(graph, target)?;
    let found = graph.opset();
    let Some(newest) = target.newest_opset.filter(|&newest| found > newest) else {
        return Ok(());
    };
    let newer = |op: &Op| {
        let introduced = INTRODUCED.iter();
        let mut newer = introduced.filter(|(version, _)| *version > newest);
        newer.any(|(_, ops)| ops.iter().any(|it| op.is(it)))
    };
    let node = graph.ops().find(|(_, op)| newer(op));
    Err(TargetError::Opset {
        found,
        newest,
        node: node.map(|(node, _)| graph.label(node)),
        target: target.name,
        other: roomier(found),
    })
}

fn check_domains(graph: &Graph, target: &Target) -> Result<(), TargetError> {
    let foreign = |op: &Op| !op.is(op.op_type());
    let node = graph
        .ops()
        .find(|(_, op)| target.standard_only && foreign(op));
    let Some((node, op)) = node else {
        return Ok(());
    };
    Err(TargetError::Domain {
        node: graph.label(node),
        domain: op.message.domain().to_owned(),
        op_type: op.op_type().to_owned(),
        target: target.name,
    })
}

/// A target that takes the operator set.
fn roomier(opset: i64) -> &'static str {
    let takes = |target: &&Target| target.newest_opset.is_none_or(|newest| newest >= opset);
    super::ALL.iter().find(takes).map_or("tract", |it| it.name)
}
