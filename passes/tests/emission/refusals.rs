//! Plans that do not fit: each is refused with the place and the mend.

use vitq_passes::plan::{Activation, Decision, LinearPlan, LowRank, NormPlan, Plan, Segment};
use vitq_passes::quantise::{ApplyError, apply};
use vitq_passes::target::Target;
use vitq_passes::transform::{LinearParams, repq, scale};

use crate::linear::{in_blocks, linear, uniform, weight};
use crate::support::{parse, plan, structure, zeros};

fn refused(plan: &Plan) -> ApplyError {
    let graph = parse(&format!(
        r#"<ir_version: 8, opset_import: ["" : 17]>
        net (float[N,5,4] x, float[4,4] m) => (float[N,5,4] y, float[N,5,4] z, float[N,5,4] n)
        <{}, float[4] g = {{1,1,1,1}}>
        {{ [fc] y = MatMul(x, w) [product] z = MatMul(x, m) [norm] n = LayerNormalization(x, g) }}"#,
        zeros("float", "w", &[4, 4])
    ));
    apply(
        &mut graph.clone(),
        &structure(&graph),
        plan,
        &Target::default(),
    )
    .expect_err("a refusal")
}

fn says(plan: &Plan, parts: &[&str]) {
    let message = refused(plan).to_string();
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in: {message}");
    }
}

fn good() -> LinearPlan {
    linear(uniform(8, 128), weight(8, 4, 4))
}

fn fc(linear: LinearPlan) -> Plan {
    plan(vec![("fc", Decision::Linear(linear))])
}

fn product(left: Activation) -> Plan {
    plan(vec![(
        "product",
        Decision::Product {
            left,
            right: uniform(8, 0),
        },
    )])
}

#[test]
fn plans_of_another_model_or_program() {
    says(
        &plan(vec![("fc7", Decision::Linear(good()))]),
        &["fc7", "make the plan again"],
    );
    says(
        &Plan {
            version: 99,
            ..fc(good())
        },
        &["99", "make the plan again"],
    );
    let norm = |name: &str, channels| NormPlan {
        norm: name.into(),
        gamma: vec![1.0; channels],
        beta: vec![0.0; channels],
    };
    says(
        &Plan {
            norms: vec![norm("norm7", 4)],
            ..fc(good())
        },
        &["norm7", "make the plan again"],
    );
    says(
        &Plan {
            norms: vec![norm("norm", 3)],
            ..fc(good())
        },
        &["norm", "3 values", "4"],
    );
    says(
        &plan(vec![(
            "fc",
            Decision::Product {
                left: uniform(8, 0),
                right: uniform(8, 0),
            },
        )]),
        &["fc", "not"],
    );
    says(
        &plan(vec![("product", Decision::Linear(good()))]),
        &["product", "no weight"],
    );
}

#[test]
fn numbers_of_another_shape() {
    says(
        &fc(linear(uniform(8, 128), weight(8, 5, 4))),
        &["fc", "weight has 20", "16"],
    );
    says(
        &fc(LinearPlan {
            bias: vec![0.0; 3],
            ..good()
        }),
        &["fc", "bias has 3", "4"],
    );
    says(
        &fc(LinearPlan {
            pre_scale: Some(vec![1.0; 3]),
            ..good()
        }),
        &["fc/input", "pre-scale has 3"],
    );
    let low_rank = Some(LowRank {
        rank: 2,
        bits: 32,
        down: vec![0.0; 8],
        up: vec![0.0; 7],
    });
    says(
        &fc(LinearPlan { low_rank, ..good() }),
        &["fc", "factor B", "7"],
    );
}

#[test]
fn blocks_that_no_weight_has() {
    let blocked = |change: &dyn Fn(&mut LinearPlan)| {
        let mut linear = linear(Activation::Float, in_blocks(weight(4, 4, 4), 2));
        change(&mut linear);
        fc(linear)
    };
    for block in [0, 5, usize::MAX] {
        let plan = blocked(&|it| it.weight.block = Some(block));
        says(&plan, &["fc", &format!("blocks have {block} inputs")]);
    }
    let plan = blocked(&|it| it.weight.block = Some(4));
    says(&plan, &["fc", "scale has 8", "4"]);
    let plan = blocked(&|it| it.weight.scale.truncate(4));
    says(&plan, &["fc", "scale has 4", "8"]);
    let plan = blocked(&|it| it.weight.zero_point = vec![0; 4]);
    says(&plan, &["fc", "zero point has 4", "8"]);
    let plan = blocked(&|it| it.weight.scale[5] = -1.0);
    says(&plan, &["fc", "channel 2", "positive"]);
    let plan = blocked(&|it| it.weight.table = Some((-8..8).collect()));
    says(&plan, &["fc", "codebook", "evenly spaced"]);
    let plan = blocked(&|it| it.weight.codes[3] = 9);
    says(&plan, &["fc/weight", "9"]);
    let plan = blocked(&|it| it.activation = uniform(8, 128));
    says(&plan, &["fc", "float activations alone"]);
}

