//! Linears and patch embeddings against integer arithmetic.

use vitq_passes::ir::Graph;
use vitq_passes::plan::{Activation, Decision, LinearPlan, LowRank, Plan, Segment, Weight};
use vitq_passes::quantise::{Report, apply};
use vitq_passes::target::Target;

use crate::support::{codes, parse, plan, structure, write_case};

pub const INPUTS: usize = 24;
pub const OUTPUTS: usize = 16;

/// A Linear of 24 → 16 channels.
pub fn network(batch: &str, bias: bool) -> Graph {
    let weight = crate::support::zeros("float", "w", &[INPUTS, OUTPUTS]);
    let (bias, add) = match bias {
        true => (
            crate::support::zeros("float", "b", &[OUTPUTS]),
            "[add] y = Add(t, b)",
        ),
        false => ("float u = {0}".to_owned(), "[add] y = Add(u, t)"),
    };
    parse(&format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        net (float[{batch},5,{INPUTS}] x) => (float[{batch},5,{OUTPUTS}] y) <{weight}, {bias}> {{ [fc] t = MatMul(x, w) {add} }}"#
    ))
}

/// A uniform quantiser whose step is a power of two.
pub fn uniform(bits: u32, zero_point: u8) -> Activation {
    Activation::Uniform {
        bits,
        scale: 0.25 / f32::from(1_u8 << (8 - bits).min(4)),
        zero_point,
    }
}

/// Levels wider apart at the ends; steps that are sums of several powers of two.
pub fn codebooks() -> [Activation; 4] {
    let segment = |step, from, to| Segment { step, from, to };
    [
        vec![segment(8, -32, -8), segment(1, -8, 0), segment(6, 0, 36)],
        vec![segment(1, 0, 8), segment(4, 8, 24), segment(12, 24, 72)],
        vec![segment(4, -16, -8), segment(1, -8, 8), segment(4, 8, 32)],
        vec![segment(1, 3, 18)],
    ]
    .map(|segments| Activation::Codebook {
        scale: 0.0625,
        segments,
    })
}

/// Weight scales that are powers of two, so that no float operation rounds.
pub fn weight(bits: u32, inputs: usize, outputs: usize) -> Weight {
    // Of 8 bits no more than 7 are used: without VNNI ONNX Runtime saturates sums of two larger products.
    let most = (1 << (bits.min(7) - 1)) - 1;
    let scale = (0..outputs)
        .map(|c| 0.015625 / f32::from(1_u8 << (c % 4)))
        .collect();
    let codes = codes(inputs * outputs, most);
    Weight {
        bits,
        out: outputs,
        codes,
        block: None,
        scale,
        zero_point: Vec::new(),
        table: None,
    }
}

pub fn linear(activation: Activation, weight: Weight) -> LinearPlan {
    // On the grid of the accumulator for every step used here.
    let bias = (0..weight.out).map(|c| (c as f32 - 7.0) * 0.125).collect();
    LinearPlan {
        activation,
        pre_scale: None,
        weight,
        bias,
        low_rank: None,
    }
}

/// The same with a scale for each `block` inputs.
pub fn in_blocks(weight: Weight, block: usize) -> Weight {
    let blocks = weight.inputs().div_ceil(block);
    let scale = (0..weight.out * blocks).map(|b| 0.015625 / f32::from(1_u8 << (b % 5)));
    Weight {
        block: Some(block),
        scale: scale.collect(),
        ..weight
    }
}

fn apply_to(graph: &Graph, plan: &Plan) -> (Graph, Report) {
    let mut quantised = graph.clone();
    let report = apply(&mut quantised, &structure(graph), plan, &Target::default());
    (quantised, report.unwrap_or_else(|e| panic!("{e}")))
}

fn judge(graph: &Graph, linear: LinearPlan, check: &str, arguments: &[&str]) {
    let plan = plan(vec![("fc", Decision::Linear(linear))]);
    let (quantised, _) = apply_to(graph, &plan);
    write_case(graph, &quantised, &plan).judge(check, &[&["fc"], arguments].concat());
}

#[test]
fn is_the_integer_product_at_every_width() {
    for bits in 2..=8 {
        let plan = linear(
            uniform(bits, 1 << (bits - 1)),
            weight(bits, INPUTS, OUTPUTS),
        );
        judge(
            &network("N", true),
            plan,
            "exact",
            &["fuses=MatMulIntegerToFloat"],
        );
    }
}

