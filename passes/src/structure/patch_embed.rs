//! Patch embedding: a Conv on the network's input whose kernel equals its stride, a Linear on patches.
//!
//! ```text
//! image ── [Sub, Div, Mul, Add: normalisation] ── Conv(kernel h×w, stride h×w, no padding, one group) ──►
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
    let patch = patches(op, &dims)?;
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
            patch: Some(patch),
        }),
        output: Outlet { node, slot: 0 },
        norm: None,
    })
}

/// Height and width of a patch, if the kernel's places neither overlap nor leave gaps.
fn patches(op: &Op, dims: &[usize]) -> Result<[usize; 2], String> {
    let &[_, _, height, width] = dims else {
        return Err(format!(
            "its kernel {dims:?} is not one of images, which is all that vitq quantises here"
        ));
    };
    let kernel = [height as i64, width as i64];
    let strides = op.ints("strides").unwrap_or(&[1, 1]);
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
        None | Some("" | "NOTSET" | "VALID") => Ok([height, width]),
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
