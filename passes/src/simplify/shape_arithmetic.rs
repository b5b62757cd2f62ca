//! ```text
//! Reshape(x, Concat(Shape(x)[0], 197, 3, 64))     →  Reshape(x, [0, 197, 3, 64])
//! Reshape(x, Concat(Shape(z)[0], 192, 196))       →  Reshape(x, [-1, 192, 196])
//! Expand(token, Where(Equal(…), …, Concat(…)))    →  Expand(token, Concat(Gather(Shape(input), 0), [1, 192]))
//! ```
//!
//! 0 stands for the same dimension of `x`, -1 for the one dimension that the rest decides. Declines targets with
//! two dimensions that neither can say.

use vitq_onnx::Tensor;

use super::Report;
use crate::infer::{Dim, Entry, Shapes};
use crate::ir::{Graph, NodeId, Op, Outlet};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let ids: Vec<NodeId> = graph.topological().unwrap_or_default();
    ids.into_iter()
        .filter(|&id| {
            reshape(graph, shapes, id)
                .or_else(|| target(graph, shapes, id))
                .is_some()
        })
        .count()
}

/// A Reshape whose target can be said by numbers, 0 and -1.
fn reshape(graph: &mut Graph, shapes: &Shapes, id: NodeId) -> Option<()> {
    let op = graph.op(id).filter(|op| op.is("Reshape"))?;
    let (x, target) = (graph.input(id, 0)?, graph.input(id, 1)?);
    if graph.initializer(target).is_some() {
        return None;
    }
    let dims = shapes.of(Outlet { node: id, slot: 0 })?;
    let zero_copies = op.int("allowzero").unwrap_or(0) == 0;
    let mut open = false;
    let entry = |(i, dim): (usize, &Dim)| match dim {
        Dim::Known(0) => None,
        Dim::Known(size) => i64::try_from(*size).ok(),
        symbol
            if zero_copies
                && shapes
                    .of(x)
                    .and_then(|s| s.get(i))
                    .is_some_and(|d| d.same(symbol)) =>
        {
            Some(0)
        }
        _ if open => None,
        _ => {
            open = true;
            Some(-1)
        }
    };
    let entries: Vec<i64> = dims.iter().enumerate().map(entry).collect::<Option<_>>()?;
    let base = graph.name(target).to_owned();
    let constant = graph.add_initializer(&base, &Tensor::from_i64(&[entries.len()], &entries));
    graph.set_input(id, 1, constant);
    Some(())
}

/// A target with one symbol, a dimension of a graph input: read straight from there.
fn target(graph: &mut Graph, shapes: &Shapes, id: NodeId) -> Option<()> {
    let op = graph.op(id)?;
    let slot = match op.op_type() {
        "Expand" | "Tile" => 1,
        "ConstantOfShape" => 0,
        _ => return None,
    };
    let target = graph.input(id, slot)?;
    let entries = shapes.entries(target)?.to_vec();
    let mut symbols = entries
        .iter()
        .enumerate()
        .filter(|(_, e)| e.known().is_none());
    let (at, Entry::Symbol(symbol)) = symbols.next()? else {
        return None;
    };
    let parts = 3 - usize::from(entries.len() == 1);
    if symbols.next().is_some() || ops_behind(graph, target) <= parts {
        return None;
    }
    let (input, axis) = dimension_of_input(graph, shapes, symbol)?;
    let value = rebuilt(graph, id, &entries, at, input, axis);
    graph.set_input(id, slot, value);
    Some(())
}

fn rebuilt(
    graph: &mut Graph,
    id: NodeId,
    entries: &[Entry],
    at: usize,
    input: Outlet,
    axis: usize,
) -> Outlet {
    let name = graph.label(id);
    let shape = graph.insert("Shape", &format!("{name}/Shape"), &[input]);
    let axis = graph.add_initializer(
        &format!("{name}/axis"),
        &Tensor::from_i64(&[1], &[axis as i64]),
    );
    let gather = Op::new("Gather", &format!("{name}/Gather")).with_int("axis", 0);
    let size = graph.insert_op(gather, &[shape, axis]);
    let mut parts = Vec::new();
    for (part, base) in [(&entries[..at], "before"), (&entries[at + 1..], "after")] {
        let numbers: Vec<i64> = part.iter().filter_map(Entry::known).collect();
        if !numbers.is_empty() {
            let tensor = Tensor::from_i64(&[numbers.len()], &numbers);
            parts.push(graph.add_initializer(&format!("{name}/{base}"), &tensor));
        }
        if base == "before" {
            parts.push(size);
        }
    }
    match parts[..] {
        [only] => only,
        _ => graph.insert_op(
            Op::new("Concat", &format!("{name}/Concat")).with_int("axis", 0),
            &parts,
        ),
    }
}

/// The graph input and axis that have this symbolic size.
fn dimension_of_input(graph: &Graph, shapes: &Shapes, symbol: &str) -> Option<(Outlet, usize)> {
    graph.inputs().find_map(|input| {
        let is_symbol = |d: &Dim| matches!(d, Dim::Symbol(s) if s == symbol);
        Some((input, shapes.of(input)?.iter().position(is_symbol)?))
    })
}

/// Number of operators that a shape is computed by, up to the values whose shapes it reads.
fn ops_behind(graph: &Graph, value: Outlet) -> usize {
    let mut seen = std::collections::HashSet::new();
    let mut stack = vec![value];
    while let Some(value) = stack.pop() {
        if graph.op(value.node).is_some()
            && seen.insert(value.node)
            && !graph.is(value.node, "Shape")
        {
            stack.extend(graph.node_inputs(value.node).into_iter().flatten());
        }
    }
    let shape_of_inner = |id: &NodeId| {
        graph.is(*id, "Shape")
            && graph
                .input(*id, 0)
                .is_some_and(|x| graph.op(x.node).is_some())
    };
    // Reading the shape of an inner value is never the final form.
    seen.len()
        + if seen.iter().any(shape_of_inner) {
            3
        } else {
            0
        }
}
