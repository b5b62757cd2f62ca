//! ```text
//! Add(Reshape(MatMul(x, W)), b)  →  Reshape(Add(MatMul(x, W), b))
//! ```
//! TensorFlow makes matrices of tokens before a Linear, and adds its bias when they are tokens again: the bias goes back to
//! its Linear. It may be shaped as the heads are, `[heads, head]`.
//!
//! Declines reshapes whose last axes are not the bias's.

use vitq_onnx::Tensor;

use super::Report;
use crate::infer::{Dim, Shapes};
use crate::ir::{Graph, NodeId, Outlet, Slot};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let mut fired = 0;
    for id in graph.topological().unwrap_or_default() {
        fired += usize::from(rewrite(graph, shapes, id).is_some());
    }
    fired
}

fn rewrite(graph: &mut Graph, shapes: &Shapes, reshape: NodeId) -> Option<()> {
    if !graph.is(reshape, "Reshape") {
        return None;
    }
    let (product, tokens) = (
        graph.input(reshape, 0)?,
        Outlet {
            node: reshape,
            slot: 0,
        },
    );
    let weight = graph.input(product.node, 1)?;
    let linear = graph.is(product.node, "MatMul") && graph.only_reader(product).is_some();
    let &[_, outputs] = graph.constant_dims(weight)?.as_slice() else {
        return None;
    };
    let reader = graph.only_reader(tokens)?;
    let Slot::Input(slot) = reader.slot else {
        return None;
    };
    let bias = graph.input(reader.node, 1usize.checked_sub(slot)?)?;
    let tensor = graph.tensor(bias)?;
    let fits = linear
        && graph.is(reader.node, "Add")
        && tensor.len() == outputs
        && ends_in(shapes.of(tokens)?, &tensor.dims);
    if !fits {
        return None;
    }
    let row = Tensor {
        dims: vec![outputs],
        ..tensor
    };
    let base = graph.name(bias).to_owned();
    let row = graph.add_initializer(&base, &row);
    let name = graph.label(reader.node);
    let sum = graph.insert("Add", &name, &[product, row]);
    graph.set_input(reshape, 0, sum);
    let old = Outlet {
        node: reader.node,
        slot: 0,
    };
    graph.supersede(old, tokens);
    Some(())
}

/// Whether the last of `dims` are `wanted`, but for ones before them.
fn ends_in(dims: &[Dim], wanted: &[usize]) -> bool {
    let first = wanted.iter().position(|&d| d != 1).unwrap_or(wanted.len());
    let wanted = &wanted[first..];
    let last = dims.len().checked_sub(wanted.len()).map(|at| &dims[at..]);
    let equal = |(dim, &wanted): (&Dim, &usize)| dim.known() == Some(wanted);
    !wanted.is_empty() && last.is_some_and(|last| last.iter().zip(wanted).all(equal))
}
