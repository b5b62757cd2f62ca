//! Folds of the float graph: the function stays.

use proptest::prelude::*;
use vitq_passes::ir::Graph;
use vitq_passes::plan::{Decision, NormPlan, Plan};
use vitq_passes::quantise::apply;
use vitq_passes::structure::recognise;
use vitq_passes::target::Target;
use vitq_passes::transform::{LinearParams, repq, scale};

use crate::support::{parse, plan, structure, write_case};

const CHANNELS: usize = 6;
const ROWS: usize = 4;

/// A normalised token, the norm's affine part, two Linears, and per-channel quantisers of the norm's output.
#[derive(Clone, Debug)]
struct Case {
    token: Vec<f64>,
    gamma: Vec<f64>,
    beta: Vec<f64>,
    linears: Vec<LinearParams>,
    scales: Vec<f64>,
    zeros: Vec<i32>,
}

fn cases() -> impl Strategy<Value = Case> {
    let channel = || prop::collection::vec(-3.0..3.0_f64, CHANNELS);
    let weight = prop::collection::vec(-1.0..1.0_f64, ROWS * CHANNELS);
    let bias = prop::collection::vec(-1.0..1.0_f64, ROWS);
    let linear = (weight, bias).prop_map(|(weight, bias)| LinearParams { weight, bias });
    let scales = prop::collection::vec(0.001..0.2_f64, CHANNELS);
    let zeros = prop::collection::vec(0..256_i32, CHANNELS);
    (
        channel(),
        channel(),
        channel(),
        prop::collection::vec(linear, 2),
        scales,
        zeros,
    )
        .prop_map(|(token, gamma, beta, linears, scales, zeros)| Case {
            token,
            gamma,
            beta,
            linears,
            scales,
            zeros,
        })
}

impl Case {
    /// The norm's output for the token.
    fn normed(&self) -> Vec<f64> {
        self.token
            .iter()
            .zip(&self.gamma)
            .zip(&self.beta)
            .map(|((t, g), b)| t * g + b)
            .collect()
    }

    /// What the Linears give.
    fn outputs(&self) -> Vec<f64> {
        let x = self.normed();
        let row = |(w, b): (&[f64], &f64)| w.iter().zip(&x).map(|(w, x)| w * x).sum::<f64>() + b;
        self.linears
            .iter()
            .flat_map(|l| {
                l.weight
                    .chunks(CHANNELS)
                    .zip(&l.bias)
                    .map(row)
                    .collect::<Vec<_>>()
            })
            .collect()
    }

    /// RepQ-ViT's fold, with the means of scales and zero points.
    fn folded(&self) -> (Case, f64, i32) {
        let mut new = self.clone();
        let s = self.scales.iter().sum::<f64>() / CHANNELS as f64;
        let z = (f64::from(self.zeros.iter().sum::<i32>()) / CHANNELS as f64).round() as i32;
        repq::fold(
            &mut new.gamma,
            &mut new.beta,
            &mut new.linears,
            &self.scales,
            &self.zeros,
            s,
            z,
        )
        .expect("a fold");
        (new, s, z)
    }
}

proptest! {
    #[test]
    fn repq_keeps_the_function(case in cases()) {
        let (new, _, _) = case.folded();
        for (before, after) in case.outputs().iter().zip(new.outputs()) {
            // The shift s·r2 reaches 50: rounding is relative to that.
            prop_assert!((before - after).abs() <= 1e-12 * 1e3, "{before} {after}");
        }
    }

    #[test]
    fn repq_keeps_the_codes(case in cases()) {
        let (new, s, z) = case.folded();
        let channels = case.normed().into_iter().zip(new.normed()).zip(case.scales.iter().zip(&case.zeros));
        for ((x, folded), (scale, zero)) in channels {
            let (before, after) = (x / scale + f64::from(*zero), folded / s + f64::from(z));
            prop_assert!((before - after).abs() < 1e-9, "{before} {after}");
        }
    }

    #[test]
    fn a_multiplier_is_undone_by_the_weight(case in cases()) {
        let mut weight = case.linears[0].weight.clone();
        scale::divide_columns(&mut weight, &case.scales).expect("positive multipliers");
        for (row, old) in weight.chunks(CHANNELS).zip(case.linears[0].weight.chunks(CHANNELS)) {
            let inputs = || case.token.iter().zip(&case.scales);
            let after: f64 = row.iter().zip(inputs()).map(|(w, (x, m))| w * (x * m)).sum();
            let before: f64 = old.iter().zip(inputs()).map(|(w, (x, _))| w * x).sum();
            prop_assert!((before - after).abs() < 1e-12, "{before} {after}");
        }
    }
}

