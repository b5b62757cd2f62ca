//! ```text
//! com.microsoft.SkipLayerNormalization<epsilon>(x, skip, γ, β, b)  →  s = Add(Add(x, b), skip)
//!                                                                     LayerNormalization<axis = -1, epsilon>(s, γ, β)
//! ```
//! What ONNX Runtime's transformer optimiser makes of a residual and the LayerNorm behind it. The sum (output 3), which
//! the next residual reads, is given on.
//!
//! Declines models that cannot be raised to operator set 17, and outputs 1 and 2 (training).

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
    found.retain(|&id| infers(graph, id));
    if found.is_empty() {
        return 0;
    }
    if let Err(error) = upgrade::to(graph, OPSET) {
        let many = found.len();
        report.decline(format!(
            "{many} SkipLayerNormalizations stay whole: {error}"
        ));
        return 0;
    }
    found
        .into_iter()
        .filter_map(|id| rewrite(graph, id))
        .count()
}

/// Whether the node is the operator, and gives nothing that only training needs.
fn infers(graph: &Graph, id: NodeId) -> bool {
    contrib(graph, id, "SkipLayerNormalization")
        .is_some_and(|op| op.outputs.iter().skip(1).take(2).all(String::is_empty))
}

fn rewrite(graph: &mut Graph, id: NodeId) -> Option<()> {
    let op = graph.op(id)?;
    let sums = op.outputs.get(3).is_some_and(|o| !o.is_empty());
    let (epsilon, name) = (op.float("epsilon").unwrap_or(EPSILON), graph.label(id));
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
