//! Every form as text: the graph before stands in the test, the graph after in a file of its name.

use vitq_passes::ir::Graph;
use vitq_passes::plan::{Activation, Decision, LinearPlan, LowRank, Plan, Segment, Weight};
use vitq_passes::quantise::apply;
use vitq_passes::target::Target;

use crate::support::{parse, plan, structure};

/// Applies the plan to the graph and compares the printed result.
fn becomes(before: &str, plan: &Plan, after: &str) {
    let mut graph: Graph = parse(before);
    let structure = structure(&graph);
    apply(&mut graph, &structure, plan, &Target::default()).unwrap_or_else(|e| panic!("{e}"));
    let printed = graph
        .to_string()
        .replace(env!("CARGO_PKG_VERSION"), "VERSION");
    assert_eq!(printed, after, "\n{printed}");
}

fn uniform(bits: u32) -> Activation {
    Activation::Uniform {
        bits,
        scale: 0.5,
        zero_point: 3,
    }
}

fn linear(activation: Activation) -> LinearPlan {
    LinearPlan {
        activation,
        pre_scale: None,
        weight: Weight {
            bits: 8,
            out: 2,
            codes: vec![1, 2, 3, 4],
            block: None,
            scale: vec![0.25, 0.5],
            zero_point: vec![],
            table: None,
        },
        bias: vec![1.0, -1.0],
        low_rank: None,
    }
}

const LINEAR: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
net (float[N,2] x) => (float[N,2] y) <float[2,2] w = {1, 0, 0, 1}, float[2] b = {0, 0}> { [fc] t = MatMul(x, w) [add] y = Add(b, t) }"#;

#[test]
fn uniform_linear() {
    becomes(
        LINEAR,
        &plan(vec![("fc", Decision::Linear(linear(uniform(8))))]),
        include_str!("uniform_linear.txt"),
    );
}

#[test]
fn float_input_of_a_packed_weight() {
    let mut linear = linear(Activation::Float);
    linear.weight.bits = 4;
    becomes(
        LINEAR,
        &plan(vec![("fc", Decision::Linear(linear))]),
        include_str!("float_input_of_a_packed_weight.txt"),
    );
}

#[test]
fn blocks_of_inputs() {
    let before = LINEAR.replace("float[N,2] x", "float[N,5] x").replace(
        "float[2,2] w = {1, 0, 0, 1}",
        "float[5,2] w = {1, 0, 0, 1, 1, 0, 0, 1, 0, 0}",
    );
    let mut linear = linear(Activation::Float);
    linear.weight = Weight {
        bits: 4,
        codes: vec![1, 2, 3, 4, 5, -1, -2, -3, -4, -5],
        block: Some(2),
        scale: vec![0.25, 0.5, 1.0, 2.0, 4.0, 8.0],
        ..linear.weight
    };
    becomes(
        &before,
        &plan(vec![("fc", Decision::Linear(linear))]),
        include_str!("blocks_of_inputs.txt"),
    );
}

#[test]
fn low_bits_scaled_first() {
    let linear = LinearPlan {
        pre_scale: Some(vec![2.0, 0.5]),
        ..linear(uniform(4))
    };
    becomes(
        LINEAR,
        &plan(vec![("fc", Decision::Linear(linear))]),
        include_str!("low_bits_scaled_first.txt"),
    );
}

#[test]
fn linear_without_bias_and_a_low_rank_branch() {
    let before = LINEAR
        .replace("t = MatMul", "y = MatMul")
        .replace("[add] y = Add(b, t)", "");
    let low_rank = Some(LowRank {
        rank: 1,
        bits: 32,
        down: vec![1.0, 2.0],
        up: vec![3.0, 4.0],
    });
    let linear = LinearPlan {
        low_rank,
        ..linear(uniform(8))
    };
    becomes(
        &before,
        &plan(vec![("fc", Decision::Linear(linear))]),
        include_str!("linear_without_bias_and_a_low_rank_branch.txt"),
    );
}

#[test]
fn a_low_rank_branch_in_codes() {
    let before = LINEAR
        .replace("t = MatMul", "y = MatMul")
        .replace("[add] y = Add(b, t)", "");
    let low_rank = LowRank {
        rank: 1,
        bits: 32,
        down: vec![127.0, 64.0],
        up: vec![254.0, -127.0],
    };
    let linear = LinearPlan {
        low_rank: Some(low_rank.stored_in(8)),
        ..linear(uniform(8))
    };
    becomes(
        &before,
        &plan(vec![("fc", Decision::Linear(linear))]),
        include_str!("a_low_rank_branch_in_codes.txt"),
    );
}

#[test]
fn codebooks() {
    let before = LINEAR.replace("17", "21");
    let segment = |step, from, to| Segment { step, from, to };
    let activation = Activation::Codebook {
        scale: 0.25,
        segments: vec![segment(3, -6, 0), segment(1, 0, 6), segment(3, 6, 15)],
    };
    let mut linear = linear(activation);
    linear.weight.bits = 4;
    linear.weight.zero_point = vec![1, 0];
    linear.weight.table = Some(vec![1, 2, 3, 4]);
    becomes(
        &before,
        &plan(vec![("fc", Decision::Linear(linear))]),
        include_str!("codebooks.txt"),
    );
}

#[test]
fn patch_embedding() {
    let before = r#"<ir_version: 8, opset_import: ["" : 17]>
net (float[N,2,4,4] x) => (float[N,2,4,4] y) <float[2,2,1,1] w = {1, 0, 0, 1}> { [patch] y = Conv(x, w) }"#;
    becomes(
        before,
        &plan(vec![("patch", Decision::Linear(linear(uniform(8))))]),
        include_str!("patch_embedding.txt"),
    );
}

const ATTENTION: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
net (float[N,2,2] q, float[N,2,2] k, float[N,2,2] v) => (float[N,2,2] y)
{ [qk] s = MatMul(q, k) [softmax] p = Softmax<axis=-1>(s) [av] y = MatMul(p, v) }"#;

#[test]
fn products() {
    let qk = Decision::Product {
        left: uniform(8),
        right: uniform(4),
    };
    let av = Decision::Product {
        left: Activation::Log {
            bits: 4,
            step: 0.5,
            shift: 0,
        },
        right: uniform(8),
    };
    becomes(
        ATTENTION,
        &plan(vec![("qk", qk), ("av", av)]),
        include_str!("products.txt"),
    );
}

#[test]
fn log_codes_beside_another_reader() {
    let before = ATTENTION.replace("(float[N,2,2] y)", "(float[N,2,2] y, float[N,2,2] p)");
    let av = Decision::Product {
        left: Activation::Log {
            bits: 3,
            step: 0.5,
            shift: 2,
        },
        right: uniform(8),
    };
    becomes(
        &before,
        &plan(vec![("av", av)]),
        include_str!("log_codes_beside_another_reader.txt"),
    );
}
