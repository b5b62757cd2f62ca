//! What tells one model from another in a plan.

use prost::Message;
use vitq_onnx::Model;
use xxhash_rust::xxh3::Xxh3;

/// XXH3 (64 bit) over the model, as 16 hexadecimal digits: the initialisers' data one by one, then all the rest encoded.
/// It finds mistakes, not attacks.
pub fn fingerprint(model: &Model) -> String {
    // Data are shared, not copied; encoding a large model as a whole would copy all of it.
    let mut rest = model.clone();
    let mut hash = Xxh3::new();
    if let Some(graph) = &mut rest.graph {
        for tensor in &mut graph.initializer {
            hash.update(&tensor.raw_data.take().unwrap_or_default());
        }
    }
    hash.update(&rest.encode_to_vec());
    format!("{:016x}", hash.digest())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitq_onnx::Tensor;
    use vitq_passes::ir::Graph;

    /// The fingerprint of `y = x + c`.
    fn of(c: &[f32], operator: &str) -> String {
        let text = format!(
            "<ir_version: 8, opset_import: [\"\" : 17]> g (float[2] x) => (float[2] y) \
             <float[2] c = {{1.0, 2.0}}> {{ y = {operator}(x, c) }}"
        );
        let mut graph = Graph::parse(&text).unwrap();
        let reader = graph.outputs()[0].outlet.node;
        graph.replace_constant(reader, 1, &Tensor::from_f32(&[2], c));
        fingerprint(&graph.export())
    }

    #[test]
    fn a_weight_or_an_operator_makes_another_model() {
        let one = of(&[1.0, 2.0], "Add");
        assert_eq!(one, of(&[1.0, 2.0], "Add"));
        assert_ne!(one, of(&[1.0, 2.5], "Add"));
        assert_ne!(one, of(&[1.0, 2.0], "Mul"));
    }
}
