//! Parameters written into the graph: a norm's γ and β, a Linear's or patch embedding's weight and bias.
//!
//! ```text
//! LayerNormalization(x, γ, β)   →  LayerNormalization(x, γ', β')
//! LayerNormalization(x, γ, β)   →  the same for others, and LayerNormalization(x, γ', β') for the Linears, where it is split
//! Add(MatMul(x, W), b)          →  Add(MatMul(x, W'), b')
//! MatMul(x, W)                  →  Add(MatMul(x, W'), b')       (no Add where b' is zero)
//! Conv(x, W, b)                 →  Conv(x, W', b')
//! ```
//! A constant that another node reads too is never changed for it: this node gets a copy of its own.
//! Declined: parameters that are not float32 constants of the expected shape.

use vitq_onnx::Tensor;

use super::{TransformError, take_over};
use crate::ir::{Graph, NodeId, Outlet};
use crate::structure::{Norm, Parameters, Site, SiteKind, Structure};

/// ONNX `TensorProto.DataType.FLOAT`.
const FLOAT: i32 = 1;

/// Writes new `gamma` and `beta`, both `[channels]`, into a LayerNormalization (`index` into [`Structure::norms`]).
pub fn apply_norm(
    graph: &mut Graph,
    structure: &Structure,
    index: usize,
    gamma: &[f32],
    beta: &[f32],
) -> Result<(), TransformError> {
    let norm = structure.norms.get(index).ok_or_else(|| {
        TransformError::new(
            format!("norm {index}"),
            "the model has no such LayerNormalization",
        )
    })?;
    if let Some(reason) = &norm.declined {
        return Err(TransformError::new(
            &norm.name,
            format!("its parameters cannot be changed: {reason}"),
        ));
    }
    let dims = graph
        .input(norm.node, 1)
        .and_then(|value| float_dims(graph, value))
        .ok_or_else(|| {
            TransformError::new(
                &norm.name,
                "its scale is no float32 constant: export the model in float32",
            )
        })?;
    check_lengths(
        &norm.name,
        &[("scale", gamma.len()), ("bias", beta.len())],
        dims.iter().product(),
    )?;
    let node = if norm.split.is_empty() {
        norm.node
    } else {
        copy_for(graph, norm)?
    };
    graph.replace_constant(node, 1, &Tensor::from_f32(&dims, gamma));
    set_constant(
        graph,
        node,
        2,
        &format!("{}/bias", norm.name),
        &Tensor::from_f32(&dims, beta),
    );
    Ok(())
}

/// A copy of a norm that its split readers read.
fn copy_for(graph: &mut Graph, norm: &Norm) -> Result<NodeId, TransformError> {
    let mut op = graph
        .op(norm.node)
        .cloned()
        .ok_or_else(|| TransformError::new(&norm.name, "it is no operator of the graph"))?;
    let name = format!("{}/split", norm.name);
    op.message.name = Some(name.clone());
    op = op.with_outputs(&[&name]);
    let inputs = graph.node_inputs(norm.node);
    let node = graph.add_op(op, &inputs);
    for &(reader, input) in &norm.split {
        graph.set_input(reader, input, Outlet { node, slot: 0 });
    }
    Ok(node)
}

/// Writes new parameters into a Linear or patch embedding that stays float: `weight` `[out, in]`, `bias` `[out]`.
pub fn replace_linear(
    graph: &mut Graph,
    site: &Site,
    weight: &[f32],
    bias: &[f32],
) -> Result<(), TransformError> {
    let (parameters, dims) = weight_dims(graph, site)?;
    let expected = parameters.outputs * parameters.inputs;
    check_lengths(&site.name, &[("weight", weight.len())], expected)?;
    check_lengths(&site.name, &[("bias", bias.len())], parameters.outputs)?;
    let stored = match site.kind {
        SiteKind::Linear => transposed(weight, parameters.inputs),
        _ => weight.to_vec(),
    };
    if parameters.bias.is_some() || bias.iter().any(|&b| b != 0.0) {
        let name = format!("{}/bias", site.name);
        let constant = graph.add_initializer(&name, &Tensor::from_f32(&[bias.len()], bias));
        set_bias(graph, site, constant)?;
    }
    graph.replace_constant(site.node, 1, &Tensor::from_f32(&dims, &stored));
    Ok(())
}

