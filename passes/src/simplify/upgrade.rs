//! Raising the standard operator set, 11 … 23.
//!
//! Between these versions most operators only gained types and optional parts; those whose old spelling means
//! something else, or nothing, in the new version are listed in [`BREAKING`]. What this file cannot respell it
//! refuses, naming the node; a refused graph is left as it was. Bodies of functions are raised too, as runtimes read
//! them by the model's operator set; none of their nodes is respelled.

use thiserror::Error;
use vitq_onnx::pb::FunctionProto;
use vitq_onnx::{FunctionMsg, NodeMsg, Tensor};

use super::axes::normal;
use crate::infer::{Shapes, infer};
use crate::ir::{Graph, NodeId, Op};

/// Oldest version that is understood.
pub const OLDEST: i64 = 11;
/// Newest version that a graph can be raised to.
pub const NEWEST: i64 = 23;

/// Operators by the version in which their spelling or meaning changed.
pub const BREAKING: [(i64, &[&str]); 7] = [
    (12, &["Dropout"]),
    (
        13,
        &[
            "Hardmax",
            "LogSoftmax",
            "ReduceSum",
            "Resize",
            "Softmax",
            "Split",
            "Squeeze",
            "Unsqueeze",
        ],
    ),
    (14, &["BatchNormalization"]),
    (16, &["RoiAlign"]),
    (
        18,
        &[
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSumSquare",
            "Split",
        ],
    ),
    (20, &["DFT", "GridSample"]),
    (21, &["GroupNormalization"]),
];

/// Why the operator set cannot be raised.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UpgradeError {
    /// The model is older than what is understood.
    #[error("the model is written in operator set {0}: export it with opset {OLDEST} or newer")]
    TooOld(i64),
    /// Nobody has looked at the operators of that version.
    #[error("operator set {0} is not known: {NEWEST} is the newest that a model can be raised to")]
    TooNew(i64),
    /// An operator that cannot be respelled.
    #[error(
        "node {node:?} ({op_type}) hinders raising the operator set to {wanted}: {reason}; export the model with opset {wanted}"
    )]
    Operator {
        /// The node as a person finds it.
        node: String,
        /// Its operator.
        op_type: String,
        /// The operator set that was wanted.
        wanted: i64,
        /// What stands in the way.
        reason: String,
    },
    /// A function of the model that reads otherwise in the wanted version.
    #[error(
        "function {function:?} hinders raising the operator set to {wanted}: {reason}; inline the model's functions, or export it with opset {wanted}"
    )]
    Function {
        /// The function as its callers name it: domain and name.
        function: String,
        /// The operator set that was wanted.
        wanted: i64,
        /// What stands in the way.
        reason: String,
    },
}

/// Raises the standard operator set to at least `version`, that of the model's functions and the IR version with it.
///
/// # Errors
/// See [`UpgradeError`]; the graph is then unchanged.
pub fn to(graph: &mut Graph, version: i64) -> Result<(), UpgradeError> {
    let from = graph.opset();
    if from >= version {
        return Ok(());
    }
    if from < OLDEST {
        return Err(UpgradeError::TooOld(from));
    }
    if version > NEWEST {
        return Err(UpgradeError::TooNew(version));
    }
    let shapes = infer(graph);
    let mut raised = graph.clone();
    let ids: Vec<NodeId> = raised.ops().map(|(id, _)| id).collect();
    for id in ids {
        respell(&mut raised, &shapes, id, from, version).map_err(|reason| {
            UpgradeError::Operator {
                node: graph.label(id),
                op_type: graph.op(id).map_or("", Op::op_type).to_owned(),
                wanted: version,
                reason,
            }
        })?;
    }
    for function in raised.functions_mut() {
        raise_function(function, version).map_err(|reason| UpgradeError::Function {
            function: format!("{}.{}", function.domain(), function.name()),
            wanted: version,
            reason,
        })?;
    }
    raised.opsets.insert(String::new(), version);
    raised.require_ir_version(ir_version(version));
    *graph = raised;
    Ok(())
}

/// IR version that models with this standard operator set need at least (ONNX, `docs/Versioning.md`).
pub(crate) fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=11 => 6,
        12..=14 => 7,
        15..=18 => 8,
        19..=20 => 9,
        21..=22 => 10,
        23 => 11,
        24 => 12,
        _ => 13,
    }
}

fn breaks(op_type: &str, from: i64, to: i64) -> impl Iterator<Item = i64> {
    let changes = BREAKING
        .iter()
        .filter(move |(version, _)| (from + 1..=to).contains(version));
    changes
        .filter(move |(_, ops)| ops.contains(&op_type))
        .map(|(version, _)| *version)
}

type Respelled = Result<(), String>;

