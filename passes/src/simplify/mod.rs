//! Exact rewrites that bring exporters' spellings to one form: constants folded, shape arithmetic gone but for
//! the batch, LayerNormalization and Linear each in one piece.
//!
//! One rule a file. Names of graph inputs and outputs and the dynamic batch stay.

mod attention;
mod attention_parts;
mod axes;
mod batch_norm_before;
mod bias_behind_reshape;
mod bias_gelu;
mod channel_affine;
mod constants;
mod contrib;
mod einsum;
mod embed_layer_norm;
mod fused_matmul;
mod identity;
mod layer_norm;
mod linear;
mod multi_head_attention;
mod old_layer_norm;
mod packed_attention;
mod shape_arithmetic;
mod skip_layer_norm;
mod strided_slice;
pub mod upgrade;

use std::collections::BTreeMap;
use std::fmt::{Display, Formatter};

use crate::check::debug_check;
use crate::infer::{Shapes, infer};
use crate::ir::{Graph, Outlet, Slot};

/// What was done, and what could not be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// How often each rule fired.
    pub fired: BTreeMap<&'static str, usize>,
    /// Rewrites that matched and were declined, each with its reason.
    pub declined: Vec<String>,
}

impl Report {
    fn decline(&mut self, reason: String) {
        if !self.declined.contains(&reason) {
            self.declined.push(reason);
        }
    }
}

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (rule, times) in &self.fired {
            writeln!(f, "{rule}: {times}")?;
        }
        for reason in &self.declined {
            writeln!(f, "declined: {reason}")?;
        }
        Ok(())
    }
}

/// A rewrite: applies itself wherever it matches and says how often that was.
type Rule = fn(&mut Graph, &Shapes, &mut Report) -> usize;

/// The rules in the order in which they help each other.
const RULES: [(&str, Rule); 18] = [
    ("constants", constants::apply),
    ("identity", identity::apply),
    ("shape_arithmetic", shape_arithmetic::apply),
    ("layer_norm", layer_norm::apply),
    ("skip_layer_norm", skip_layer_norm::apply),
    ("old_layer_norm", old_layer_norm::apply),
    ("packed_attention", packed_attention::apply),
    ("multi_head_attention", multi_head_attention::apply),
    ("embed_layer_norm", embed_layer_norm::apply),
    ("bias_gelu", bias_gelu::apply),
    ("linear", linear::apply),
    ("bias_behind_reshape", bias_behind_reshape::apply),
    ("channel_affine", channel_affine::apply),
    ("batch_norm_before", batch_norm_before::apply),
    ("einsum", einsum::apply),
    ("attention", attention::apply),
    ("fused_matmul", fused_matmul::apply),
    ("strided_slice", strided_slice::apply),
];

/// Every rule makes the graph smaller or brings one operator to its final form, so rounds are few; the limit
/// only guards against a rule that undoes another.
const MAX_ROUNDS: usize = 32;

/// Applies all rules until none fires.
pub fn simplify(graph: &mut Graph) -> Report {
    let mut report = Report::default();
    for _ in 0..MAX_ROUNDS {
        let mut fired = 0;
        for (name, rule) in RULES {
            // Ids of removed nodes are given out again, so shapes never outlive a removal.
            let shapes = infer(graph);
            let times = rule(graph, &shapes, &mut report);
            graph.remove_dead();
            debug_check(graph, name);
            if times > 0 {
                *report.fired.entry(name).or_default() += times;
            }
            fired += times;
        }
        if fired == 0 {
            break;
        }
    }
    report
}

/// Makes the readers of `old` read `new`, an equal value. Declines, as nothing would be gained, where only a
/// sub-graph reads `old`, or where it is a graph output and `new` cannot take its name.
fn bypass(graph: &mut Graph, old: Outlet, new: Outlet) -> bool {
    let renamable =
        graph.op(new.node).is_some() && !graph.is_output(new) && !graph.is_captured(new);
    let read = graph.readers(old).iter().any(|r| r.slot != Slot::Capture);
    let useful = if graph.is_output(old) {
        renamable && !graph.is_captured(old)
    } else {
        read
    };
    if useful {
        graph.replace_uses(old, new);
    }
    useful
}

/// The float constant with one element behind a value, and its rank.
fn scalar(graph: &Graph, value: Outlet) -> Option<(f32, usize)> {
    Some((graph.scalar(value)?, graph.constant_dims(value)?.len()))
}

/// The last part of a node's name exchanged: `/norm1/Add_1` → `/norm1/LayerNormalization`.
fn sibling_name(name: &str, op_type: &str) -> String {
    match name.rfind('/') {
        Some(at) => format!("{}/{op_type}", &name[..at]),
        None if name.is_empty() => op_type.to_owned(),
        None => format!("{name}_{op_type}"),
    }
}
