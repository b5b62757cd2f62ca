//! Images that hold no patch are refused before the walk: tract would run a network without tokens.

use vitq_passes::ir::{Graph, Node, Outlet};
use vitq_passes::structure::{Site, Structure};

use super::WalkError;
use crate::input::Array;

/// Fails where an image is smaller than a patch of the embedding that reads it.
pub(super) fn check(
    graph: &Graph,
    structure: &Structure,
    inputs: &[(String, Array)],
) -> Result<(), WalkError> {
    let too_small = |site: &Site| {
        let patch = site.parameters.as_ref()?.patch?;
        let name = graph.name(image(graph, site.activation)?);
        let (_, array) = inputs.iter().find(|(input, _)| input == name)?;
        let &[_, _, height, width] = array.dims() else {
            return None;
        };
        let fits = height >= patch[0] && width >= patch[1];
        (!fits).then(|| WalkError::TooSmall {
            site: site.name.clone(),
            image: [height, width],
            patch,
        })
    };
    structure
        .sites
        .iter()
        .find_map(too_small)
        .map_or(Ok(()), Err)
}

/// The input that a patch embedding reads, itself or normalised.
fn image(graph: &Graph, mut value: Outlet) -> Option<Outlet> {
    const SAME_SHAPE: [&str; 6] = ["Add", "Cast", "Div", "Identity", "Mul", "Sub"];
    while let Some(op) = graph.op(value.node) {
        if !SAME_SHAPE.iter().any(|same| op.is(same)) {
            return None;
        }
        let mut operands = graph.node_inputs(value.node).into_iter().flatten();
        value = operands.find(|&operand| graph.initializer(operand).is_none())?;
    }
    matches!(graph.node(value.node), Node::Input(_)).then_some(value)
}
