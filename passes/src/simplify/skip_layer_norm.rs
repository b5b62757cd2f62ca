//! ```text
//! com.microsoft.SkipLayerNormalization<epsilon>(x, skip, γ, β, b)  →  s = Add(Add(x, b), skip)
//!                                                                     LayerNormalization<axis = -1, epsilon>(s, γ, β)
//! ```
//! What ONNX Runtime's transformer optimiser makes of a residual and the LayerNorm behind it. The sum (output 3), which
//! the next residual reads, is given on.
//!
//! Declines models below operator set 17, which have no LayerNormalization, and outputs 1 and 2 (training).

use super::Report;
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Op, Outlet};

/// What the operator takes for `epsilon` where none is stated.
const EPSILON: f32 = 1e-12;

pub(super) fn apply(graph: &mut Graph, _: &Shapes, _: &mut Report) -> usize {
    if graph.opset() < 17 {
        return 0;
    }
    let mut fired = 0;
    for id in graph.topological().unwrap_or_default() {
        fired += usize::from(rewrite(graph, id).is_some());
    }
    fired
}

fn rewrite(graph: &mut Graph, id: NodeId) -> Option<()> {
    let fused = |op: &&Op| {
        op.message.domain() == "com.microsoft" && op.op_type() == "SkipLayerNormalization"
    };
    let op = graph.op(id).filter(fused)?;
    let trains = op.outputs.iter().skip(1).take(2).any(|o| !o.is_empty());
    let sums = op.outputs.get(3).is_some_and(|o| !o.is_empty());
    let (epsilon, name) = (op.float("epsilon").unwrap_or(EPSILON), graph.label(id));
    if trains {
        return None;
    }
    let (mut x, skip, gamma) = (
        graph.input(id, 0)?,
        graph.input(id, 1)?,
        graph.input(id, 2)?,
    );
    if let Some(bias) = graph.input(id, 4) {
        x = graph.insert("Add", &format!("{name}/Add"), &[x, bias]);
    }
    let sum = graph.insert("Add", &format!("{name}/Add_1"), &[x, skip]);
    let norm = Op::new("LayerNormalization", &format!("{name}/LayerNormalization"))
        .with_int("axis", -1)
        .with_float("epsilon", epsilon);
    let inputs: Vec<Outlet> = [sum, gamma].into_iter().chain(graph.input(id, 3)).collect();
    let norm = graph.insert_op(norm, &inputs);
    graph.supersede(Outlet { node: id, slot: 0 }, norm);
    if sums {
        graph.supersede(Outlet { node: id, slot: 3 }, sum);
    }
    Some(())
}