#[test]
fn codebooks_that_no_codes_can_stand_for() {
    let segment = |step, from, to| Segment { step, from, to };
    for (segments, problem) in [
        (vec![], "follow each other"),
        (vec![segment(1, -8, -1)], "below zero"),
        (vec![segment(0, 0, 8)], "multiples of their steps"),
        (vec![segment(3, 0, 8)], "multiples of their steps"),
        (vec![segment(2, 8, 0)], "follow each other"),
        (
            vec![segment(1, 0, 8), segment(2, 10, 12)],
            "follow each other",
        ),
        (
            vec![segment(1, 0, 100), segment(2, 100, 200)],
            "too far for uint8",
        ),
        (vec![segment(1, -300, 8)], "too far for uint8"),
    ] {
        let activation = Activation::Codebook {
            scale: 1.0,
            segments,
        };
        says(
            &fc(LinearPlan {
                activation,
                ..good()
            }),
            &["fc/input", "codebook", problem],
        );
    }
}

#[test]
fn numbers_that_no_quantiser_has() {
    for scale in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-42] {
        let activation = Activation::Uniform {
            bits: 8,
            scale,
            zero_point: 0,
        };
        says(&product(activation.clone()), &["product/left", "scale is"]);
        let linear = LinearPlan {
            activation,
            ..good()
        };
        says(&fc(linear), &["fc/input", "scale is"]);
    }
    for (bits, zero_point) in [(9, 0), (1, 0), (4, 16)] {
        says(
            &product(Activation::Uniform {
                bits,
                scale: 1.0,
                zero_point,
            }),
            &["product/left", "bits"],
        );
    }
    let mut dead = good();
    dead.weight.scale[2] = 0.0;
    says(&fc(dead), &["fc", "channel 2", "positive"]);
    let mut unknown = good();
    unknown.weight.bits = 2;
    unknown.weight.table = Some(vec![0, 1, 2, 3]);
    // A table needs a model of operator set 21; the numbers are looked at first only where that is given.
    refused(&fc(unknown));
    says(
        &fc(LinearPlan {
            bias: vec![f32::NAN; 4],
            ..good()
        }),
        &["fc", "bias", "NaN"],
    );
}

#[test]
fn log_codes_elsewhere() {
    let log = |bits, shift| Activation::Log {
        bits,
        step: 0.5,
        shift,
    };
    says(&product(log(4, 0)), &["product/left", "Softmax", "uniform"]);
    says(&product(log(9, 0)), &["9 bits"]);
    says(&product(log(8, 200)), &["shifted by 200"]);
    says(
        &fc(LinearPlan {
            activation: log(4, 0),
            ..good()
        }),
        &["fc", "uniform or codebook"],
    );
}

#[test]
fn folds_that_cannot_be_undone() {
    let mut linears = [LinearParams {
        weight: vec![1.0, 2.0],
        bias: vec![0.0],
    }];
    for scales in [[0.0, 1.0], [f64::NAN, 1.0], [-1.0, 1.0]] {
        let error = repq::fold(
            &mut [1.0, 1.0],
            &mut [0.0, 0.0],
            &mut linears,
            &scales,
            &[0, 0],
            1.0,
            0,
        );
        assert!(
            error
                .expect_err("a refusal")
                .to_string()
                .contains("channel 0")
        );
    }
    assert!(
        repq::fold(
            &mut [1.0],
            &mut [0.0, 0.0],
            &mut linears,
            &[1.0; 2],
            &[0, 0],
            1.0,
            0
        )
        .is_err()
    );
    assert!(
        repq::fold(
            &mut [1.0; 2],
            &mut [0.0, 0.0],
            &mut linears,
            &[1.0; 2],
            &[0],
            1.0,
            0
        )
        .is_err()
    );
    assert!(scale::divide_columns(&mut [1.0, 2.0, 3.0], &[1.0, 2.0]).is_err());
    assert!(scale::divide_columns(&mut [1.0, 2.0], &[1.0, 0.0]).is_err());
    assert_eq!(
        linears[0].weight,
        [1.0, 2.0],
        "a refused fold changed the weight"
    );
}
