//! Patch embedding: a Conv on the network's input whose kernel equals its stride, a Linear on patches.
//!
//! ```text
//! image ── [Sub, Div, Mul, Add: normalisation] ── Conv(kernel p×p, stride p, no padding, one group) ──►
//! ```
//!
//! Declines every other convolution, naming the attribute that differs.

use super::linear::require_float;
use super::view::{Through, View, layout};
use super::{Parameters, Role, Site, SiteKind};
use crate::ir::{NodeId, Op, Outlet};

/// The site, or why the Conv is none.
pub(super) fn recognise(view: &View, node: NodeId) -> Result<Site, String> {
    let graph = view.graph;
    let (Some(op), Some(x), Some(w)) = (graph.op(node), graph.input(node, 0), graph.input(node, 1))
    else {
        return Err("an operand is missing: run the ONNX checker on the model".into());
    };
    let Some(dims) = graph.constant_dims(w) else {
        return Err("the kernel is not constant".into());
    };
    let [outputs, inputs @ ..] = dims.as_slice() else {
        return Err("the kernel is a single number".into());
    };
    let bias = graph.input(node, 2);
    if bias.is_some_and(|b| !view.is_constant(b)) {
        return Err("its bias is not constant".into());
    }
    require_float(view, w)?;
    patches(op, &dims)?;
    if !reads_input(view, x) {
        return Err(
            "a convolution inside the network; only the patch embedding on the \
                    network's input is quantised"
                .into(),
        );
    }
    Ok(Site {
        name: String::new(),
        path: String::new(),
        kind: SiteKind::PatchEmbed,
        role: Role::PatchEmbed,
        node,
        activation: x,
        second: None,
        parameters: Some(Parameters {
            weight: w,
            bias,
            inputs: inputs.iter().product(),
            outputs: *outputs,
        }),
        output: Outlet { node, slot: 0 },
        norm: None,
    })
}

/// Edge of a patch in pixels.
pub(super) fn patch(view: &View, site: &Site) -> Option<usize> {
    let weight = site.parameters.as_ref()?.weight;
    view.graph.constant_dims(weight)?.get(2).copied()
}

/// Checks that the kernel's places neither overlap nor leave gaps.
fn patches(op: &Op, dims: &[usize]) -> Result<(), String> {
    let kernel: Vec<i64> = dims.iter().skip(2).map(|&d| d as i64).collect();
    let strides = op
        .ints("strides")
        .map_or_else(|| vec![1; kernel.len()], <[i64]>::to_vec);
    if kernel.len() != 2 || kernel[0] != kernel[1] {
        return Err(format!(
            "its patches {kernel:?} are not square, which is all that vitq quantises here"
        ));
    }
    if strides != kernel {
        return Err(format!(
            "kernel {kernel:?} and stride {strides:?} differ, so it is no patch embedding"
        ));
    }
    if op.int("group").unwrap_or(1) != 1 {
        return Err("the convolution is grouped".into());
    }
    if op.ints("pads").is_some_and(|p| p.iter().any(|&p| p != 0)) {
        return Err("the convolution pads the image".into());
    }
    if op
        .ints("dilations")
        .is_some_and(|d| d.iter().any(|&d| d != 1))
    {
        return Err("the convolution is dilated".into());
    }
    match op.string("auto_pad") {
        None | Some("" | "NOTSET" | "VALID") => Ok(()),
        Some(other) => Err(format!("the convolution pads the image (auto_pad {other})")),
    }
}

fn reads_input(view: &View, x: Outlet) -> bool {
    let inputs: Vec<Outlet> = view.graph.inputs().collect();
    let normalisation = |op: &Op| match op.op_type() {
        "Sub" | "Div" | "Mul" | "Add" => Through::All,
        _ => layout(op),
    };
    !view
        .behind(x, |value| inputs.contains(&value), normalisation)
        .is_empty()
}
