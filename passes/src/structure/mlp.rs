//! MLP: Linear → activation function → Linear.
//!
//! ```text
//! Linear ── [depthwise Conv] ── GELU | SiLU | ReLU ── [norm, depthwise Conv] ── Linear
//!
//! Linear ── SiLU ── Mul ── [norm] ── Linear        gated (SwiGLU): both first Linears, or one split in two
//! Linear ───────────┘
//! ```

use super::activation::Activation;
use super::roles::Index;
use super::view::{Through, View, layout};
use crate::ir::{NodeId, Op, Outlet};

/// Indices of the Linears.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mlp {
    /// The first, or the two of a gated MLP.
    pub fc1: Vec<usize>,
    pub fc2: usize,
}

/// The MLP around an activation function, if a Linear stands on each side of it.
pub(super) fn around(view: &View, activation: &Activation, index: &Index) -> Option<Mlp> {
    let mut fc1 = vec![first_linear(view, activation.input, index)?];
    let reads = |node: NodeId, slot| slot == 0 && index.linears.contains_key(&node);
    let after = view.ahead(activation.output, reads, |op| {
        if op.is("Mul") {
            Through::All
        } else {
            between(op)
        }
    });
    let (fc2, _) = after.first()?;
    fc1.extend(gate(view, activation.output, index).filter(|gate| *gate != fc1[0]));
    Some(Mlp {
        fc1,
        fc2: *index.linears.get(fc2)?,
    })
}

/// The Linear whose result a value is, up to operators that an MLP may have inside.
fn first_linear(view: &View, value: Outlet, index: &Index) -> Option<usize> {
    let found = view.behind(value, |v| index.results.contains_key(&v), between);
    index.results.get(found.first()?).copied()
}

/// The Linear that the activation's result is multiplied with.
fn gate(view: &View, activated: Outlet, index: &Index) -> Option<usize> {
    let product = view.graph.only_reader(activated)?.node;
    let operands = view.graph.node_inputs(product);
    let other = operands.into_iter().flatten().find(|v| *v != activated)?;
    let gated = view.graph.is(product, "Mul") && !view.is_constant(other);
    gated.then(|| first_linear(view, other, index))?
}

/// Operators inside of an MLP that keep hidden channels apart.
fn between(op: &Op) -> Through {
    let depthwise = op.is("Conv") && op.int("group").is_some_and(|g| g > 1);
    if depthwise || op.is("LayerNormalization") || op.is("RMSNormalization") {
        Through::First
    } else {
        layout(op)
    }
}
