//! Attention: the two products around a Softmax, or an operator that holds all three.
//!
//! ```text
//! Q ─┐
//!    MatMul ── [scale, mask, bias] ── Softmax ── [Dropout, Cast] ── MatMul ──►
//! Kᵀ─┘                                                       V ────┘
//! ```
//!
//! Declines a Softmax that stands on no product of two activations (a classifier's output), one over another axis
//! than the last, and one whose result is not the first operand of a MatMul.

use super::view::{Through, View, layout};
use super::{Role, Site, SiteKind};
use crate::ir::{NodeId, Op, Outlet};

/// An attention: where its operands come from and where its result goes.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    /// First operand of Q·Kᵀ: `[.., tokens, head]`
    pub query: Outlet,
    /// Second operand of Q·Kᵀ: `[.., head, tokens]`
    pub key: Outlet,
    /// Second operand of attention·V: `[.., tokens, head]`
    pub value: Outlet,
    /// Result of attention·V.
    pub output: Outlet,
    /// The MatMul of Q·Kᵀ, the Softmax and the MatMul of attention·V; `None` for a single operator.
    pub products: Option<[NodeId; 3]>,
}

/// The attention whose weights `softmax` makes, or why there is none.
pub(super) fn around_softmax(view: &View, softmax: NodeId) -> Result<Attention, String> {
    let weights = Outlet {
        node: softmax,
        slot: 0,
    };
    let (Some(op), Some(input)) = (view.graph.op(softmax), view.graph.input(softmax, 0)) else {
        return Err("it has no input: run the ONNX checker on the model".into());
    };
    let scores = scores(view, input).ok_or_else(|| no_scores(view, weights))?;
    let axis = op.int("axis").unwrap_or(-1);
    match view.is_last_axis(weights, axis) {
        Some(true) => {}
        Some(false) => {
            return Err(format!(
                "it runs over axis {axis}, an attention's over the last"
            ));
        }
        None => {
            return Err(format!(
                "it runs over axis {axis} of a value of unknown rank"
            ));
        }
    }
    let readers = view.ahead(weights, |node, _| is(view, node, "MatMul"), same_values);
    let Some(&(product, slot)) = readers.first() else {
        return Err("no MatMul reads its result, so there is no attention·V".into());
    };
    let (0, [_]) = (slot, Vec::from_iter(&readers).as_slice()) else {
        return Err("its result is not the first operand of one MatMul, as in attention·V".into());
    };
    let operand = |node, i| view.graph.input(node, i).ok_or("a MatMul lacks an operand");
    let value = operand(product, 1)?;
    if view.is_constant(value) {
        return Err("its result is multiplied with a constant, not with values".into());
    }
    Ok(Attention {
        query: operand(scores, 0)?,
        key: operand(scores, 1)?,
        value,
        output: Outlet {
            node: product,
            slot: 0,
        },
        products: Some([scores, softmax, product]),
    })
}

/// The attention that one operator computes (ONNX 23's `Attention`, `com.microsoft.MultiHeadAttention`).
pub(super) fn fused(view: &View, node: NodeId) -> Option<Attention> {
    let op = view.graph.op(node)?;
    let separate = op.is("Attention") || op.op_type() == "MultiHeadAttention";
    let input = |i| view.graph.input(node, i);
    separate.then_some(())?;
    Some(Attention {
        query: input(0)?,
        key: input(1)?,
        value: input(2)?,
        output: Outlet { node, slot: 0 },
        products: None,
    })
}

/// The two sites of an attention.
pub(super) fn sites(view: &View, attention: &Attention) -> Vec<Site> {
    let Some([scores, _, product]) = attention.products else {
        return Vec::new();
    };
    let site = |kind, node, activation, second| Site {
        name: String::new(),
        path: String::new(),
        kind,
        role: Role::Product,
        node,
        activation,
        second: Some(second),
        parameters: None,
        output: Outlet { node, slot: 0 },
        norm: None,
    };
    let weights = view.graph.input(product, 0).unwrap_or(attention.output);
    vec![
        site(SiteKind::QueryKey, scores, attention.query, attention.key),
        site(SiteKind::AttentionValue, product, weights, attention.value),
    ]
}

/// Number of heads: the width of all queries over the width of one (the last axis of the operand), else what the
/// operator says, else the second axis of `[batch, heads, tokens, head]`.
pub(super) fn heads(view: &View, attention: &Attention, width: Option<usize>) -> Option<usize> {
    let dims = view.dims(attention.query)?;
    let operator = view.graph.op(attention.output.node)?;
    let stated = operator
        .int("q_num_heads")
        .or_else(|| operator.int("num_heads"));
    let head = dims
        .last()
        .copied()
        .flatten()
        .filter(|&h| h > 0 && attention.products.is_some());
    match (width, head, stated) {
        (Some(width), Some(head), _) if width % head == 0 => Some(width / head),
        (_, _, Some(stated)) => usize::try_from(stated).ok(),
        _ if dims.len() == 4 => dims[1],
        _ => None,
    }
}

/// The product of two activations that the Softmax's input is made of.
fn scores(view: &View, input: Outlet) -> Option<NodeId> {
    let product = |value: Outlet| {
        is(view, value.node, "MatMul")
            && view
                .graph
                .node_inputs(value.node)
                .iter()
                .flatten()
                .all(|&v| !view.is_constant(v))
    };
    let scaled_or_masked = |op: &Op| match op.op_type() {
        "Mul" | "Add" | "Sub" | "Where" => Through::All,
        "Div" | "Clip" => Through::First,
        _ => layout(op),
    };
    view.behind(input, product, scaled_or_masked)
        .first()
        .map(|v| v.node)
}

fn no_scores(view: &View, weights: Outlet) -> String {
    let ends = view.graph.is_output(weights)
        || view.graph.readers(weights).is_empty()
        || view
            .ahead(
                weights,
                |node, _| is(view, node, "MatMul"),
                |_| Through::All,
            )
            .is_empty();
    if ends {
        "it makes the model's output, no attention; it stays float".into()
    } else {
        "it does not stand on a product of two activations, so it is no attention; \
         it stays float"
            .into()
    }
}

/// Operators after which the attention's weights are the same numbers.
fn same_values(op: &Op) -> Through {
    match op.op_type() {
        "Identity" | "Cast" | "Dropout" => Through::First,
        _ => Through::No,
    }
}

fn is(view: &View, node: NodeId, op_type: &str) -> bool {
    view.graph.op(node).is_some_and(|op| op.is(op_type))
}
