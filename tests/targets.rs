//! Linears written for the targets that promise to run in tract or RTen as they are: their own operators, none registered, give
//! what integer arithmetic gives. (ONNX Runtime, OpenVINO and onnx's reference evaluator are held against the same in
//! `passes/tests/emission`.) And a whole network for target `portable`, in both next to ONNX Runtime.

use std::path::Path;
use std::process::Command;

use prost::Message;
use tract_onnx::pb::ModelProto;
use tract_onnx::prelude::*;
use vitq::run::{Array, RunOptions, Runtime, load};
use vitq_onnx::Tensor as Constant;
use vitq_passes::ir::{Graph, Op};
use vitq_passes::plan::{
    Activation, Decision, LinearPlan, Plan, Segment, SitePlan, VERSION, Weight,
};
use vitq_passes::quantise::apply;
use vitq_passes::structure::recognise;
use vitq_passes::target::{PORTABLE, TRACT, Target};

const ROWS: usize = 7;
const INPUTS: usize = 24;
const OUTPUTS: usize = 16;
/// A power of two, as all scales here, so that no float operation rounds.
const STEP: f32 = 0.125;

/// `y = x·W + b`
fn network() -> Graph {
    let mut graph = Graph::parse(&format!(
        r#"<ir_version: 8, opset_import: ["" : 17]> net (float[{ROWS},{INPUTS}] x) => (float[{ROWS},{OUTPUTS}] y)
        <float u = {{0}}> {{ [add] y = Add(x, u) }}"#
    ))
    .unwrap();
    let zeros = |dims: &[usize]| Constant::from_f32(dims, &vec![1.0; dims.iter().product()]);
    let weight = graph.add_initializer("w", &zeros(&[INPUTS, OUTPUTS]));
    let bias = graph.add_initializer("b", &zeros(&[OUTPUTS]));
    let add = graph.ops().find(|(_, op)| op.is("Add")).unwrap().0;
    let input = graph.inputs().next().unwrap();
    let product = graph.insert_op(Op::new("MatMul", "fc"), &[input, weight]);
    graph.set_input(add, 0, product);
    graph.set_input(add, 1, bias);
    graph.remove_dead();
    graph
}

/// A number in `-most..=most` that looks random.
fn spread(i: usize, most: i64) -> i64 {
    let hashed = (i as u32).wrapping_mul(2_654_435_761) >> 16;
    i64::from(hashed) % (2 * most + 1) - most
}

fn weight(zero_point: Vec<i8>) -> Weight {
    Weight {
        bits: 8,
        out: OUTPUTS,
        codes: (0..INPUTS * OUTPUTS).map(|i| spread(i, 60) as i8).collect(),
        block: None,
        scale: (0..OUTPUTS)
            .map(|c| 1.0 / f32::from(1_u8 << (c % 5)))
            .collect(),
        zero_point,
        table: None,
    }
}

/// One whose codes share bytes.
fn narrow(levels: Vec<i8>) -> Weight {
    let plain = weight(vec![]);
    let level = |code: &i8| levels[usize::from(code.unsigned_abs()) % levels.len()];
    Weight {
        bits: levels.len().trailing_zeros(),
        codes: plain.codes.iter().map(level).collect(),
        table: Some(levels),
        ..plain
    }
}

fn plan(activation: Activation, weight: Weight) -> LinearPlan {
    LinearPlan {
        activation,
        pre_scale: None,
        weight,
        bias: (0..OUTPUTS).map(|c| c as f32 - 7.0).collect(),
        low_rank: None,
    }
}

/// Off the ties, where tract's multiplication by 1/scale may round otherwise.
fn input() -> Vec<f32> {
    let value = |i| (spread(i, 40) as f32 + 0.25) * STEP;
    (0..ROWS * INPUTS).map(value).collect()
}

/// The activation's levels in units of [`STEP`].
fn levels(activation: &Activation, x: &[f32]) -> Vec<f64> {
    let level = |x: &f32| match activation {
        Activation::Float => f64::from(x / STEP),
        Activation::Uniform {
            bits, zero_point, ..
        } => {
            let zero = i64::from(*zero_point);
            let code = (x / STEP).round_ties_even() as i64 + zero;
            (code.clamp(0, (1 << bits) - 1) - zero) as f64
        }
        Activation::Codebook { segments, .. } => {
            let part = |s: &Segment| {
                let code = f32::from(s.step) * (x / (f32::from(s.step) * STEP)).round_ties_even();
                (code as i64).clamp(s.from.into(), s.to.into()) - i64::from(s.from)
            };
            (i64::from(segments[0].from) + segments.iter().map(part).sum::<i64>()) as f64
        }
        Activation::Log { .. } => panic!("no Linear reads logarithmic codes"),
    };
    x.iter().map(level).collect()
}

fn expected(plan: &LinearPlan, x: &[f32]) -> Vec<f32> {
    let levels = levels(&plan.activation, x);
    let weight = &plan.weight;
    let mut y = Vec::new();
    for row in levels.chunks_exact(INPUTS) {
        for (c, codes) in weight.codes.chunks_exact(INPUTS).enumerate() {
            let zero = weight.zero_point.get(c).map_or(0, |&z| i64::from(z));
            let sum: f64 = row
                .iter()
                .zip(codes)
                .map(|(x, &w)| x * (i64::from(w) - zero) as f64)
                .sum();
            y.push(sum as f32 * STEP * weight.scale[c] + plan.bias[c]);
        }
    }
    y
}

