//! What attention operators are taken apart into.

use vitq_onnx::Tensor;

use crate::ir::{Graph, NodeId, Op, Outlet};

/// softmax(scale·Q·Kᵀ + masks)·V, to be written in standard operators.
pub(super) struct Parts {
    /// What the new nodes' names begin with.
    pub name: String,
    /// Q, K and V.
    pub operands: [Outlet; 3],
    /// In the order in which they meet the scores.
    pub masks: Vec<Mask>,
    /// What the products Q·Kᵀ are multiplied with.
    pub scale: f32,
    /// How many heads stand side by side in the last axis of three-dimensional operands.
    pub heads: Option<i64>,
}

/// What keeps tokens from each other.
pub(super) enum Mask {
    /// Added to the scores.
    Added(Outlet),
    /// True where the score stays, and -∞ else.
    Chosen(Outlet),
}

impl Parts {
    /// Writes the operators in place of the first output of `id`.
    pub fn replace(&self, graph: &mut Graph, id: NodeId) {
        let name = |part: &str| format!("{}/{part}", self.name);
        let mut operands = self.operands;
        if let Some(heads) = self.heads {
            for (operand, part) in operands.iter_mut().zip(["query", "key", "value"]) {
                *operand = apart(graph, &name(part), *operand, heads);
            }
        }
        let [query, key, value] = operands;
        let turned = Op::new("Transpose", &name("Transpose")).with_ints("perm", &[0, 1, 3, 2]);
        let key = graph.insert_op(turned, &[key]);
        let product = graph.insert("MatMul", &name("MatMul"), &[query, key]);
        let scale = graph.add_initializer(&name("scale"), &Tensor::from_f32(&[], &[self.scale]));
        let mut scores = graph.insert("Mul", &name("Mul"), &[product, scale]);
        for mask in &self.masks {
            scores = match *mask {
                Mask::Added(mask) => graph.insert("Add", &name("Add"), &[scores, mask]),
                Mask::Chosen(mask) => {
                    let never = Tensor::from_f32(&[], &[f32::NEG_INFINITY]);
                    let never = graph.add_initializer(&name("masked"), &never);
                    graph.insert("Where", &name("Where"), &[mask, scores, never])
                }
            };
        }
        let softmax = Op::new("Softmax", &name("Softmax")).with_int("axis", -1);
        let weights = graph.insert_op(softmax, &[scores]);
        let mut result = graph.insert("MatMul", &name("MatMul_1"), &[weights, value]);
        if self.heads.is_some() {
            result = joined(graph, &name("joined"), result);
        }
        for made in [product, result] {
            keep_scopes(graph, id, made.node);
        }
        graph.supersede(Outlet { node: id, slot: 0 }, result);
    }
}

/// `[batch, tokens, heads·head]` → `[batch, heads, tokens, head]`
fn apart(graph: &mut Graph, name: &str, value: Outlet, heads: i64) -> Outlet {
    let shape = Tensor::from_i64(&[4], &[0, 0, heads, -1]);
    let shape = graph.add_initializer(&format!("{name}/shape"), &shape);
    let value = graph.insert("Reshape", &format!("{name}/Reshape"), &[value, shape]);
    swapped(graph, name, value)
}

/// `[batch, heads, tokens, head]` → `[batch, tokens, heads·head]`
fn joined(graph: &mut Graph, name: &str, value: Outlet) -> Outlet {
    let value = swapped(graph, name, value);
    let shape = Tensor::from_i64(&[3], &[0, 0, -1]);
    let shape = graph.add_initializer(&format!("{name}/shape"), &shape);
    graph.insert("Reshape", &format!("{name}/Reshape"), &[value, shape])
}

fn swapped(graph: &mut Graph, name: &str, value: Outlet) -> Outlet {
    let op = Op::new("Transpose", &format!("{name}/Transpose"));
    graph.insert_op(op.with_ints("perm", &[0, 2, 1, 3]), &[value])
}

/// The exporter's notes on where the operator stood, on the products that people look for.
fn keep_scopes(graph: &mut Graph, from: NodeId, to: NodeId) {
    let Some(notes) = graph.op(from).map(|op| op.message.metadata_props.clone()) else {
        return;
    };
    if let Some(op) = graph.op_mut(to) {
        op.message.metadata_props = notes;
    }
}
