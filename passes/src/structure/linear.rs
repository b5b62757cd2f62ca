//! Linear: `MatMul(x, W)` with constant `W [in, out]`, its bias in the `Add` behind it.
//!
//! ```text
//! x ── MatMul(W) ── Add(b) ──►        [.., in] → [.., out]
//! ```
//!
//! Declines weights that are no float32 matrix, and constants in the first operand.

use vitq_onnx::pb::tensor_proto::DataType;

use super::view::View;
use super::{Parameters, Role, Site, SiteKind};
use crate::ir::{NodeId, Outlet, Slot};

/// What a MatMul is.
pub(super) enum MatMul {
    /// A product with a constant weight.
    Linear(Box<Site>),
    /// A product of two activations.
    Product,
    /// None of them, and why.
    Declined(String),
}

pub(super) fn recognise(view: &View, node: NodeId) -> MatMul {
    let (Some(x), Some(w)) = (view.graph.input(node, 0), view.graph.input(node, 1)) else {
        return MatMul::Declined("an operand is missing: run the ONNX checker on the model".into());
    };
    if view.is_constant(x) {
        return MatMul::Declined(
            "the constant is the first operand; only x·W with a constant W is a Linear".into(),
        );
    }
    if !view.is_constant(w) {
        return match decoded_weight(view, w) {
            true => {
                MatMul::Declined("the weight is quantised already: give the float model".into())
            }
            false => MatMul::Product,
        };
    }
    let dims = view.graph.constant_dims(w).unwrap_or_default();
    let &[inputs, outputs] = dims.as_slice() else {
        return MatMul::Declined(format!(
            "the weight has shape {dims:?}; a Linear has one matrix [in, out]"
        ));
    };
    if let Err(reason) = require_float(view, w) {
        return MatMul::Declined(reason);
    }
    let product = Outlet { node, slot: 0 };
    let (bias, output) =
        bias(view, product, outputs).map_or((None, product), |(bias, sum)| (Some(bias), sum));
    MatMul::Linear(Box::new(Site {
        name: String::new(),
        path: String::new(),
        kind: SiteKind::Linear,
        role: Role::Other,
        node,
        activation: x,
        second: None,
        parameters: Some(Parameters {
            weight: w,
            bias,
            inputs,
            outputs,
            patch: None,
        }),
        output,
        norm: None,
    }))
}

/// The bias `[out]` that is added to the product and to nothing else, and the sum.
fn bias(view: &View, product: Outlet, outputs: usize) -> Option<(Outlet, Outlet)> {
    let reader = view.graph.only_reader(product)?;
    let Slot::Input(slot) = reader.slot else {
        return None;
    };
    if !view.graph.op(reader.node)?.is("Add") {
        return None;
    }
    let bias = view.graph.input(reader.node, 1 - slot.min(1))?;
    let dims = view.graph.constant_dims(bias)?;
    let one_row = dims.iter().product::<usize>() == outputs && dims.last() == Some(&outputs);
    // A row of higher rank than the product would add axes to the sum.
    let same_rank = dims.len() == 1 || view.rank(product).is_some_and(|r| r >= dims.len());
    let sum = Outlet {
        node: reader.node,
        slot: 0,
    };
    (one_row && same_rank).then_some((bias, sum))
}

/// Only float32 weights are quantised.
pub(super) fn require_float(view: &View, weight: Outlet) -> Result<(), String> {
    let stored = view.graph.initializer(weight).map_or(0, |t| t.data_type());
    if stored == DataType::Float as i32 {
        return Ok(());
    }
    let name = DataType::try_from(stored).map_or("an unknown type", |t| t.as_str_name());
    Err(format!(
        "the weight is {name}; convert the model to float32 first"
    ))
}

/// Whether the weight comes out of a DequantizeLinear.
fn decoded_weight(view: &View, weight: Outlet) -> bool {
    view.graph.op(weight.node).is_some_and(|op| {
        op.is("DequantizeLinear") && {
            view.graph
                .input(weight.node, 0)
                .is_some_and(|codes| view.is_constant(codes))
        }
    })
}