fn respell(graph: &mut Graph, shapes: &Shapes, id: NodeId, from: i64, to: i64) -> Respelled {
    let Some(op) = graph.op(id).cloned() else {
        return Ok(());
    };
    for attribute in &op.message.attribute {
        for body in attribute.g.iter().map(|g| &**g).chain(&attribute.graphs) {
            if let Some(node) = affected(&body.node, from, to) {
                let node = described(node);
                return Err(format!("the {node} in its sub-graph changed in between"));
            }
        }
    }
    if !op.is(op.op_type()) {
        return Ok(());
    }
    for version in breaks(op.op_type(), from, to) {
        match (version, op.op_type()) {
            (12, "Dropout") => drop_attribute(graph, id, "ratio"),
            (13, "Softmax" | "LogSoftmax" | "Hardmax") => softmax(graph, shapes, id)?,
            (13, "Split") => to_input(graph, id, "split"),
            (13, "Resize")
                if op.string("coordinate_transformation_mode") != Some("tf_half_pixel_for_nn") => {}
            (13, "Squeeze" | "Unsqueeze" | "ReduceSum") => to_input(graph, id, "axes"),
            (14, "BatchNormalization") if op.outputs.iter().skip(1).all(String::is_empty) => {}
            (18, "Split") => count_outputs(graph, id),
            (18, _) => to_input(graph, id, "axes"),
            _ => return Err(format!("its meaning changed in operator set {version}")),
        }
    }
    Ok(())
}

/// Raises what a function states as its standard operator set.
fn raise_function(function: &mut FunctionMsg, to: i64) -> Respelled {
    let FunctionProto {
        opset_import, node, ..
    } = &mut **function;
    for import in opset_import
        .iter_mut()
        .filter(|import| is_standard(import.domain()) && import.version() < to)
    {
        let from = import.version();
        if from < OLDEST {
            return Err(format!(
                "it is written in operator set {from}, older than {OLDEST}"
            ));
        }
        if let Some(node) = affected(node, from, to) {
            let node = described(node);
            return Err(format!("the {node} in it changed in between"));
        }
        import.version = Some(to);
    }
    Ok(())
}

/// The first node, in sub-graphs too, that reads otherwise in the two versions.
fn affected(nodes: &[NodeMsg], from: i64, to: i64) -> Option<&NodeMsg> {
    nodes.iter().find_map(|node| {
        if is_standard(node.domain()) && breaks(node.op_type(), from, to).next().is_some() {
            return Some(node);
        }
        node.attribute
            .iter()
            .flat_map(|attribute| attribute.g.iter().map(|g| &**g).chain(&attribute.graphs))
            .find_map(|body| affected(&body.node, from, to))
    })
}

fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn described(node: &NodeMsg) -> String {
    match node.name() {
        "" => node.op_type().to_owned(),
        name => format!("{} {name:?}", node.op_type()),
    }
}

fn drop_attribute(graph: &mut Graph, id: NodeId, name: &str) {
    if let Some(op) = graph.op_mut(id) {
        op.remove_attribute(name);
    }
}

/// The list `attribute` becomes input 1.
fn to_input(graph: &mut Graph, id: NodeId, attribute: &str) {
    let Some(list) = graph
        .op(id)
        .and_then(|op| op.ints(attribute))
        .map(<[i64]>::to_vec)
    else {
        return;
    };
    drop_attribute(graph, id, attribute);
    let name = format!("{}/{attribute}", graph.label(id));
    let constant = graph.add_initializer(&name, &Tensor::from_i64(&[list.len()], &list));
    graph.set_input(id, 1, constant);
}

/// From 18 on a Split into equal parts says into how many.
fn count_outputs(graph: &mut Graph, id: NodeId) {
    if graph.input(id, 1).is_none()
        && let Some(op) = graph.op_mut(id)
    {
        let parts = op.outputs.len() as i64;
        *op = op.clone().with_int("num_outputs", parts);
    }
}

/// Before 13 everything from `axis` (default 1) on was one flat axis; now `axis` (default -1) is the only one.
fn softmax(graph: &mut Graph, shapes: &Shapes, id: NodeId) -> Respelled {
    let x = graph.input(id, 0).ok_or("it has no input")?;
    let axis = graph.op(id).and_then(|op| op.int("axis")).unwrap_or(1);
    let rank = shapes.rank(x);
    let last =
        axis == -1 || rank.is_some_and(|rank| normal(axis, rank) == Some(rank.wrapping_sub(1)));
    if !last {
        let rank = rank.map_or("unknown".to_owned(), |r| r.to_string());
        return Err(format!(
            "it works from axis {axis} of {rank} on, which one axis cannot say"
        ));
    }
    if let Some(op) = graph.op_mut(id) {
        *op = op.clone().with_int("axis", -1);
    }
    Ok(())
}
