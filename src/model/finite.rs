//! Weights that are no numbers are found before anything is computed with them.

use std::path::Path;

use rayon::prelude::*;
use vitq_onnx::Tensor;
use vitq_passes::ir::{Graph, NodeId, Op, Outlet};

use crate::error::Error;

/// A constant that cannot be computed with.
pub struct NotFinite {
    constant: String,
    index: usize,
    value: f32,
}

impl NotFinite {
    /// The error of the model at `path`.
    pub fn into_error(self, path: &Path) -> Error {
        Error::NotFinite {
            path: path.into(),
            constant: self.constant,
            index: self.index,
            value: self.value,
        }
    }
}

/// Finds the first NaN or infinity in the graph's constants.
///
/// Minus infinity is let through where it masks: in a constant of two or more axes that only `Add` and `Where` read, and in
/// what `Pad` puts around an image before its largest values are pooled.
pub fn check(graph: &Graph) -> Result<(), NotFinite> {
    let nodes: Vec<NodeId> = graph.nodes().collect();
    nodes
        .into_par_iter()
        .find_map_first(|node| not_finite(graph, Outlet { node, slot: 0 }))
        .map_or(Ok(()), Err)
}

fn not_finite(graph: &Graph, value: Outlet) -> Option<NotFinite> {
    let tensor = constant(graph, value).filter(|t| t.dtype.is_float())?;
    let elements = tensor.to_f32().ok()?;
    let mask = (tensor.dims.len() >= 2 && only_read_by(graph, value, &["Add", "Where"]))
        || only_read_by(graph, value, &["Pad"]);
    let masks = |v: f32| mask && v == f32::NEG_INFINITY;
    let index = elements
        .iter()
        .position(|&v| !(v.is_finite() || masks(v)))?;
    Some(NotFinite {
        constant: graph.name(value).to_owned(),
        index,
        value: elements[index],
    })
}

/// An initialiser, or the tensor of a `Constant` node.
fn constant(graph: &Graph, value: Outlet) -> Option<Tensor> {
    graph.tensor(value).or_else(|| {
        graph
            .op(value.node)
            .filter(|op| op.is("Constant"))?
            .tensor("value")
    })
}

fn only_read_by(graph: &Graph, value: Outlet, op_types: &[&str]) -> bool {
    let reads = |node: NodeId| graph.op(node).map(Op::op_type);
    graph
        .readers(value)
        .iter()
        .all(|reader| reads(reader.node).is_some_and(|found| op_types.contains(&found)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `y = x + mask` or `y = x·w`, with the constant's first element replaced.
    fn found(body: &str, value: f32) -> Option<String> {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2,2] x) => (float[2,2] y) \
             <float[2,2] c = {{1.0, 2.0, 3.0, 4.0}}> {{ {body} }}"
        );
        let mut graph = Graph::parse(&text).unwrap();
        let reader = graph.outputs()[0].outlet.node;
        graph.replace_constant(
            reader,
            1,
            &Tensor::from_f32(&[2, 2], &[1.0, value, 3.0, 4.0]),
        );
        check(&graph)
            .err()
            .map(|it| format!("{} {} {}", it.constant, it.index, it.value))
    }

    #[test]
    fn minus_infinity_may_mask_and_nothing_else() {
        assert_eq!(found("y = Add(x, c)", f32::NEG_INFINITY), None);
        assert_eq!(found("y = Add(x, c)", f32::NAN), Some("c 1 NaN".into()));
        assert_eq!(
            found("y = Add(x, c)", f32::INFINITY),
            Some("c 1 inf".into())
        );
        assert_eq!(
            found("y = MatMul(x, c)", f32::NEG_INFINITY),
            Some("c 1 -inf".into())
        );
        assert_eq!(found("y = MatMul(x, c)", 5.0), None);
    }

    #[test]
    fn minus_infinity_may_stand_around_an_image() {
        let padded = |value: &str| {
            let text = format!(
                "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2,2] x) => (float[3,2] y)
                 <int64[4] pads = {{0, 0, 1, 0}}, float c = {{{value}}}> {{ y = Pad(x, pads, c) }}"
            );
            check(&Graph::parse(&text).unwrap()).is_ok()
        };
        assert!(padded("-inf"));
        assert!(!padded("nan"));
    }
}
