//! Forms of the targets other than the default one.

use vitq_passes::ir::Graph;
use vitq_passes::plan::{Activation, Decision, LinearPlan, LowRank, Plan, ValuePlan, Weight};
use vitq_passes::quantise::{ApplyError, apply};
use vitq_passes::target::{
    ALL, Blocks, ONNX_RUNTIME, OPENVINO, PORTABLE, TENSORRT, TRACT, Target, Values,
};

use crate::linear::{INPUTS, OUTPUTS, codebooks, in_blocks, linear, network, uniform, weight};
use crate::support::{codes, parse, plan, structure, write_case};

fn applied(graph: &Graph, plan: &Plan, target: &Target) -> Result<Graph, ApplyError> {
    let mut quantised = graph.clone();
    apply(&mut quantised, &structure(graph), plan, target).map(|_| quantised)
}

/// Lets the judge hold the Linear against integer arithmetic, in ONNX Runtime and onnx's reference evaluator.
fn judge(graph: &Graph, linear: LinearPlan, target: &Target, check: &str) -> Graph {
    let plan = plan(vec![("fc", Decision::Linear(linear))]);
    let quantised = applied(graph, &plan, target).unwrap_or_else(|e| panic!("{e}"));
    write_case(graph, &quantised, &plan).judge(check, &["fc"]);
    quantised
}

/// Linears with everything that a plan can say.
fn linears() -> Vec<LinearPlan> {
    let plain = || weight(8, INPUTS, OUTPUTS);
    let mut linears: Vec<_> = (2..=8)
        .map(|bits| linear(uniform(bits, 1 << (bits - 1)), plain()))
        .collect();
    linears.extend(codebooks().map(|codebook| linear(codebook, plain())));
    let zero_point = (0..OUTPUTS).map(|c| c as i8 - 8).collect();
    let asymmetric = Weight {
        zero_point,
        ..weight(4, INPUTS, OUTPUTS)
    };
    linears.push(linear(uniform(4, 7), asymmetric));
    let pre_scale = (0..INPUTS).map(|i| 1.0 / f32::from(1_u8 << (i % 3)));
    linears.push(LinearPlan {
        pre_scale: Some(pre_scale.collect()),
        ..linear(uniform(8, 128), plain())
    });
    linears
}

#[test]
fn linears_are_the_same_everywhere() {
    for target in [TRACT, PORTABLE] {
        for linear in linears() {
            for (batch, bias) in [("N", true), ("2", false)] {
                judge(&network(batch, bias), linear.clone(), &target, "everywhere");
            }
        }
    }
}

#[test]
fn a_low_rank_branch_stands_beside_an_integer_product() {
    let factor = |count| {
        codes(count, 9)
            .iter()
            .map(|&c| f32::from(c) / 64.0)
            .collect()
    };
    let low_rank = LowRank {
        rank: 2,
        bits: 32,
        down: factor(2 * INPUTS),
        up: factor(2 * OUTPUTS),
    };
    for bits in [8, 32] {
        let linear = LinearPlan {
            low_rank: Some(low_rank.clone().stored_in(bits)),
            ..linear(uniform(8, 128), weight(8, INPUTS, OUTPUTS))
        };
        judge(&network("N", true), linear.clone(), &TRACT, "close");
        // What folds no codes gets floats, of the same values.
        let plan = plan(vec![("fc", Decision::Linear(linear))]);
        let floats =
            applied(&network("N", true), &plan, &TENSORRT).unwrap_or_else(|e| panic!("{e}"));
        assert!(!floats.ops().any(|(_, op)| op.is("Cast")));
    }
}

#[test]
fn four_bit_codes_are_two_a_byte_in_every_operator_set() {
    let table: Vec<i8> = (-8..8).map(|k: i8| k * k.abs()).collect();
    let mut table = table;
    table.sort_unstable();
    table.dedup();
    let plain = weight(4, INPUTS, OUTPUTS);
    let levels = plain
        .codes
        .iter()
        .map(|&c| table[usize::from(c as u8) % table.len()]);
    let weight = Weight {
        codes: levels.collect(),
        table: Some(table),
        ..plain
    };
    for target in [TRACT, PORTABLE] {
        let linear = linear(uniform(8, 128), weight.clone());
        let quantised = judge(&network("N", true), linear, &target, "everywhere");
        assert_eq!(quantised.opset(), 17);
        assert!(quantised.ops().any(|(_, op)| op.is("Gather")));
    }
}

#[test]
fn symmetric_codes_are_int8_around_zero() {
    for (batch, bias) in [("N", true), ("2", false)] {
        let linear = linear(uniform(8, 128), weight(8, INPUTS, OUTPUTS));
        let quantised = judge(&network(batch, bias), linear, &TENSORRT, "everywhere");
        let text = quantised.to_string();
        assert!(
            !text.contains("uint8") && !text.contains("int32["),
            "{text}"
        );
    }
}

#[test]
fn openvino_gets_dequantised_operands() {
    let even = |it: &LinearPlan| matches!(it.activation, Activation::Uniform { bits: 8, .. });
    for linear in linears().into_iter().filter(even) {
        let plan = plan(vec![("fc", Decision::Linear(linear))]);
        let [ours, same] = [OPENVINO, PORTABLE].map(|it| {
            let applied = applied(&network("N", true), &plan, &it);
            applied.unwrap_or_else(|e| panic!("{e}")).to_string()
        });
        assert_eq!(ours, same);
    }
}

