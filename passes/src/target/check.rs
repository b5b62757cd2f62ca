//! Models that a target cannot run.

use thiserror::Error;

use super::{Blocks, Codes, Target, Values};
use crate::ir::{Graph, Op};
use crate::plan::{Activation, Decision, Plan, Weight};

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
    /// A newer operator set was asked for than the target has.
    #[error(
        "operator set {wanted} was asked for, and the target {target} goes up to {newest}: give --opset {newest}, or another --target"
    )]
    Raised {
        /// The one asked for.
        wanted: i64,
        /// The target's.
        newest: i64,
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
    /// Activations of fewer bits than the target has.
    #[error(
        "site `{site}`: the target {target} has no activations of fewer than 8 bits: give --bits w8a8 or w4a8 (and no narrower --edge-bits), or --target onnxruntime"
    )]
    Width {
        /// The site.
        site: String,
        /// The target asked for.
        target: &'static str,
    },
    /// Weights with a scale a block, where the target takes a scale a channel.
    #[error(
        "site `{site}`: the target {target} has no weights with a scale a block (DequantizeLinear's block_size, operator set 21): leave --block out, or give --target onnxruntime"
    )]
    Blocks {
        /// The site.
        site: String,
        /// The target asked for.
        target: &'static str,
    },
    /// A plan with a shorter last block, where the target takes whole ones.
    #[error(
        "site `{site}`: {inputs} inputs in blocks of {block} leave a shorter last one, and the target {target} takes whole ones alone: make the plan again with --target {target}"
    )]
    LastBlock {
        /// The site.
        site: String,
        /// Inputs of its weight.
        inputs: usize,
        /// Those of a block.
        block: usize,
        /// The target asked for.
        target: &'static str,
    },
    /// A plan without the ranges of what is quantised beside sites.
    #[error(
        "the plan has no ranges of the values between its sites, which the target {target} wants quantised: make the plan again with --target {target}"
    )]
    Ranges {
        /// The target asked for.
        target: &'static str,
    },
    /// A plan that was made for other codes.
    #[error(
        "site `{site}`: the plan quantises its input to {codes}, and the target {target} has {has} alone: make the plan again with --target {target}"
    )]
    Codes {
        /// The site.
        site: String,
        /// What the plan says.
        codes: &'static str,
        /// What the target has.
        has: &'static str,
        /// The target asked for.
        target: &'static str,
    },
}

impl Target {
    /// Fails where the target cannot run `graph` for its operators.
    ///
    /// # Errors
    /// An operator of a foreign domain, or too new an operator set, in the graph or asked for.
    pub fn check(&self, graph: &Graph) -> Result<(), TargetError> {
        if let Some(newest) = self.newest_opset.filter(|newest| self.opset > *newest) {
            return Err(TargetError::Raised {
                wanted: self.opset,
                newest,
                target: self.name,
            });
        }
        check_domains(graph, self)?;
        check_opset(graph, self)
    }

    /// Fails where the target has no activations of `bits`.
    ///
    /// # Errors
    /// It has not.
    pub fn check_width(&self, site: &str, bits: u32) -> Result<(), TargetError> {
        match self.codes {
            Codes::Symmetric | Codes::Even if bits < 8 => Err(TargetError::Width {
                site: site.to_owned(),
                target: self.name,
            }),
            _ => Ok(()),
        }
    }

    /// Fails where the target has no weights with a scale a block.
    ///
    /// # Errors
    /// It has not.
    pub fn check_block(&self, site: &str) -> Result<(), TargetError> {
        if self.blocks == Blocks::None {
            return Err(TargetError::Blocks {
                site: site.to_owned(),
                target: self.name,
            });
        }
        Ok(())
    }
}

/// Fails where the target cannot cut the plan's weights in their blocks.
pub(crate) fn check_blocks(plan: &Plan, target: &Target) -> Result<(), TargetError> {
    plan.sites.iter().try_for_each(|site| match &site.decision {
        Decision::Linear(linear) => check_weight(&site.site, &linear.weight, target),
        Decision::Float { .. } | Decision::Product { .. } => Ok(()),
    })
}

fn check_weight(site: &str, weight: &Weight, target: &Target) -> Result<(), TargetError> {
    let Some(block) = weight.block else {
        return Ok(());
    };
    target.check_block(site)?;
    let inputs = weight.inputs();
    if target.blocks == Blocks::Whole && !target.blocks.cut(inputs, block) {
        return Err(TargetError::LastBlock {
            site: site.to_owned(),
            inputs,
            block,
            target: target.name,
        });
    }
    Ok(())
}

/// Fails where the plan lacks the ranges that the target needs.
pub(crate) fn check_ranges(plan: &Plan, target: &Target) -> Result<(), TargetError> {
    if target.values == Values::All && plan.values.is_empty() {
        return Err(TargetError::Ranges {
            target: target.name,
        });
    }
    Ok(())
}

/// Fails where the target lacks the codes of the plan's activations.
pub(crate) fn check_codes(plan: &Plan, target: &Target) -> Result<(), TargetError> {
    if target.codes == Codes::Unsigned {
        return Ok(());
    }
    plan.sites.iter().try_for_each(|site| {
        let mut activations = match &site.decision {
            Decision::Float { .. } => vec![],
            Decision::Linear(linear) => vec![&linear.activation],
            Decision::Product { left, right } => vec![left, right],
        }
        .into_iter();
        activations.try_for_each(|it| check_activation(&site.site, it, target))
    })
}

fn check_activation(
    site: &str,
    activation: &Activation,
    target: &Target,
) -> Result<(), TargetError> {
    let symmetric = target.codes == Codes::Symmetric;
    let codes = match activation {
        Activation::Float => return Ok(()),
        Activation::Uniform {
            bits: 8,
            zero_point,
            ..
        } if !symmetric || *zero_point == 128 => return Ok(()),
        Activation::Uniform { bits: 8, .. } => "codes that do not lie around zero",
        Activation::Uniform { bits, .. } => return target.check_width(site, *bits),
        Activation::Log { .. } => "logarithmic codes",
        Activation::Codebook { .. } => "a codebook",
    };
    Err(TargetError::Codes {
        site: site.to_owned(),
        codes,
        has: if symmetric {
            "int8 with zero point 0"
        } else {
            "evenly spaced uint8"
        },
        target: target.name,
    })
}

fn check_opset(graph: &Graph, target: &Target) -> Result<(), TargetError> {
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
