//! ```text
//! com.microsoft.BiasGelu(x, b)     →  com.microsoft.Gelu(Add(x, b))
//! com.microsoft.FastGelu(x, b)     →  com.microsoft.FastGelu(Add(x, b))
//! ```
//! What ONNX Runtime's transformer optimiser makes of a Linear's bias and the GELU behind it: the bias goes back to its
//! Linear. Declines nothing.

use super::Report;
use super::contrib::MICROSOFT;
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Op, Outlet};

pub(super) fn apply(graph: &mut Graph, _: &Shapes, _: &mut Report) -> usize {
    let mut fired = 0;
    for id in graph.topological().unwrap_or_default() {
        fired += usize::from(rewrite(graph, id).is_some());
    }
    fired
}

fn rewrite(graph: &mut Graph, id: NodeId) -> Option<()> {
    let op = graph.op(id).filter(|op| op.message.domain() == MICROSOFT)?;
    let gelu = match op.op_type() {
        "BiasGelu" => "Gelu",
        "FastGelu" => "FastGelu",
        _ => return None,
    };
    let name = graph.label(id);
    let (x, bias) = (graph.input(id, 0)?, graph.input(id, 1)?);
    let sum = graph.insert("Add", &format!("{name}/Add"), &[x, bias]);
    let op = Op::new(gelu, &format!("{name}/{gelu}")).in_domain(MICROSOFT);
    let result = graph.insert_op(op, &[sum]);
    graph.supersede(Outlet { node: id, slot: 0 }, result);
    Some(())
}