/// Two Linears read one norm, one of them without bias; a third shares its weight with the first but reads the network's input.
fn network() -> Graph {
    let values = |n: usize, by: f32| {
        (0..n)
            .map(|i| format!("{:.3}", ((i * 7 % 11) as f32 - 5.0) * by))
            .collect::<Vec<_>>()
            .join(",")
    };
    let size = CHANNELS * ROWS;
    parse(&format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,5,6] x) => (float[N,5,4] y, float[N,5,4] z, float[N,5,4] o)
        <float[6] g = {{{}}}, float[6] e = {{{}}}, float[6,4] w = {{{}}}, float[6,4] v = {{{}}}, float[4] b = {{{}}}>
        {{
            [norm] n = LayerNormalization(x, g, e)
            [fc1] t = MatMul(n, w) y = Add(t, b)
            [fc2] z = MatMul(n, v)
            [other] o = MatMul(x, w)
        }}"#,
        values(CHANNELS, 0.3),
        values(CHANNELS, 0.2),
        values(size, 0.1),
        values(size, -0.07),
        values(ROWS, 0.5),
    ))
}

fn floats(graph: &Graph, name: &str) -> Vec<f32> {
    graph
        .tensor(graph.find(name).expect("a constant"))
        .expect("a constant")
        .to_f32()
        .expect("floats")
}

fn transposed(values: &[f32], columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|c| values.iter().skip(c).step_by(columns).copied())
        .collect()
}

#[test]
fn a_folded_graph_computes_what_it_did() {
    let graph = network();
    let wide = |values: Vec<f32>| values.into_iter().map(f64::from).collect::<Vec<_>>();
    let (mut gamma, mut beta) = (wide(floats(&graph, "g")), wide(floats(&graph, "e")));
    let mut linears = [
        LinearParams::from_f32(
            &transposed(&floats(&graph, "w"), ROWS),
            &floats(&graph, "b"),
        ),
        LinearParams::from_f32(&transposed(&floats(&graph, "v"), ROWS), &[0.0; ROWS]),
    ];
    let (scales, zeros) = (
        [0.01, 0.03, 0.02, 0.05, 0.004, 0.02],
        [100, 140, 128, 90, 128, 255],
    );
    repq::fold(
        &mut gamma,
        &mut beta,
        &mut linears,
        &scales,
        &zeros,
        0.02,
        140,
    )
    .expect("a fold");

    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect::<Vec<_>>();
    let float = |l: &LinearParams| Decision::Float {
        reason: "a test".into(),
        replace: Some(l.to_f32()),
    };
    let norm = NormPlan {
        norm: "norm".into(),
        gamma: narrow(&gamma),
        beta: narrow(&beta),
    };
    let plan = Plan {
        norms: vec![norm],
        ..plan(vec![
            ("fc1", float(&linears[0])),
            ("fc2", float(&linears[1])),
        ])
    };

    let mut folded = graph.clone();
    apply(&mut folded, &structure(&graph), &plan, &Target::default())
        .unwrap_or_else(|e| panic!("{e}"));
    assert_ne!(floats(&folded, "g"), floats(&graph, "g"));
    assert_eq!(
        floats(&folded, "w"),
        floats(&graph, "w"),
        "the other reader's weight was changed"
    );
    write_case(&graph, &folded, &plan).judge("same", &[]);
}

#[test]
fn a_split_norm_stays_for_its_other_readers() {
    let graph = parse(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,5,2] x) => (float[N,5,2] y)
        <float[2] g = {1, 3}, float[2] e = {0.5, -1}, float[2,2] w = {1, 2, 3, 4}, float[2] b = {1, 2}>
        {
            [norm] n = LayerNormalization(x, g, e)
            [fc1] t = MatMul(n, w) s = Add(t, b)
            y = Add(s, n)
        }"#,
    );
    // x' = (x + shift) / r with r = {2, 4}, shift = {1, 0}
    let norm = NormPlan {
        norm: "norm".into(),
        gamma: vec![0.5, 0.75],
        beta: vec![0.75, -0.25],
    };
    let replace = Some((vec![2.0, 12.0, 4.0, 16.0], vec![0.0, 0.0]));
    let reason = "a test".into();
    let plan = Plan {
        norms: vec![norm],
        ..plan(vec![("fc1", Decision::Float { reason, replace })])
    };
    let mut folded = graph.clone();
    apply(&mut folded, &recognise(&graph), &plan, &Target::default())
        .unwrap_or_else(|e| panic!("{e}"));
    let norms = folded.ops().filter(|(_, op)| op.is("LayerNormalization"));
    assert_eq!(norms.count(), 2);
    assert_eq!(floats(&folded, "g"), [1.0, 3.0]);
    write_case(&graph, &folded, &plan).judge("same", &[]);
}
