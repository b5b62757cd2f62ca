//! ```text
//! Slice<step n>(Reshape(x))  →  Gather(Reshape(x), [start, start + n, …])          n > 1, along one axis of known size
//! ```
//! LeViT thins its tokens out so. tract 0.23.9 moves such a Slice in front of the Reshape and then refuses the axis that is
//! not there; a Gather stays where it is. Declines several axes at once, negative steps, unknown sizes, and a Slice that
//! stands on anything else than a Reshape or such a Gather: tract runs those.

use vitq_onnx::Tensor;

use super::{Report, axes::normal};
use crate::infer::{Dim, Shapes};
use crate::ir::{Graph, NodeId, Op, Outlet};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let mut fired = 0;
    for id in graph.topological().unwrap_or_default() {
        fired += usize::from(rewrite(graph, shapes, id).is_some());
    }
    fired
}

fn rewrite(graph: &mut Graph, shapes: &Shapes, id: NodeId) -> Option<()> {
    let op = graph.op(id).filter(|op| op.is("Slice"))?;
    let name = op.message.name().to_owned();
    let x = graph.input(id, 0)?;
    if !graph.is(x.node, "Reshape") && !graph.is(x.node, "Gather") {
        return None;
    }
    let single = |i: usize| match shapes.ints(graph.input(id, i)?)?[..] {
        [value] => Some(value),
        _ => None,
    };
    let (start, end, axis, step) = (single(1)?, single(2)?, single(3)?, single(4)?);
    let dims = shapes.of(x)?;
    let axis = normal(axis, dims.len())?;
    let &Dim::Known(size) = dims.get(axis)? else {
        return None;
    };
    let size = i64::try_from(size).ok()?;
    let clamp = |at: i64| if at < 0 { at.saturating_add(size) } else { at }.clamp(0, size);
    let step = usize::try_from(step).ok().filter(|&step| step > 1)?;
    let indices: Vec<i64> = (clamp(start)..clamp(end)).step_by(step).collect();
    let indices = Tensor::from_i64(&[indices.len()], &indices);
    let indices = graph.add_initializer(&format!("{}/indices", graph.label(id)), &indices);
    let gather = Op::new("Gather", &name).with_int("axis", axis as i64);
    let chosen = graph.insert_op(gather, &[x, indices]);
    graph.supersede(Outlet { node: id, slot: 0 }, chosen);
    Some(())
}
