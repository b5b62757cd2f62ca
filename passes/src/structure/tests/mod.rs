//! Recognisers on graphs in ONNX text: text in, description out.

mod attention;
mod blocks;
mod gelu;
mod linear;
mod norm;
mod patch_embed;
mod stream;
mod value_path;

use super::{Structure, recognise};
use crate::ir::Graph;

/// `{0, 0.1, 0.2 …}`: `n` values of a constant.
fn values(n: usize) -> String {
    let values: Vec<String> = (0..n).map(|i| format!("{:.1}", i as f32 * 0.1)).collect();
    format!("{{{}}}", values.join(", "))
}

/// The model with inputs, outputs, constants and nodes as given.
fn parse(signature: &str, constants: &str, nodes: &str) -> Graph {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\" : 17, \"com.microsoft\" : 1]>
         g {signature} <{constants}> {{ {nodes} }}"
    );
    Graph::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The structure of a graph on tokens `x` [n, 3, 4] with the constants `w` [4, 4], `b` [4], `gamma`, `beta` [4].
fn on_tokens(nodes: &str) -> Structure {
    let constants = format!(
        "float[4,4] w = {}, float[4] b = {}, float[4] gamma = {}, float[4] beta = {},
         float[1,1,4] class = {{1, 2, 3, 4}}, float[4,1] column = {{1, 2, 3, 4}},
         float[1,3,4] places = {},
         int64 zero = {{0}}, int64[1] one = {{1}}, int64[1] two = {{2}}, int64[1] last = {{2}},
         int64[2] flat = {{-1, 4}}, int64[4] halves = {{0, 0, 2, 2}}, int64[3] whole = {{0, 0, 4}},
         int64[2] cut = {{1, 2}}, float scale = {{0.5}},
         int8[4,4] codes = {{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}}",
        values(16),
        values(4),
        values(4),
        values(4),
        values(12)
    );
    recognise(&parse(
        "(float[n,3,4] x, float[n,3,4] z) => (float[n,3,4] y)",
        &constants,
        nodes,
    ))
}

/// The structure of a graph on queries, transposed keys and values of two heads, [n, 2, 3, 4].
fn on_heads(nodes: &str) -> Structure {
    let signature = "(float[n,2,3,4] q, float[n,2,4,3] kt, float[n,2,3,4] v, bool[n,2,3,3] keep)
                     => (float[n,2,3,4] y)";
    let constants =
        "float scale = {0.5}, float[1,1,1,3] mask = {0, 0, -9}, int64[4] same = {0, 0, 0, 0}";
    recognise(&parse(signature, constants, nodes))
}

/// Names of the sites.
fn names(structure: &Structure) -> Vec<&str> {
    structure.sites.iter().map(|s| s.name.as_str()).collect()
}

/// `node: reason` of everything that was declined.
fn refusals(structure: &Structure) -> Vec<String> {
    structure
        .declined
        .iter()
        .map(|d| format!("{}: {}", d.node, d.reason))
        .collect()
}
