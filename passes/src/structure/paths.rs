//! Where the exporter says a node stands in the model's code: `blocks.7.mlp.fc2`.
//!
//! TorchScript writes it into the node's name (`/blocks/blocks.7/mlp/fc2/MatMul`), the dynamo exporter into the
//! node's metadata; both leave it in the names of weights that they did not have to transpose.

use std::collections::HashSet;

use super::Site;
use crate::ir::{Graph, NodeId, Outlet};

/// Metadata of the dynamo exporter: a Python list of nested scopes, the operator itself last.
const SCOPES: &str = "pkg.torch.onnx.name_scopes";

/// The path of a site, if the file keeps one.
pub(super) fn exported(graph: &Graph, site: &Site) -> Option<String> {
    let parameters = site
        .parameters
        .iter()
        .flat_map(|p| [Some(p.weight), p.bias])
        .flatten();
    from_scopes(graph, site.node)
        .or_else(|| from_name(graph, site.node))
        .or_else(|| parameters.filter_map(|p| from_parameter(graph, p)).next())
}

fn from_scopes(graph: &Graph, node: NodeId) -> Option<String> {
    let op = graph.op(node)?;
    let scopes = op
        .message
        .metadata_props
        .iter()
        .find(|p| p.key() == SCOPES)?
        .value();
    // ['', 'blocks', 'blocks.0', 'blocks.0.attn', 'matmul']: every second piece between quotes.
    let scopes: Vec<&str> = scopes.split(['\'', '"']).skip(1).step_by(2).collect();
    let (_, modules) = scopes.split_last()?;
    modules
        .last()
        .filter(|path| !path.is_empty())
        .map(|&path| path.to_owned())
}

fn from_name(graph: &Graph, node: NodeId) -> Option<String> {
    let name = graph.op(node)?.message.name();
    let pieces: Vec<&str> = name.split('/').filter(|p| !p.is_empty()).collect();
    if !name.contains('/') {
        return None;
    }
    let mut path: Vec<&str> = Vec::new();
    for piece in pieces {
        // `blocks/blocks.7` says `blocks` twice.
        if path
            .last()
            .is_some_and(|last| piece.strip_prefix(last).is_some_and(|p| p.starts_with('.')))
        {
            path.pop();
        }
        path.push(piece);
    }
    // Modules are written in lower case, operators in CamelCase.
    while path
        .last()
        .is_some_and(|p| p.starts_with(|c: char| c.is_ascii_uppercase()))
    {
        path.pop();
    }
    (!path.is_empty()).then(|| path.join("."))
}

fn from_parameter(graph: &Graph, parameter: Outlet) -> Option<String> {
    let name = graph.name(parameter);
    let path = name
        .strip_suffix(".weight")
        .or_else(|| name.strip_suffix(".bias"))?;
    (!path.is_empty()).then(|| path.to_owned())
}

/// Pieces of a path.
pub(super) fn pieces(path: &str) -> Vec<&str> {
    path.split('.').collect()
}

/// Whether a piece numbers one of many: `7` or `encoder_layer_7`.
pub(super) fn is_index(piece: &str) -> bool {
    let digits = piece.rsplit('_').next().unwrap_or(piece);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// Whether `path` is `prefix` or lies under it.
pub(super) fn under(path: &str, prefix: &str) -> bool {
    path.strip_prefix(prefix)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// `base`, else `base_2`, `base_3` …: the first that is not taken.
pub(super) fn unique(taken: &mut HashSet<String>, base: &str) -> String {
    let mut name = base.to_owned();
    let mut n = 1;
    while !taken.insert(name.clone()) {
        n += 1;
        name = format!("{base}_{n}");
    }
    name
}