#[test]
fn fuses_with_static_shapes() {
    let plan = linear(uniform(8, 128), weight(8, INPUTS, OUTPUTS));
    judge(&network("2", true), plan, "exact", &[]);
    let plan = linear(uniform(4, 8), weight(4, INPUTS, OUTPUTS));
    judge(&network("2", true), plan, "exact", &[]);
}

#[test]
fn weights_have_zero_points() {
    let zero_point: Vec<i8> = (0..OUTPUTS).map(|c| c as i8 - 8).collect();
    let weight = Weight {
        zero_point,
        ..weight(4, INPUTS, OUTPUTS)
    };
    judge(
        &network("N", true),
        linear(uniform(4, 7), weight),
        "exact",
        &[],
    );
}

#[test]
fn the_input_is_scaled_first() {
    let pre_scale = Some(
        (0..INPUTS)
            .map(|i| 1.0 / f32::from(1_u8 << (i % 3)))
            .collect(),
    );
    let plan = LinearPlan {
        pre_scale,
        ..linear(uniform(8, 128), weight(8, INPUTS, OUTPUTS))
    };
    judge(&network("N", true), plan, "exact", &[]);
}

#[test]
fn codebook_activations_stay_integers() {
    for codebook in codebooks() {
        judge(
            &network("N", true),
            linear(codebook, weight(8, INPUTS, OUTPUTS)),
            "exact",
            &[],
        );
    }
}

#[test]
fn codebook_weights_share_bytes() {
    for table in [
        vec![-127, -3, 4, 90],
        (-8..8)
            .map(|k: i8| 2 * k * k.abs() - k)
            .collect::<Vec<i8>>(),
    ] {
        let mut table = table;
        table.sort_unstable();
        table.dedup();
        let bits = if table.len() > 4 { 4 } else { 2 };
        let plain = weight(bits, INPUTS, OUTPUTS);
        let codes = plain
            .codes
            .iter()
            .map(|&c| table[(c as u8 as usize) % table.len()])
            .collect();
        let weight = Weight {
            codes,
            table: Some(table),
            ..plain
        };
        judge(
            &network("N", true),
            linear(codebooks()[0].clone(), weight),
            "exact",
            &[],
        );
    }
}

/// A branch that is stored in so many bits.
fn branch(bits: u32) -> Option<LowRank> {
    let factor = |count| {
        let codes = codes(count, 9);
        codes.iter().map(|&c| f32::from(c) / 64.0).collect()
    };
    let floats = LowRank {
        rank: 2,
        bits: 32,
        down: factor(2 * INPUTS),
        up: factor(2 * OUTPUTS),
    };
    Some(floats.stored_in(bits))
}

#[test]
fn a_low_rank_branch_reads_what_the_quantiser_reads() {
    for (bias, scaled, bits) in [(true, false, 32), (true, true, 8), (false, false, 8)] {
        let pre_scale = (0..INPUTS).map(|c| 0.5 + 0.25 * (c % 3) as f32);
        let plan = LinearPlan {
            low_rank: branch(bits),
            pre_scale: scaled.then(|| pre_scale.collect()),
            ..linear(uniform(8, 128), weight(8, INPUTS, OUTPUTS))
        };
        let folds: &[&str] = if bits == 8 { &["folds=Cast"] } else { &[] };
        judge(&network("N", bias), plan, "close", folds);
    }
}

#[test]
fn a_branch_beside_a_float_input_is_the_same_as_one_merged_into_the_weight() {
    for bits in [4, 8] {
        let plan = LinearPlan {
            low_rank: branch(32),
            ..linear(Activation::Float, weight(bits, INPUTS, OUTPUTS))
        };
        judge(&network("N", true), plan, "weights_alone", &[]);
    }
}

#[test]
fn scales_need_not_be_powers_of_two() {
    let activation = Activation::Uniform {
        bits: 8,
        scale: 0.0213,
        zero_point: 117,
    };
    let scale = (0..OUTPUTS).map(|c| 0.0003 + c as f32 * 0.000_17).collect();
    let plan = linear(
        activation,
        Weight {
            scale,
            ..weight(8, INPUTS, OUTPUTS)
        },
    );
    judge(&network("N", true), plan, "close", &[]);
}

