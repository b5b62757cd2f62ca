//! Which quantised products a runtime multiplies in integers.

use std::collections::BTreeMap;

use serde::Serialize;
use vitq_passes::ir::{Graph, NodeId, Outlet};

/// Operators of ONNX and of ONNX Runtime that multiply integers.
const INTEGER: [&str; 11] = [
    "ConvInteger",
    "DynamicQuantizeMatMul",
    "MatMulInteger",
    "MatMulInteger16",
    "MatMulIntegerToFloat",
    "QAttention",
    "QGemm",
    "QLinearConv",
    "QLinearMatMul",
    "QOrderedMatMul",
    "NhwcQLinearConv",
];

/// Operators that multiply floats.
const FLOAT: [&str; 7] = [
    "Conv",
    "FusedConv",
    "FusedGemm",
    "FusedMatMul",
    "Gemm",
    "MatMul",
    "NhwcFusedConv",
];

/// Operators that hand values on as they are.
const CARRIERS: [&str; 5] = ["Reshape", "Transpose", "Squeeze", "Unsqueeze", "Identity"];

/// Products with quantised operands.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Fusion {
    /// Those in integers: how many of which operator.
    pub integer: BTreeMap<String, usize>,
    /// How many run in float although their operands are quantised.
    pub unfused: usize,
    /// Names of the latter's nodes, where the runtime tells.
    pub unfused_nodes: Vec<String>,
}

impl Fusion {
    /// Reads it from the graph that a runtime executes.
    pub fn of(graph: &Graph) -> Self {
        let mut found = Self::default();
        for (node, op) in graph.ops() {
            let op_type = op.op_type();
            if INTEGER.contains(&op_type) {
                *found.integer.entry(op_type.to_owned()).or_default() += 1;
            } else if FLOAT.contains(&op_type) && reads_codes(graph, node) {
                found.unfused_nodes.push(graph.label(node));
            }
        }
        found.unfused = found.unfused_nodes.len();
        found
    }

    /// What is left when so many of the products in `graph` were made `operator`s.
    pub fn with_fused(graph: &Graph, operator: &str, fused: usize) -> Self {
        let before = Self::of(graph);
        let all = before.unfused + before.integer.values().sum::<usize>();
        let integer = (fused > 0).then(|| (operator.to_owned(), fused));
        Self {
            integer: integer.into_iter().collect(),
            unfused: all.saturating_sub(fused),
            unfused_nodes: Vec::new(),
        }
    }
}

/// Whether an operand comes from a DequantizeLinear, a weight apart: beside a float operand that is to run in float.
fn reads_codes(graph: &Graph, node: NodeId) -> bool {
    (0..2).any(|i| {
        graph
            .input(node, i)
            .is_some_and(|value| is_dequantised(graph, value))
    })
}

fn is_dequantised(graph: &Graph, mut value: Outlet) -> bool {
    while let Some(op) = graph.op(value.node) {
        if op.is("DequantizeLinear") {
            return !is_stored(graph, value);
        }
        let carried = CARRIERS.iter().any(|carrier| op.is(carrier));
        match graph.input(value.node, 0).filter(|_| carried) {
            Some(source) => value = source,
            None => return false,
        }
    }
    false
}

/// Whether a DequantizeLinear reads a tensor of the file, as codes or through a table.
fn is_stored(graph: &Graph, mut value: Outlet) -> bool {
    while let Some(source) = graph.input(value.node, 0) {
        value = source;
        let unpacks = graph
            .op(value.node)
            .is_none_or(|op| op.is("Cast") || op.is("Gather"));
        if !unpacks {
            return false;
        }
    }
    graph.tensor(value).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn float_products_of_codes_are_named() {
        let graph = Graph::parse(
            r#"<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1]>
            net (float[2,2] x, uint8[2,2] c, float s) => (float[2,2] y, float[2,2] z, int32[2,2] n)
            {
              d = DequantizeLinear(c, s) t = Transpose(d)
              [fc] y = MatMul(x, t) [attention] z = MatMul(x, x) [integer] n = MatMulInteger(c, c)
            }"#,
        )
        .unwrap();
        let found = Fusion::of(&graph);
        assert_eq!(found.unfused_nodes, ["fc"]);
        assert_eq!(found.integer, [("MatMulInteger".to_owned(), 1)].into());
        let fused = Fusion::with_fused(&graph, "TiledLinear", 1);
        assert_eq!((fused.integer.len(), fused.unfused), (1, 1));
    }
}
