//! What ONNX Runtime's own attention operators have in common.

use vitq_onnx::{DataType, Tensor};

use super::attention_parts::Mask;
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Op, Outlet};

/// The domain of ONNX Runtime's own operators.
pub(super) const MICROSOFT: &str = "com.microsoft";

/// What is added to the scores of masked tokens where the operator doesn't say.
const MASKED: f32 = -10000.0;

/// The operator behind a node, if it is ONNX Runtime's own of that type.
pub(super) fn contrib<'g>(graph: &'g Graph, id: NodeId, op_type: &str) -> Option<&'g Op> {
    graph
        .op(id)
        .filter(|op| op.message.domain() == MICROSOFT && op.op_type() == op_type)
}

/// Whether an attention is nothing but softmax(Q·Kᵀ)·V: not causal, nothing rotated, one output.
pub(super) fn is_plain(op: &Op) -> bool {
    let off = |name: &str| op.int(name).unwrap_or(0) == 0;
    let alone = op.outputs.iter().skip(1).all(String::is_empty);
    off("unidirectional") && off("do_rotary") && alone
}

/// The scale of the scores, for heads of this width.
pub(super) fn scale(op: &Op, head: usize) -> f32 {
    let stated = op.float("scale").filter(|&scale| scale != 0.0);
    stated.unwrap_or(1.0 / (head as f32).sqrt())
}

/// What tells tokens from padding.
pub(super) enum Padding {
    /// Every token counts.
    None,
    /// `int32 [batch, tokens]`, above 0 where a token counts.
    Tokens(Outlet),
    /// `int32 [batch]`: that many tokens count, the first ones.
    Lengths(Outlet),
}

/// The padding that input `slot` of an attention tells; `None` for forms that are not understood.
pub(super) fn padding(graph: &Graph, shapes: &Shapes, id: NodeId, slot: usize) -> Option<Padding> {
    let Some(mask) = graph.input(id, slot) else {
        return Some(Padding::None);
    };
    // EmbedLayerNormalization without a mask gives lengths of 0: the same is then added to every score, which changes nothing.
    let lengths = contrib(graph, mask.node, "EmbedLayerNormalization");
    if lengths.is_some() && graph.input(mask.node, 7).is_none() {
        return Some(Padding::None);
    }
    if shapes.dtype(mask) != Some(DataType::Int32) {
        return None;
    }
    let batch = shapes.of(graph.input(id, 0)?)?.first()?;
    match shapes.of(mask)? {
        [_, _] => Some(Padding::Tokens(mask)),
        // As many again, or more, say where the tokens begin as well.
        [samples] if samples.same(batch) => Some(Padding::Lengths(mask)),
        _ => None,
    }
}

/// The mask that a padding makes of the scores `[batch, heads, tokens, tokens]`; `keys` is `[batch, tokens, width]`.
pub(super) fn mask(graph: &mut Graph, id: NodeId, keys: Outlet, padding: &Padding) -> Option<Mask> {
    let name = format!("{}/mask", graph.label(id));
    let masked = graph.op(id)?.float("mask_filter_value").unwrap_or(MASKED);
    let counts = match *padding {
        Padding::None => return None,
        Padding::Tokens(tokens) => above_zero(graph, &name, tokens),
        Padding::Lengths(lengths) => within(graph, &name, lengths, keys),
    };
    let kept = Tensor::from_f32(&[], &[0.0]);
    let kept = graph.add_initializer(&format!("{name}/kept"), &kept);
    let masked = Tensor::from_f32(&[], &[masked]);
    let masked = graph.add_initializer(&format!("{name}/masked"), &masked);
    let mask = graph.insert("Where", &format!("{name}/Where"), &[counts, kept, masked]);
    Some(Mask::Added(mask))
}

/// `[batch, tokens]` → `bool [batch, 1, 1, tokens]`: which are above 0.
fn above_zero(graph: &mut Graph, name: &str, tokens: Outlet) -> Outlet {
    let zero = Tensor::from_i32(&[], &[0]);
    let zero = graph.add_initializer(&format!("{name}/zero"), &zero);
    let tokens = unsqueezed(graph, name, tokens, &[1, 2]);
    graph.insert("Greater", &format!("{name}/Greater"), &[tokens, zero])
}

/// `[batch]` → `bool [batch, 1, 1, tokens]`: which tokens come before that length.
fn within(graph: &mut Graph, name: &str, lengths: Outlet, keys: Outlet) -> Outlet {
    let number = |graph: &mut Graph, part: &str, value: i64| {
        graph.add_initializer(&format!("{name}/{part}"), &Tensor::from_i64(&[], &[value]))
    };
    let [zero, one] = [("from", 0), ("step", 1)].map(|(part, value)| number(graph, part, value));
    let shape = graph.insert("Shape", &format!("{name}/Shape"), &[keys]);
    let count = graph.insert("Gather", &format!("{name}/Gather"), &[shape, one]);
    let places = graph.insert("Range", &format!("{name}/Range"), &[zero, count, one]);
    let cast = Op::new("Cast", &format!("{name}/Cast"));
    let lengths = graph.insert_op(cast.with_int("to", DataType::Int64 as i64), &[lengths]);
    let lengths = unsqueezed(graph, name, lengths, &[1, 2, 3]);
    graph.insert("Less", &format!("{name}/Less"), &[places, lengths])
}

fn unsqueezed(graph: &mut Graph, name: &str, value: Outlet, axes: &[i64]) -> Outlet {
    let axes = Tensor::from_i64(&[axes.len()], axes);
    let axes = graph.add_initializer(&format!("{name}/axes"), &axes);
    graph.insert("Unsqueeze", &format!("{name}/Unsqueeze"), &[value, axes])
}
