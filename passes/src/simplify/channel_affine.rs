//! What scales and shifts each output channel of a Linear is folded into the Linear.
//!
//! ```text
//! Mul(Add(MatMul(x, W), b), g)                              →  Add(MatMul(x, W·diag(g)), g·b)       LayerScale (CaiT)
//! BatchNormalization([Reshape](Add(MatMul(x, W), b)))       →  [Reshape](Add(MatMul(x, W·diag(g)), g·b + h))
//!     g = γ/√(σ² + ε), h = β - g·μ                                                                   LeViT
//! ```
//! Declines where the Linear's result, or a value between, has another reader, constants that other operators read,
//! a Reshape that moves the channels from the last axis, and other types than float32.

use vitq_onnx::Tensor;

use super::Report;
use crate::infer::{Dim, Shapes};
use crate::ir::{Graph, NodeId, Outlet};

/// ONNX BatchNormalization's default.
const EPSILON: f32 = 1e-5;

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let mut fired = 0;
    for id in graph.topological().unwrap_or_default() {
        let found = layer_scale(graph, shapes, id).or_else(|| batch_norm(graph, shapes, id));
        if let Some((value, affine)) = found {
            fired += usize::from(fold(graph, shapes, id, value, &affine).is_some());
        }
    }
    fired
}

/// `y = g·x + h`, channel by channel.
struct Affine {
    g: Vec<f32>,
    h: Vec<f32>,
}

/// A product with a constant row, and the value that it scales.
fn layer_scale(graph: &Graph, shapes: &Shapes, id: NodeId) -> Option<(Outlet, Affine)> {
    if !graph.is(id, "Mul") {
        return None;
    }
    let (a, b) = (graph.input(id, 0)?, graph.input(id, 1)?);
    let (x, row) = if graph.initializer(b).is_some() {
        (a, b)
    } else {
        (b, a)
    };
    let channels = last(shapes, x)?;
    let dims = graph.constant_dims(row)?;
    let fits = dims.last() == Some(&channels) && dims.iter().product::<usize>() == channels;
    if channels < 2 || !fits || shapes.rank(x)? < dims.len() {
        return None;
    }
    let g = floats(graph, row)?;
    let h = vec![0.0; g.len()];
    Some((x, Affine { g, h }))
}

/// A BatchNormalization over the last of two axes, and the value that it normalises.
fn batch_norm(graph: &Graph, shapes: &Shapes, id: NodeId) -> Option<(Outlet, Affine)> {
    let op = graph.op(id).filter(|op| op.is("BatchNormalization"))?;
    let trains = op.int("training_mode").unwrap_or(0) != 0;
    let x = graph.input(id, 0)?;
    if trains || shapes.rank(x) != Some(2) || op.outputs.iter().skip(1).any(|o| !o.is_empty()) {
        return None;
    }
    let epsilon = op.float("epsilon").unwrap_or(EPSILON);
    let parameter = |i: usize| floats(graph, graph.input(id, i)?);
    let (gamma, beta) = (parameter(1)?, parameter(2)?);
    let (mean, variance) = (parameter(3)?, parameter(4)?);
    let scale = |(gamma, variance): (&f32, &f32)| gamma / (variance + epsilon).sqrt();
    let g: Vec<f32> = gamma.iter().zip(&variance).map(scale).collect();
    let h = g
        .iter()
        .zip(&beta)
        .zip(&mean)
        .map(|((g, beta), mean)| beta - g * mean);
    Some((x, Affine { h: h.collect(), g }))
}

/// A Linear: its MatMul, and the Add of its bias.
struct Linear {
    product: NodeId,
    add: Option<NodeId>,
}

