//! Attention: the two products around a Softmax, or an operator that holds all three.
//!
//! ```text
//! Q ─┐
//!    MatMul ── [scale, mask, bias] ── Softmax ── [Dropout, Cast] ── MatMul ──►
//! Kᵀ─┘                                                       V ────┘
//! ```
//! Talking heads (Shazeer et al. 2020) have a Linear over the heads before or behind the Softmax:
//! `Transpose ── MatMul(W [heads, heads]) ── Add(b) ── Transpose`.
//!
//! Declines a Softmax that stands on no product of two activations (a classifier's output), one over another axis
//! than the last, and one whose result is not the first operand of a MatMul (V·A, with a Transpose or without).

use std::collections::BTreeSet;

use super::view::{Through, View, layout};
use super::{Role, Site, SiteKind};
use crate::ir::{NodeId, Op, Outlet};

/// The reason of a Softmax whose weights stand on the right.
const SECOND: &str = "V comes before its result in the product; write it as softmax(Q·Kᵀ)·V in the model's code to have \
                      it quantised; it stays float";

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
    let readers = reader_of(view, weights);
    let product = match Vec::from_iter(readers)[..] {
        [(product, 0)] => product,
        [(_, _)] => return Err(SECOND.into()),
        [] => return Err(unread(view, weights)),
        _ => return Err("more than one MatMul reads its result".into()),
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
        "Mul" | "Add" | "Sub" | "Where" | "ScatterND" | "ScatterElements" => Through::All,
        "Div" | "Clip" => Through::First,
        _ => layout(op),
    };
    let goal = |value: Outlet| product(value) || talks(view, value.node);
    let met = view.behind(input, goal, scaled_or_masked).first()?.node;
    if !talks(view, met) {
        return Some(met);
    }
    let before = view.graph.input(met, 0)?;
    let behind = view.behind(before, product, scaled_or_masked);
    behind.first().map(|v| v.node)
}

/// The MatMul that reads the attention's weights, and the input by which it does; behind a Linear over the heads, if
/// they talk.
fn reader_of(view: &View, weights: Outlet) -> BTreeSet<(NodeId, usize)> {
    let talking = view.ahead(weights, |node, slot| slot == 0 && talks(view, node), layout);
    let (from, through): (_, fn(&Op) -> Through) = match Vec::from_iter(&talking)[..] {
        [&(node, _)] => (Outlet { node, slot: 0 }, |op| {
            if op.is("Add") {
                Through::All
            } else {
                layout(op)
            }
        }),
        _ => (weights, same_values),
    };
    let product = |node: NodeId, _: usize| is(view, node, "MatMul");
    let mut readers = view.ahead(from, product, through);
    if readers.is_empty() {
        readers = view.ahead(
            weights,
            |node, slot| regrouped(view, weights, node, slot),
            axes,
        );
    }
    if readers.is_empty() {
        // The weights may be mixed with others first (ConViT's gated positions).
        return view.ahead(from, product, mixed);
    }
    readers
}

/// Whether a MatMul reads the weights with other axes before the last two (tf2onnx makes one of batch and heads).
fn regrouped(view: &View, weights: Outlet, node: NodeId, slot: usize) -> bool {
    let matrix = |value: Outlet| {
        let dims = view.dims(value)?;
        let [.., rows, columns] = dims[..] else {
            return None;
        };
        Some((rows?, columns?))
    };
    let read = view.graph.input(node, slot).and_then(matrix);
    is(view, node, "MatMul") && read.is_some() && read == matrix(weights)
}

/// Operators that leave every element in its place in memory.
fn axes(op: &Op) -> Through {
    const AXES: [&str; 3] = ["Reshape", "Squeeze", "Unsqueeze"];
    if AXES.iter().any(|axes| op.is(axes)) {
        Through::First
    } else {
        same_values(op)
    }
}

/// [`same_values`], and sums and products with other weights.
fn mixed(op: &Op) -> Through {
    match op.op_type() {
        "Add" | "Mul" => Through::All,
        "Div" => Through::First,
        _ => same_values(op),
    }
}

/// Whether a node is the product of talking heads: a square constant over an axis that a Transpose brought to the end.
fn talks(view: &View, node: NodeId) -> bool {
    let (Some(x), Some(weight)) = (view.graph.input(node, 0), view.graph.input(node, 1)) else {
        return false;
    };
    let square = view
        .graph
        .constant_dims(weight)
        .is_some_and(|d| d.len() == 2 && d[0] == d[1]);
    is(view, node, "MatMul") && square && is(view, x.node, "Transpose") && view.rank(x) == Some(4)
}

/// Why weights that no product reads as they are belong to no attention.
fn unread(view: &View, weights: Outlet) -> String {
    let product = |node: NodeId, _: usize| is(view, node, "MatMul");
    if view.ahead(weights, product, layout).is_empty() {
        "no MatMul reads its result, so there is no attention·V".into()
    } else {
        SECOND.into()
    }
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
        "it does not stand on a product of two activations, but as in factorised attention on one alone; \
         its Linears are quantised all the same, and nothing needs mending"
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