/// The site's parameters and the stored shape of its weight: `[in, out]` of a MatMul, `[out, in, kh, kw]` of a Conv.
pub(crate) fn weight_dims<'s>(
    graph: &Graph,
    site: &'s Site,
) -> Result<(&'s Parameters, Vec<usize>), TransformError> {
    let refuse = |problem: &str| TransformError::new(&site.name, problem);
    let parameters = site
        .parameters
        .as_ref()
        .ok_or_else(|| refuse("it has no weight: only Linears have"))?;
    let (op_type, rank) = match site.kind {
        SiteKind::Linear => ("MatMul", 2),
        SiteKind::PatchEmbed => ("Conv", 4),
        SiteKind::QueryKey | SiteKind::AttentionValue => {
            return Err(refuse("it has no weight: only Linears have"));
        }
    };
    if !graph.is(site.node, op_type) {
        return Err(refuse(&format!(
            "it is no {op_type}: simplify the model first, or keep the site float"
        )));
    }
    let dims = graph
        .input(site.node, 1)
        .and_then(|value| float_dims(graph, value))
        .ok_or_else(|| {
            refuse("its weight is no float32 constant: export in float32, or keep the site float")
        })?;
    if dims.len() != rank
        || dims.iter().product::<usize>() != parameters.inputs * parameters.outputs
    {
        return Err(refuse(&format!(
            "its weight has the shape {dims:?}, not {rank} dimensions: keep the site float"
        )));
    }
    Ok((parameters, dims))
}

/// Makes `value` `[out]` the site's bias, creating the Add where there was none; returns the site's result.
pub(crate) fn set_bias(
    graph: &mut Graph,
    site: &Site,
    value: Outlet,
) -> Result<Outlet, TransformError> {
    let product = Outlet {
        node: site.node,
        slot: 0,
    };
    if site.kind == SiteKind::PatchEmbed {
        graph.set_input(site.node, 2, value);
        return Ok(product);
    }
    if site.output.node == site.node {
        let sum = graph.insert("Add", &format!("{}/Add", site.name), &[product, value]);
        take_over(graph, product, sum);
        return Ok(sum);
    }
    let add = site.output.node;
    let operand = (0..2).find(|&i| graph.input(add, i).is_some_and(|v| v.node == site.node));
    match operand {
        Some(i) if graph.is(add, "Add") => {
            graph.set_input(add, 1 - i, value);
            Ok(site.output)
        }
        _ => Err(TransformError::new(
            &site.name,
            "its bias is added by no Add right behind it: keep the site float",
        )),
    }
}

/// `[rows, columns]` → `[columns, rows]`
pub(crate) fn transposed<T: Copy>(values: &[T], columns: usize) -> Vec<T> {
    (0..columns)
        .flat_map(|c| values.iter().skip(c).step_by(columns).copied())
        .collect()
}

/// Refuses arrays of another length than `expected`.
pub(crate) fn check_lengths(
    at: &str,
    arrays: &[(&str, usize)],
    expected: usize,
) -> Result<(), TransformError> {
    match arrays.iter().find(|(_, length)| *length != expected) {
        None => Ok(()),
        Some((what, length)) => {
            let problem = format!(
                "the new {what} has {length} values where the model has {expected}: the numbers belong to another model"
            );
            Err(TransformError::new(at, problem))
        }
    }
}

fn set_constant(graph: &mut Graph, node: NodeId, i: usize, name: &str, tensor: &Tensor) {
    if graph.input(node, i).is_some() {
        graph.replace_constant(node, i, tensor);
    } else {
        let value = graph.add_initializer(name, tensor);
        graph.set_input(node, i, value);
    }
}

/// Shape of a float32 initialiser.
fn float_dims(graph: &Graph, value: Outlet) -> Option<Vec<usize>> {
    (graph.initializer(value)?.data_type() == FLOAT).then(|| graph.constant_dims(value))?
}