#[test]
fn blocks_become_one_operator() {
    for block in [16, 32, 64] {
        // A shorter last block is none too few.
        let inputs = 2 * block + 24;
        let zeros = crate::support::zeros("float", "w", &[inputs, OUTPUTS]);
        for (bits, batch) in [(8, "N"), (8, "2"), (4, "N"), (4, "2"), (3, "N"), (2, "2")] {
            let graph = parse(&format!(
                r#"<ir_version: 8, opset_import: ["" : 17]>
                net (float[{batch},5,{inputs}] x) => (float[{batch},5,{OUTPUTS}] y) <{zeros}, float[{OUTPUTS}] b = {{{}}}>
                {{ [fc] t = MatMul(x, w) [add] y = Add(t, b) }}"#,
                ["0"; OUTPUTS].join(", ")
            ));
            let weight = in_blocks(weight(bits, inputs, OUTPUTS), block);
            judge(
                &graph,
                linear(Activation::Float, weight),
                "weights_alone",
                &["fuses=MatMulNBits"],
            );
        }
    }
}

#[test]
fn blocks_have_zero_points() {
    for bits in [4, 8] {
        let weight = in_blocks(weight(bits, INPUTS, OUTPUTS), 16);
        let zero_point = codes(weight.scale.len(), 5);
        let weight = Weight {
            zero_point,
            ..weight
        };
        let linear = linear(Activation::Float, weight);
        judge(
            &network("N", true),
            linear,
            "weights_alone",
            &["fuses=MatMulNBits"],
        );
    }
}

#[test]
fn a_dead_channel_keeps_its_bias() {
    let mut weight = weight(8, INPUTS, OUTPUTS);
    weight.codes[..INPUTS].fill(0);
    weight.scale[0] = 1e-12;
    // Not dead, but next to nothing beside its bias.
    weight.scale[1] = 1e-11;
    let plan = plan(vec![(
        "fc",
        Decision::Linear(linear(uniform(8, 128), weight)),
    )]);
    let graph = network("N", true);
    let (quantised, report) = apply_to(&graph, &plan);
    assert_eq!(report.sites[0].raised_scales, 2);
    write_case(&graph, &quantised, &plan).judge("biases", &["fc"]);
}

#[test]
fn readers_of_one_tensor_share_its_quantiser() {
    let weights: Vec<_> = ["u", "v", "w"]
        .iter()
        .map(|n| crate::support::zeros("float", n, &[INPUTS, OUTPUTS]))
        .collect();
    let graph = parse(&format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,5,{INPUTS}] x) => (float[N,5,{OUTPUTS}] q, float[N,5,{OUTPUTS}] k, float[N,5,{OUTPUTS}] v) <{}>
        {{ [q] q = MatMul(x, u) [k] k = MatMul(x, v) [v] v = MatMul(x, w) }}"#,
        weights.join(", ").replace("float[24,16] v =", "float[24,16] vv =")
    ).replace("MatMul(x, v)", "MatMul(x, vv)"));
    let same = linear(uniform(8, 128), weight(8, INPUTS, OUTPUTS));
    let other = linear(uniform(4, 8), weight(8, INPUTS, OUTPUTS));
    let decisions = [("q", same.clone()), ("k", same), ("v", other)];
    let plan = plan(
        decisions
            .into_iter()
            .map(|(s, l)| (s, Decision::Linear(l)))
            .collect(),
    );
    let (quantised, report) = apply_to(&graph, &plan);
    assert_eq!(report.quantisers, 2);
    assert_eq!(
        quantised
            .ops()
            .filter(|(_, op)| op.is("QuantizeLinear"))
            .count(),
        2
    );
    write_case(&graph, &quantised, &plan).judge("exact", &["q", "k", "v"]);
}

#[test]
fn a_patch_embedding_is_a_linear_on_patches() {
    let (channels, size) = (3, 4);
    let inputs = channels * size * size;
    for (bias, pre_scale) in [(", b", None), ("", Some(vec![1.0, 0.5, 0.25]))] {
        let graph = parse(&format!(
            r#"<ir_version: 8, opset_import: ["" : 17]>
            net (float[N,{channels},12,8] x) => (float[N,{OUTPUTS},3,2] y) <{}, {}>
            {{ [patch] y = Conv<kernel_shape=[{size},{size}], strides=[{size},{size}]>(x, w{bias}) }}"#,
            crate::support::zeros("float", "w", &[OUTPUTS, channels, size, size]),
            crate::support::zeros("float", "b", &[OUTPUTS]),
        ));
        let linear = LinearPlan {
            pre_scale,
            ..linear(uniform(8, 128), weight(4, inputs, OUTPUTS))
        };
        let plan = plan(vec![("patch", Decision::Linear(linear))]);
        let (quantised, _) = apply_to(&graph, &plan);
        write_case(&graph, &quantised, &plan).judge("patches", &["patch", "4"]);
    }
}
