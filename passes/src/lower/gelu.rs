//! A GELU that is written as arithmetic, as the operator of operator set 20.
//!
//! ```text
//! x·½·(1 + erf(x/√2))   →   Gelu(x)
//! ```
//! For targets that have no Erf. Exact. Declined: the approximations with tanh and sigmoid, which are other functions and whose
//! operators such targets have.

use crate::ir::{Graph, Op};
use crate::structure::find_gelus;

/// Writes every such GELU as one operator; returns how many there were.
pub fn fuse_gelus(graph: &mut Graph) -> usize {
    let mut gelus = find_gelus(graph);
    gelus.retain(|gelu| gelu.nodes.iter().any(|&node| graph.is(node, "Erf")));
    for gelu in &gelus {
        let name = format!("{}/Gelu", graph.label(gelu.output.node));
        let fused = graph.insert_op(Op::new("Gelu", &name), &[gelu.input]);
        graph.supersede(gelu.output, fused);
    }
    graph.remove_dead();
    gelus.len()
}
