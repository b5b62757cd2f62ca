//! Attention products and the logarithmic codes.

use vitq_passes::plan::{Activation, Decision};
use vitq_passes::quantise::apply;
use vitq_passes::target::Target;

use crate::linear::uniform;
use crate::support::{parse, plan, structure, write_case};

/// `y = softmax(x)·v` with v the identity made from the input, and the Softmax itself as a second output.
fn probabilities() -> vitq_passes::ir::Graph {
    let identity: Vec<_> = (0..36)
        .map(|i| if i % 7 == 0 { "1" } else { "0" })
        .collect();
    parse(&format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,6] x) => (float[N,6] y, float[N,6] p) <float[6,6] i = {{{}}}, float z = {{0}}>
        {{
            [softmax] p = Softmax(x)
            zeros = Mul(p, z)
            first = ReduceSum<keepdims=0>(zeros)
            v = Add(i, first)
            [av] y = MatMul(p, v)
        }}"#,
        identity.join(",")
    ))
}

#[test]
fn logarithmic_codes_are_the_papers() {
    for (bits, step, shift) in [
        (2, 0.5, 0),
        (3, 0.5, 0),
        (4, 0.5, 0),
        (6, 0.5, 0),
        (7, 0.5, 0),
        (3, 0.5, 2),
        (4, 0.5, 1),
        (4, 0.5, 5),
        (6, 0.5, 3),
        (6, 0.125, 0),
        (5, 0.2, 3),
        (8, 0.05, 2),
    ] {
        let graph = probabilities();
        // v holds 0 and 1 only: its quantiser is exact.
        let right = Activation::Uniform {
            bits: 8,
            scale: 0.0078125,
            zero_point: 0,
        };
        let product = Decision::Product {
            left: Activation::Log { bits, step, shift },
            right,
        };
        let plan = plan(vec![("av", product)]);
        let mut quantised = graph.clone();
        apply(
            &mut quantised,
            &structure(&graph),
            &plan,
            &Target::default(),
        )
        .unwrap_or_else(|e| panic!("{e}"));
        write_case(&graph, &quantised, &plan).judge("probabilities", &["av"]);
    }
}

#[test]
fn both_operands_of_a_product_are_quantised() {
    let graph = parse(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,7,8] x) => (float[N,7,7] y) { k = Transpose<perm=[0,2,1]>(x) [qk] y = MatMul(x, k) }"#,
    );
    for bits in [3, 4, 8] {
        let zero = 1 << (bits - 1);
        let (left, right) = (uniform(bits, zero), uniform(bits, zero - 1));
        let plan = plan(vec![("qk", Decision::Product { left, right })]);
        let mut quantised = graph.clone();
        apply(
            &mut quantised,
            &structure(&graph),
            &plan,
            &Target::default(),
        )
        .unwrap_or_else(|e| panic!("{e}"));
        write_case(&graph, &quantised, &plan).judge("product", &["qk"]);
    }
}
