//! ```text
//! com.microsoft.EmbedLayerNormalization<epsilon>(ids, segments, W, P, S, γ, β, –, positions)
//!   →  s = Add(Add(Gather(W, ids), Gather(P, positions)), Gather(S, segments))
//!      LayerNormalization<axis = -1, epsilon>(s, γ, β)
//! ```
//! What ONNX Runtime's transformer optimiser makes of the embeddings of text. Without `positions` they are 0, 1, 2 …:
//! the first rows of P. The sum (output 2) is given on.
//!
//! Output 1, the lengths of the texts, is ReduceSum(mask = 1); it stays with the operator where that has no mask. Declines models that cannot be raised to operator set 17.

use vitq_onnx::{DataType, Tensor};

use super::contrib::contrib;
use super::{Report, upgrade};
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Op, Outlet};

/// Operator set that brought LayerNormalization.
const OPSET: i64 = 17;
/// What the operator takes for `epsilon` where none is stated.
const EPSILON: f32 = 1e-12;

pub(super) fn apply(graph: &mut Graph, _: &Shapes, report: &mut Report) -> usize {
    let mut found = graph.topological().unwrap_or_default();
    found.retain(|&id| is_read(graph, id));
    if found.is_empty() {
        return 0;
    }
    if let Err(error) = upgrade::to(graph, OPSET) {
        report.decline(format!("an EmbedLayerNormalization stays whole: {error}"));
        return 0;
    }
    found
        .into_iter()
        .filter_map(|id| rewrite(graph, id))
        .count()
}

/// Whether the node is the operator, and anything is read that it can be rid of.
fn is_read(graph: &Graph, id: NodeId) -> bool {
    let lengths = graph.input(id, 7).is_some() && reads(graph, id, 1);
    contrib(graph, id, "EmbedLayerNormalization").is_some()
        && (reads(graph, id, 0) || reads(graph, id, 2) || lengths)
}

fn reads(graph: &Graph, id: NodeId, slot: usize) -> bool {
    let value = Outlet { node: id, slot };
    !graph.readers(value).is_empty() || graph.is_output(value)
}

fn rewrite(graph: &mut Graph, id: NodeId) -> Option<()> {
    let op = graph.op(id)?;
    let epsilon = op.float("epsilon").unwrap_or(EPSILON);
    let sums = op.outputs.get(2).is_some_and(|o| !o.is_empty());
    let name = graph.label(id);
    let [ids, words, gamma, beta] = [0, 2, 5, 6].map(|i| graph.input(id, i));
    let (ids, words) = (ids?, words?);
    let mut sum = graph.insert("Gather", &format!("{name}/words/Gather"), &[words, ids]);
    let positions = positions(graph, id, &name, ids)?;
    sum = graph.insert("Add", &format!("{name}/Add"), &[sum, positions]);
    if let (Some(segments), Some(table)) = (graph.input(id, 1), graph.input(id, 4)) {
        let gather = format!("{name}/segments/Gather");
        let segments = graph.insert("Gather", &gather, &[table, segments]);
        sum = graph.insert("Add", &format!("{name}/Add_1"), &[sum, segments]);
    }
    let norm = Op::new("LayerNormalization", &format!("{name}/LayerNormalization"))
        .with_int("axis", -1)
        .with_float("epsilon", epsilon);
    let inputs: Vec<Outlet> = [Some(sum), gamma, beta].into_iter().flatten().collect();
    let norm = graph.insert_op(norm, &inputs);
    graph.supersede(Outlet { node: id, slot: 0 }, norm);
    if let Some(mask) = graph.input(id, 7)
        && reads(graph, id, 1)
    {
        let lengths = lengths(graph, &name, mask);
        graph.supersede(Outlet { node: id, slot: 1 }, lengths);
    }
    if sums {
        graph.supersede(Outlet { node: id, slot: 2 }, sum);
    }
    Some(())
}

/// How many tokens of each text count: those whose mask is 1.
fn lengths(graph: &mut Graph, name: &str, mask: Outlet) -> Outlet {
    let name = |part: &str| format!("{name}/lengths/{part}");
    let one = graph.add_initializer(&name("one"), &Tensor::from_i32(&[], &[1]));
    let counts = graph.insert("Equal", &name("Equal"), &[mask, one]);
    let cast = Op::new("Cast", &name("Cast")).with_int("to", DataType::Int32 as i64);
    let counts = graph.insert_op(cast, &[counts]);
    let axis = graph.add_initializer(&name("axis"), &Tensor::from_i64(&[1], &[1]));
    let sum = Op::new("ReduceSum", &name("ReduceSum")).with_int("keepdims", 0);
    graph.insert_op(sum, &[counts, axis])
}

/// The embeddings of the positions.
fn positions(graph: &mut Graph, id: NodeId, name: &str, ids: Outlet) -> Option<Outlet> {
    let table = graph.input(id, 3)?;
    if let Some(positions) = graph.input(id, 8) {
        let gather = format!("{name}/positions/Gather");
        return Some(graph.insert("Gather", &gather, &[table, positions]));
    }
    let name = |part: &str| format!("{name}/positions/{part}");
    let shape = graph.insert("Shape", &name("Shape"), &[ids]);
    let one = graph.add_initializer(&name("one"), &Tensor::from_i64(&[1], &[1]));
    let zero = graph.add_initializer(&name("zero"), &Tensor::from_i64(&[1], &[0]));
    let count = graph.insert("Gather", &name("Gather"), &[shape, one]);
    Some(graph.insert("Slice", &name("Slice"), &[table, zero, count]))
}