fn fold(
    graph: &mut Graph,
    shapes: &Shapes,
    id: NodeId,
    value: Outlet,
    affine: &Affine,
) -> Option<()> {
    let linear = linear_behind(graph, shapes, value)?;
    let weight = graph.input(linear.product, 1)?;
    let [_, outputs] = graph.constant_dims(weight)?[..] else {
        return None;
    };
    let sizes = [affine.g.len(), affine.h.len()];
    if sizes.iter().any(|&n| n != outputs)
        || !affine.g.iter().chain(&affine.h).all(|v| v.is_finite())
    {
        return None;
    }
    let old = Outlet { node: id, slot: 0 };
    let bias = match linear.add {
        Some(add) => Some(floats(graph, graph.input(add, 1)?).filter(|b| b.len() == outputs)?),
        None => None,
    };
    if graph.is_output(old) && graph.op(value.node).is_none() {
        return None;
    }
    let mut matrix = floats(graph, weight)?;
    for row in matrix.chunks_exact_mut(outputs) {
        row.iter_mut().zip(&affine.g).for_each(|(w, g)| *w *= g);
    }
    let dims = graph.constant_dims(weight)?;
    graph.replace_constant(linear.product, 1, &Tensor::from_f32(&dims, &matrix));
    let bias = bias.unwrap_or_else(|| vec![0.0; outputs]);
    let shift = bias
        .iter()
        .zip(&affine.g)
        .zip(&affine.h)
        .map(|((b, g), h)| b * g + h);
    set_bias(graph, &linear, &shift.collect::<Vec<f32>>());
    // A bias that had to be made stands where the MatMul's readers look.
    let value = graph.input(id, channel_input(graph, id))?;
    graph.replace_uses(old, value);
    Some(())
}

/// Which input of a Mul or BatchNormalization is no constant.
fn channel_input(graph: &Graph, id: NodeId) -> usize {
    let constant = graph
        .input(id, 0)
        .is_some_and(|v| graph.initializer(v).is_some());
    usize::from(constant)
}

fn set_bias(graph: &mut Graph, linear: &Linear, bias: &[f32]) {
    let tensor = Tensor::from_f32(&[bias.len()], bias);
    if let Some(add) = linear.add {
        graph.replace_constant(add, 1, &tensor);
    } else if bias.iter().any(|&b| b != 0.0) {
        let product = Outlet {
            node: linear.product,
            slot: 0,
        };
        let name = graph.label(linear.product);
        let bias = graph.add_initializer(&format!("{name}/bias"), &tensor);
        let sum = graph.insert("Add", &format!("{name}/Add"), &[product, bias]);
        graph.replace_uses(product, sum);
    }
}

/// The Linear whose result a value is, through Reshapes that leave the channels last and values that nothing else reads.
fn linear_behind(graph: &Graph, shapes: &Shapes, mut value: Outlet) -> Option<Linear> {
    graph.only_reader(value)?;
    let channels = last(shapes, value)?;
    while graph.is(value.node, "Reshape") || graph.is(value.node, "Flatten") {
        value = graph.input(value.node, 0)?;
        graph.only_reader(value)?;
        if last(shapes, value)? != channels {
            return None;
        }
    }
    let matrix = |node: NodeId| {
        let weight = graph.input(node, 1)?;
        let linear = graph.is(node, "MatMul") && graph.constant_dims(weight)?.len() == 2;
        linear.then_some(node)
    };
    if let Some(product) = matrix(value.node) {
        return Some(Linear { product, add: None });
    }
    let (add, before) = (value.node, graph.input(value.node, 0)?);
    graph.only_reader(before)?;
    graph.constant_dims(graph.input(add, 1)?)?;
    let product = graph.is(add, "Add").then(|| matrix(before.node))??;
    Some(Linear {
        product,
        add: Some(add),
    })
}

fn last(shapes: &Shapes, value: Outlet) -> Option<usize> {
    shapes.of(value)?.last().and_then(Dim::known)
}

/// A float32 constant's elements.
fn floats(graph: &Graph, value: Outlet) -> Option<Vec<f32>> {
    let tensor = graph.tensor(value)?;
    (tensor.dtype == vitq_onnx::DataType::Float).then(|| tensor.to_f32().ok())?
}