/// What tract gives with its own operators alone.
fn in_stock_tract(graph: &Graph, x: &[f32]) -> TractResult<Vec<f32>> {
    let proto = ModelProto::decode(&graph.export().encode_to_vec()[..])?;
    let model = tract_onnx::onnx().model_for_proto_model(&proto)?;
    let runnable = model.into_optimized()?.into_runnable()?;
    let x = Tensor::from_shape(&[ROWS, INPUTS], x)?;
    let outputs = runnable.run(tvec!(x.into_tvalue()))?;
    Ok(outputs[0]
        .to_plain_array_view::<f32>()?
        .iter()
        .copied()
        .collect())
}

/// What RTen gives.
fn in_rten(model: Vec<u8>, dims: &[usize], x: &[f32]) -> Vec<f32> {
    let model = rten::Model::load(model).unwrap_or_else(|e| panic!("RTen: {e}"));
    let x = rten::Value::from_shape(dims, x.to_vec()).unwrap();
    let y = model
        .run_one(x.into(), None)
        .unwrap_or_else(|e| panic!("RTen: {e}"));
    y.into_tensor::<f32>().unwrap().into_data()
}

fn holds(linear: LinearPlan, target: &Target) {
    let mut graph = network();
    let structure = recognise(&graph);
    let x = input();
    let expected = expected(&linear, &x);
    let site = SitePlan {
        site: "fc".into(),
        decision: Decision::Linear(linear),
    };
    let plan = Plan {
        version: VERSION,
        sites: vec![site],
        ..Plan::default()
    };
    apply(&mut graph, &structure, &plan, target).unwrap();
    let found =
        in_stock_tract(&graph, &x).unwrap_or_else(|e| panic!("{}: {e:#}\n{graph}", target.name));
    assert_eq!(found, expected, "{}: {graph}", target.name);
    if target.name == PORTABLE.name {
        let model = graph.export().encode_to_vec();
        let found = in_rten(model, &[ROWS, INPUTS], &x);
        assert_eq!(found, expected, "RTen: {graph}");
    }
}

#[test]
fn linears_give_what_integer_arithmetic_gives() {
    let uniform = |bits, zero_point| Activation::Uniform {
        bits,
        scale: STEP,
        zero_point,
    };
    let segment = |step, from, to| Segment { step, from, to };
    let codebook = Activation::Codebook {
        scale: STEP,
        segments: vec![segment(8, -32, -8), segment(1, -8, 0), segment(6, 0, 36)],
    };
    for target in [TRACT, PORTABLE] {
        for activation in [
            Activation::Float,
            uniform(8, 128),
            uniform(8, 0),
            uniform(4, 7),
            codebook.clone(),
        ] {
            holds(plan(activation, weight(vec![])), &target);
        }
        let zeros = (0..OUTPUTS).map(|c| c as i8 - 8).collect();
        holds(plan(uniform(8, 120), weight(zeros)), &target);
        for levels in [vec![-90, -20, 7, 60], (-8..8).map(|k| 7 * k).collect()] {
            holds(plan(uniform(8, 128), narrow(levels)), &target);
        }
    }
}

/// Signal to difference, dB.
fn sqnr(signal: &[f32], other: &[f32]) -> f64 {
    assert_eq!(signal.len(), other.len());
    let square = |x: f32| f64::from(x) * f64::from(x);
    let (mut size, mut difference) = (0.0, f64::MIN_POSITIVE);
    for (a, b) in signal.iter().zip(other) {
        size += square(*a);
        difference += square(a - b);
    }
    10.0 * f64::log10(size / difference)
}

/// Layer by layer they are equal; from end to end a value that lies between two codes may go either way.
#[test]
fn a_whole_portable_network_gives_the_same_in_tract_and_rten_as_in_onnx_runtime() {
    const DIMS: [usize; 4] = [4, 3, 32, 32];
    let digits = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/digits");
    let folder = tempfile::tempdir().unwrap();
    for (bits, scope) in [("w8a8", "linear"), ("w4a4", "all")] {
        let file = folder.path().join(bits).with_extension("onnx");
        let made = Command::new(env!("CARGO_BIN_EXE_vitq"))
            .arg("quantize")
            .arg(digits.join("model.onnx"))
            .arg("--calib")
            .arg(digits.join("images"))
            .args([
                "--target", "portable", "--scope", scope, "--bits", bits, "--quiet", "-o",
            ])
            .arg(&file)
            .status();
        assert!(made.unwrap().success());
        let model = std::fs::read(&file).unwrap();
        let x: Vec<f32> = (0..DIMS.iter().product())
            .map(|i| spread(i, 500) as f32 / 500.0)
            .collect();
        let array: Array = ndarray::ArrayD::from_shape_vec(DIMS.to_vec(), x.clone())
            .unwrap()
            .into();
        let run = |runtime| {
            let options = RunOptions::default();
            let dims = [("input".to_owned(), DIMS.to_vec())];
            let executor = load(runtime, &model, &dims, &[], &options).unwrap();
            let given = executor
                .run(&[("input".to_owned(), array.clone())])
                .unwrap();
            given[0].as_f32().unwrap().iter().copied().collect()
        };
        let expected: Vec<f32> = run(Runtime::OnnxRuntime);
        let others = [
            ("tract", run(Runtime::Tract)),
            ("RTen", in_rten(model.clone(), &DIMS, &x)),
        ];
        for (name, found) in others {
            let sqnr = sqnr(&expected, &found);
            assert!(sqnr >= 30.0, "{name} at {bits}: {sqnr:.1} dB");
        }
    }
}
