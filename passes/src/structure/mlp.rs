//! MLP: Linear → GELU → Linear.

use super::gelu::Gelu;
use super::roles::Index;
use super::view::{View, layout};
use crate::ir::NodeId;

/// Indices of the two Linears.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mlp {
    pub fc1: usize,
    pub fc2: usize,
}

/// The MLP around a GELU, if a Linear stands on each side of it.
pub(super) fn around(view: &View, gelu: &Gelu, index: &Index) -> Option<Mlp> {
    let before = view.behind(
        gelu.input,
        |value| index.results.contains_key(&value),
        layout,
    );
    let reads = |node: NodeId, slot| slot == 0 && index.linears.contains_key(&node);
    let after = view.ahead(gelu.output, reads, layout);
    let (fc1, (fc2, _)) = (before.first()?, after.first()?);
    Some(Mlp {
        fc1: *index.results.get(fc1)?,
        fc2: *index.linears.get(fc2)?,
    })
}
