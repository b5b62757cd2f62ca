//! A BatchNormalization is folded into the Linear or Conv that reads it.
//!
//! ```text
//! Add(MatMul([Transpose](BatchNormalization(x)), W), b)  →  Add(MatMul([Transpose](x), diag(g)·W), b + h·W)
//! Conv(BatchNormalization(x), W, b)                      →  Conv(x, W', b')
//!
//! g = γ/√(σ² + ε), h = β - g·μ
//! W'[o, c, …] = g[c]·W[o, c, …]        b'[o] = b[o] + Σ h[c]·W[o, c, …]
//! ```
//! Declines where the BatchNormalization's result has another reader or is a graph output, a Conv with padding (the zeros
//! at the rim stand for `h`, not for zero) or groups, a Transpose that does not bring the channels to the last axis, weights
//! that are no constants, and other types than float32.

use vitq_onnx::Tensor;

use super::Report;
use super::channel_affine::{Affine, Linear, batch_norm, floats, set_bias};
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Outlet, Slot};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let mut fired = 0;
    for id in graph.topological().unwrap_or_default() {
        if let Some((x, affine)) = batch_norm(graph, id) {
            let result = Outlet { node: id, slot: 0 };
            let folded = into_conv(graph, result, &affine)
                .or_else(|| into_linear(graph, shapes, result, &affine));
            if folded.is_some() {
                graph.replace_uses(result, x);
                fired += 1;
            }
        }
    }
    fired
}

fn into_conv(graph: &mut Graph, value: Outlet, affine: &Affine) -> Option<()> {
    let conv = data_reader(graph, value, "Conv")?;
    let op = graph.op(conv)?;
    let padded = op.ints("pads").is_some_and(|p| p.iter().any(|&p| p != 0))
        || !matches!(op.string("auto_pad"), None | Some("NOTSET" | "VALID"));
    if padded || op.int("group").unwrap_or(1) != 1 {
        return None;
    }
    let dims = graph.constant_dims(graph.input(conv, 1)?)?;
    let [outputs, channels, kernel @ ..] = &dims[..] else {
        return None;
    };
    let mut weight = floats(graph, graph.input(conv, 1)?)?;
    let mut bias = match graph.input(conv, 2) {
        Some(bias) => floats(graph, bias).filter(|b| b.len() == *outputs)?,
        None => vec![0.0; *outputs],
    };
    let taps = kernel.iter().product::<usize>();
    if affine.g.len() != *channels || taps == 0 {
        return None;
    }
    for (row, b) in weight.chunks_exact_mut(channels * taps).zip(&mut bias) {
        absorb(row, b, affine, taps);
    }
    let name = format!("{}/bias", graph.label(conv));
    let bias = graph.add_initializer(&name, &Tensor::from_f32(&[*outputs], &bias));
    graph.replace_constant(conv, 1, &Tensor::from_f32(&dims, &weight));
    graph.set_input(conv, 2, bias);
    Some(())
}

fn into_linear(graph: &mut Graph, shapes: &Shapes, value: Outlet, affine: &Affine) -> Option<()> {
    let product = match data_reader(graph, value, "Transpose") {
        Some(transpose) => {
            let last = *graph.op(transpose)?.ints("perm")?.last()?;
            let moved = Outlet {
                node: transpose,
                slot: 0,
            };
            (last == 1).then(|| data_reader(graph, moved, "MatMul"))??
        }
        None if shapes.rank(value) == Some(2) => data_reader(graph, value, "MatMul")?,
        None => return None,
    };
    let dims = graph.constant_dims(graph.input(product, 1)?)?;
    let [channels, outputs] = dims[..] else {
        return None;
    };
    if affine.g.len() != channels {
        return None;
    }
    let stored = floats(graph, graph.input(product, 1)?)?;
    let add = bias_add(graph, product);
    let mut bias = match add {
        Some(add) => floats(graph, graph.input(add, 1)?).filter(|b| b.len() == outputs)?,
        None => vec![0.0; outputs],
    };
    let mut weight = stored.clone();
    for (o, b) in bias.iter_mut().enumerate() {
        let mut column: Vec<f32> = stored.iter().skip(o).step_by(outputs).copied().collect();
        absorb(&mut column, b, affine, 1);
        let new = weight.iter_mut().skip(o).step_by(outputs);
        new.zip(column).for_each(|(w, c)| *w = c);
    }
    graph.replace_constant(product, 1, &Tensor::from_f32(&dims, &weight));
    set_bias(graph, &Linear { product, add }, &bias);
    Some(())
}

/// One output's weights `[channels, taps]` and bias take the affine change of their input over.
fn absorb(row: &mut [f32], bias: &mut f32, affine: &Affine, taps: usize) {
    let mut shift = f64::from(*bias);
    for ((channel, g), h) in row.chunks_exact_mut(taps).zip(&affine.g).zip(&affine.h) {
        for w in channel {
            shift += f64::from(*w) * f64::from(*h);
            *w *= g;
        }
    }
    *bias = shift as f32;
}

/// The operator of that type that alone reads `value`, as its data.
fn data_reader(graph: &Graph, value: Outlet, op_type: &str) -> Option<NodeId> {
    let reader = graph.only_reader(value)?;
    let found = matches!(reader.slot, Slot::Input(0)) && graph.is(reader.node, op_type);
    found.then_some(reader.node)
}

/// The Add of a constant that alone reads a product.
fn bias_add(graph: &Graph, product: NodeId) -> Option<NodeId> {
    let result = Outlet {
        node: product,
        slot: 0,
    };
    let add = data_reader(graph, result, "Add")?;
    graph.initializer(graph.input(add, 1)?)?;
    Some(add)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const CHANNELS: usize = 5;
    const TAPS: usize = 3;

    fn numbers(count: usize) -> impl Strategy<Value = Vec<f32>> {
        prop::collection::vec(-3.0f32..3.0, count)
    }

    proptest! {
        #[test]
        fn an_absorbed_change_of_the_input_leaves_the_output(
            x in numbers(CHANNELS * TAPS),
            row in numbers(CHANNELS * TAPS),
            bias in -3.0f32..3.0,
            g in numbers(CHANNELS),
            h in numbers(CHANNELS),
        ) {
            let affine = Affine { g, h };
            let (mut new, mut new_bias) = (row.clone(), bias);
            absorb(&mut new, &mut new_bias, &affine, TAPS);
            let (mut before, mut after, mut size) = (f64::from(bias), f64::from(new_bias), 1.0);
            for (i, x) in x.iter().map(|&x| f64::from(x)).enumerate() {
                let (g, h) = (f64::from(affine.g[i / TAPS]), f64::from(affine.h[i / TAPS]));
                let term = (g * x + h) * f64::from(row[i]);
                before += term;
                size += term.abs();
                after += x * f64::from(new[i]);
            }
            prop_assert!((before - after).abs() <= 1e-5 * size, "{before} became {after}");
        }
    }
}