#[test]
fn codes_that_a_target_lacks_are_named() {
    let refused = |activation| {
        let decision = Decision::Linear(linear(activation, weight(8, INPUTS, OUTPUTS)));
        let plan = plan(vec![("fc", decision)]);
        match applied(&network("N", true), &plan, &TENSORRT) {
            Ok(_) => String::new(),
            Err(error) => error.to_string(),
        }
    };
    assert_eq!(refused(uniform(8, 128)), "");
    let [codebook, ..] = codebooks();
    for (activation, word) in [
        (uniform(4, 8), "--bits w8a8"),
        (uniform(8, 3), "--target tensorrt"),
        (codebook, "--target tensorrt"),
    ] {
        let said = refused(activation);
        assert!(said.contains("`fc`") && said.contains(word), "{said}");
    }
}

#[test]
fn a_weight_alone_can_be_rounded() {
    for target in ALL.into_iter().filter(|it| it.values == Values::Read) {
        for bits in [8, 4, 2] {
            for batch in ["N", "2"] {
                let weight = weight(bits, INPUTS, OUTPUTS);
                let linear = linear(Activation::Float, weight);
                let found = judge(&network(batch, true), linear, &target, "weights_alone");
                let quantisers = found.ops().filter(|(_, op)| op.is("QuantizeLinear"));
                assert_eq!(quantisers.count(), 0, "{found}");
            }
        }
    }
}

#[test]
fn blocks_are_for_targets_that_have_them() {
    let blocked = |block| {
        let weight = in_blocks(weight(4, INPUTS, OUTPUTS), block);
        linear(Activation::Float, weight)
    };
    let refused = |block, target: &Target| {
        let plan = Plan {
            values: vec![ValuePlan {
                value: "x".into(),
                least: -1.0,
                most: 1.0,
            }],
            ..plan(vec![("fc", Decision::Linear(blocked(block)))])
        };
        let error = applied(&network("N", true), &plan, target).expect_err("a refusal");
        error.to_string()
    };
    for target in ALL.into_iter().filter(|it| it.blocks == Blocks::None) {
        let said = refused(16, &target);
        for word in ["`fc`", target.name, "--block", "--target onnxruntime"] {
            assert!(said.contains(word), "{said}");
        }
    }
    let said = refused(16, &OPENVINO);
    assert!(said.contains("24 inputs in blocks of 16"), "{said}");
    for batch in ["N", "2"] {
        judge(
            &network(batch, true),
            blocked(8),
            &OPENVINO,
            "weights_alone",
        );
    }
}

#[test]
fn tract_keeps_the_input_of_few_channels_float() {
    let text = r#"<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,5,8] x) => (float[N,5,200] q, float[N,5,200] k, float[N,5,200] y) <
            float[8,200] w1 = {WIDE}, float[8,200] w2 = {WIDE}, float[200,200] w3 = {SQUARE}
        > { [q] q = MatMul(x, w1) [k] k = MatMul(x, w2) [out] y = MatMul(q, w3) }"#;
    let zeros = |count: usize| vec!["0"; count].join(", ");
    let text = text
        .replace("WIDE", &zeros(1600))
        .replace("SQUARE", &zeros(40000));
    let structure = structure(&parse(&text));
    assert_eq!(TRACT.weight_only(&structure), ["out"]);
    assert!(ONNX_RUNTIME.weight_only(&structure).is_empty());
}

#[test]
fn tract_gets_integer_products() {
    let plan = plan(vec![(
        "fc",
        Decision::Linear(linear(uniform(8, 128), weight(8, INPUTS, OUTPUTS))),
    )]);
    let quantised = applied(&network("N", true), &plan, &TRACT).unwrap();
    let count = |op_type| quantised.ops().filter(|(_, op)| op.is(op_type)).count();
    let found = ["MatMulInteger", "MatMul", "DequantizeLinear"].map(count);
    assert_eq!(found, [1, 0, 0], "{quantised}");
}

/// What applying an empty plan to a graph of one more operator says.
fn refusal(opsets: &str, operator: &str, target: &Target) -> String {
    let graph = parse(&format!(
        r#"<ir_version: 8, opset_import: [{opsets}]> net (float[N,4] x) => (float[N,4] y) {{ [odd] y = {operator} }}"#
    ));
    match applied(&graph, &plan(vec![]), target) {
        Ok(_) => String::new(),
        Err(error) => error.to_string(),
    }
}

#[test]
fn what_a_target_cannot_run_is_named() {
    let contrib = r#""" : 17, "com.microsoft" : 1"#;
    for target in [TRACT, PORTABLE] {
        let said = refusal(contrib, "com.microsoft.QuickGelu(x)", &target);
        for word in [
            "`odd`",
            "com.microsoft.QuickGelu",
            target.name,
            "--target onnxruntime",
        ] {
            assert!(said.contains(word), "{said}");
        }
    }
    assert_eq!(
        refusal(contrib, "com.microsoft.QuickGelu(x)", &ONNX_RUNTIME),
        ""
    );
    let said = refusal(r#""" : 23"#, "RMSNormalization(x, x)", &PORTABLE);
    for word in [
        "set 23",
        "`odd`",
        "opset_version=20",
        "--target onnxruntime",
    ] {
        assert!(said.contains(word), "{said}");
    }
    assert_eq!(refusal(r#""" : 23"#, "RMSNormalization(x, x)", &TRACT), "");
    assert!(refusal(r#""" : 27"#, "Relu(x)", &ONNX_RUNTIME).contains("--target tract"));
}

#[test]
fn targets_are_told_apart_by_name() {
    let mut names = ALL.map(|target| target.name);
    names.sort_unstable();
    assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
    assert_eq!(ALL[0], Target::default());
}
