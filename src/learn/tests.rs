//! The network's values are judged by ONNX Runtime (tract where it is not built in), gradients by differences.

mod device;
mod operators;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use candle_core::{Device, Tensor, Var};
use ndarray::{ArrayD, IxDyn};
use prost::Message;
use vitq_passes::plan::{Activation, Decision, LinearPlan, Plan, Weight};
use vitq_passes::structure::Site;

use super::backend::Backend;
use super::draw::Random;
use super::kernels::{FakeQuantise, Gelu, LayerNorm, Linear, Softmax};
use super::network::{Network, Sites, Value, Values};
use super::pair::Pair;
use super::sites::Products;
use super::state::{Leaves, State, Step};
use super::views::{View, crop};
use super::*;
use crate::batches::Batches;
use crate::calibrate::{Codes, Feeds, Parameters, Part, Progress, Ranks, Scope, Settings};
use crate::contract::{Contract, Source};
use crate::input::{Array, Dataset, InputError, Preset};
use crate::model::FloatModel;
use crate::pipeline::{Learning, NoProgress, Quantizer};
use crate::run::{RunOptions, Runtime, load};

/// Who judges values.
const JUDGE: Runtime = if cfg!(feature = "onnxruntime") {
    Runtime::OnnxRuntime
} else {
    Runtime::Tract
};

fn fixture(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures")
        .join(file)
}

/// Numbers that look random and are the same everywhere.
fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut next = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

fn tensor(dims: &[usize], seed: u64) -> Var {
    Var::from_vec(noise(dims.iter().product(), seed), dims, &Device::Cpu).unwrap()
}

/// Compares the gradient of `Σ w·f(x)` with central differences in every element of `x`.
fn check_gradient(x: &Var, f: impl Fn(&Tensor) -> candle_core::Result<Tensor>) {
    let y = f(x).unwrap();
    let weight = Tensor::from_vec(noise(y.elem_count(), 99), y.shape(), &Device::Cpu).unwrap();
    let objective = |x: &Tensor| (f(x).unwrap() * &weight).unwrap().sum_all().unwrap();
    let store = objective(x).backward().unwrap();
    let gradient = store
        .get(x)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    let values = x.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let step = 1e-2;
    for i in 0..values.len() {
        let at = |delta: f32| {
            let mut moved = values.clone();
            moved[i] += delta;
            let moved = Tensor::from_vec(moved, x.shape(), &Device::Cpu).unwrap();
            objective(&moved).to_scalar::<f32>().unwrap()
        };
        let slope = (at(step) - at(-step)) / (2.0 * step);
        let error = (slope - gradient[i]).abs();
        assert!(
            error < 2e-3 * (1.0 + slope.abs()),
            "element {i}: {} is not {slope}",
            gradient[i]
        );
    }
}

#[test]
fn gradients_are_slopes() {
    check_gradient(&tensor(&[2, 3, 5], 1), |x| x.apply_op1(Softmax));
    check_gradient(&tensor(&[4, 6], 2), |x| (x * 3.0)?.apply_op1(Gelu));
    for centred in [true, false] {
        let (x, scale) = (tensor(&[3, 8], 3), tensor(&[8], 4));
        let shift = tensor(&[if centred { 8 } else { 0 }], 5);
        let norm = || LayerNorm {
            epsilon: 1e-5,
            centred,
        };
        check_gradient(&x, |x| x.apply_op3(&scale, &shift, norm()));
        check_gradient(&scale, |scale| x.apply_op3(scale, &shift, norm()));
        check_gradient(&shift, |shift| x.apply_op3(&scale, shift, norm()));
    }
    let (x, w, b) = (tensor(&[5, 4], 6), tensor(&[3, 4], 7), tensor(&[3], 8));
    check_gradient(&x, |x| x.apply_op3(&w, &b, Linear::default()));
    check_gradient(&w, |w| x.apply_op3(w, &b, Linear::default()));
    check_gradient(&b, |b| x.apply_op3(&w, b, Linear::default()));
}

/// Inputs of ones to a few hundred: noise, with the extents that the file leaves open set to small ones.
fn inputs(model: &FloatModel) -> Vec<(String, Array)> {
    let feed = |(i, input): (usize, &crate::input::ModelInput)| {
        let dims: Vec<usize> = input
            .dims
            .iter()
            .enumerate()
            .map(|(axis, d)| d.unwrap_or(if axis == 0 { 1 } else { 64 }))
            .collect();
        let values = noise(dims.iter().product(), 17 + i as u64);
        let array = ArrayD::from_shape_vec(IxDyn(&dims), values).unwrap();
        (input.name.clone(), array.into())
    };
    model.inputs.iter().enumerate().map(feed).collect()
}

/// Outputs of the differentiable network, by name.
fn forward(
    model: &FloatModel,
    inputs: &[(String, Array)],
    backend: Backend,
) -> Result<Vec<(String, Vec<f32>)>, LearnError> {
    let network = Network::new(&model.graph, &model.structure, inputs, &backend)?;
    let mut values: Values = super::pair::inputs(&network, inputs)?;
    for value in values.values_mut() {
        if let Value::Float(tensor) = value {
            *tensor = tensor.to_device(&backend.device).unwrap();
        }
    }
    let outputs = run(model, &network, values, &backend)?;
    let outputs = outputs.into_iter().map(|(name, tensor)| {
        let values = tensor.flatten_all().unwrap().to_vec1().unwrap();
        (name, values)
    });
    Ok(outputs.collect())
}

/// What the float network makes of its inputs: the outputs that are float.
fn run(
    model: &FloatModel,
    network: &Network,
    mut values: Values,
    backend: &Backend,
) -> Result<Vec<(String, Tensor)>, LearnError> {
    let sites = model.structure.sites.iter();
    let states = sites.map(|site| {
        let parameters = Parameters::load(&model.graph, site).unwrap();
        let parameters = parameters.map(|p| (p.weight, p.bias));
        let rates = Options::default().rates;
        State::new(None, parameters, &rates, &backend.device).unwrap()
    });
    let states: Vec<State> = states.collect();
    let leaves = states.iter().map(|s| s.leaves(false, backend).unwrap());
    let leaves: Vec<_> = leaves.collect();
    let products = Products {
        structure: &model.structure,
        states: &states,
        leaves: &leaves,
        kernels: backend.kernels,
    };
    network.run(&network.whole("all"), &mut values, &products)?;
    let outputs = network.outputs.iter();
    Ok(outputs
        .filter_map(|(name, outlet)| match values.get(outlet) {
            Some(Value::Float(tensor)) => Some((name.clone(), tensor.clone())),
            _ => None,
        })
        .collect())
}

/// Members of fixtures/families whose networks hold an operator that is not differentiated, with the words for it.
const DECLINED: &[(&str, &str)] = &[
    ("hf_bert", "operand 1 is not integer"),
    ("hf_bert_fused", "Cast from float to integers"),
    ("hf_clip", "operand 1 is not integer"),
    ("hf_rt_detr", "TopK"),
];

/// Members of fixtures/families with sites, by name, and the words of [`DECLINED`] for them.
fn families() -> Vec<(String, FloatModel, Option<&'static str>)> {
    let files = std::fs::read_dir(fixture("families")).unwrap();
    let mut files: Vec<_> = files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .collect();
    files.sort();
    let members = files.into_iter().filter_map(|path| {
        let name = path.file_stem()?.to_string_lossy().into_owned();
        let model = FloatModel::open(&path).ok()?;
        let words = DECLINED.iter().find(|(it, _)| *it == name);
        (!model.structure.sites.is_empty()).then_some((name, model, words.map(|(_, words)| *words)))
    });
    members.collect()
}

#[test]
fn values_of_every_family_are_onnx_runtimes() {
    let mut wrong = Vec::new();
    let mut judged = 0;
    for (name, model, expected) in families() {
        let inputs = inputs(&model);
        match (forward(&model, &inputs, Backend::cpu()), expected) {
            (Err(e), Some(words)) if e.to_string().contains(words) => {}
            (Err(e), _) => wrong.push(format!("{name}: {e}")),
            (Ok(_), Some(_)) => wrong.push(format!("{name}: is not declined any more")),
            (Ok(outputs), None) => {
                judged += 1;
                let dims: Vec<_> = inputs
                    .iter()
                    .map(|(n, a)| (n.clone(), a.dims().to_vec()))
                    .collect();
                let bytes = model.message.encode_to_vec();
                let executor = load(JUDGE, &bytes, &dims, &[], &RunOptions::default()).unwrap();
                let values = executor.run(&inputs).unwrap();
                for (name_out, values) in executor.outputs().iter().zip(values) {
                    let Some(theirs) = values.as_f32() else {
                        continue;
                    };
                    let ours = outputs.iter().find(|(n, _)| n == name_out);
                    let most = theirs.iter().fold(0.0f32, |m, v| m.max(v.abs()));
                    let apart = ours.map_or(f32::INFINITY, |(_, ours)| {
                        ours.iter()
                            .zip(theirs.iter())
                            .fold(0.0f32, |m, (a, b)| m.max((a - b).abs()))
                    });
                    if apart.is_nan() || apart > 1e-4 * most {
                        wrong.push(format!(
                            "{name}: {name_out} is {apart} apart, its values reach {most}"
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(judged >= 75, "only {judged}");
}

/// How fast a sum over the outputs of a network grows along its gradient by the inputs: the gradient's size, and what differences over
/// steps of several sizes say. A small one shows the rounding of the sums, a large one passes kinks of Relu and MaxPool.
fn slopes(model: &FloatModel) -> (f64, [f64; 4]) {
    let backend = Backend::cpu();
    let inputs = inputs(model);
    let network = Network::new(&model.graph, &model.structure, &inputs, &backend).unwrap();
    let at = super::pair::inputs(&network, &inputs).unwrap();
    let at = at.into_iter().map(|(outlet, value)| match value {
        Value::Float(x) => (outlet, Var::from_tensor(&x).unwrap()),
        Value::Integers(_) => panic!("an input of integers"),
    });
    let at: Vec<_> = at.collect();
    let sum = |values: Values| {
        let outputs = run(model, &network, values, &backend).unwrap();
        let parts = outputs.iter().enumerate().map(|(i, (_, y))| {
            let weights = tensor(y.dims(), 90 + i as u64).as_tensor().clone();
            (y * weights)?.mean_all()
        });
        parts.reduce(|sum, part| sum? + part?).unwrap().unwrap()
    };
    let here = at
        .iter()
        .map(|(outlet, x)| (*outlet, Value::Float(x.as_tensor().clone())));
    let store = sum(here.collect()).backward().unwrap();
    let gradients = at.iter().map(|(_, x)| match store.get(x) {
        Some(gradient) => gradient.clone(),
        None => x.zeros_like().unwrap(),
    });
    let gradients: Vec<Tensor> = gradients.collect();
    let squares = gradients.iter().map(|it| {
        let square = it.sqr().unwrap().sum_all().unwrap();
        f64::from(square.to_scalar::<f32>().unwrap())
    });
    let size = squares.sum::<f64>().sqrt();
    let value = |far: f64| {
        let there = at.iter().zip(&gradients).map(|((outlet, x), gradient)| {
            let moved = (x.as_tensor() + (gradient * (far / size)).unwrap()).unwrap();
            (*outlet, Value::Float(moved))
        });
        f64::from(sum(there.collect()).to_scalar::<f32>().unwrap())
    };
    let slope = |step: f64| (value(step) - value(-step)) / (2.0 * step);
    (size, [1e-2, 3e-3, 1e-3, 3e-4].map(slope))
}

#[test]
fn gradients_of_every_family_are_slopes() {
    let mut wrong = Vec::new();
    let mut judged = 0;
    for (name, model, declined) in families() {
        if declined.is_some() {
            continue;
        }
        let (gradient, slopes) = slopes(&model);
        judged += 1;
        let near = |slope: &f64| (gradient - slope).abs() < 0.02 * gradient;
        if !slopes.iter().any(near) {
            wrong.push(format!("{name}: {gradient} for {slopes:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(judged >= 70, "only {judged}");
}

fn digits() -> (FloatModel, Dataset) {
    let model = FloatModel::open(&fixture("digits/model.onnx")).unwrap();
    let images = digit_images(&model, "calib");
    (model, images)
}

fn digit_images(model: &FloatModel, folder: &str) -> Dataset {
    let contract = Contract {
        preset: Some(Preset::Inception),
        resize: Some(32),
        ..Contract::default()
    };
    let source = Source {
        path: fixture("digits/images").join(folder),
        classes: None,
        contract,
    };
    source.open(model).unwrap()
}

fn quantizer(bits: u32) -> Quantizer {
    Quantizer::new().settings(Settings {
        weight_bits: bits,
        activation_bits: bits,
        edge_bits: Some(8),
        scope: Scope::All,
        ..Settings::default()
    })
}

/// A few steps on 64 samples, at a pace that shows.
fn fast(steps: usize, rates: Rates) -> Learning {
    Learning {
        options: Options {
            steps,
            rates: rates.times(4.0),
            ..Options::default()
        },
        samples: Some(64),
    }
}

#[test]
fn no_step_changes_nothing() {
    let (model, images) = digits();
    let plan = quantizer(4)
        .plan(&model, &images, &NoProgress)
        .unwrap()
        .plan;
    let options = Options {
        steps: 0,
        ..Options::default()
    };
    let learned = quantizer(4)
        .learning(Learning {
            options,
            ..Learning::default()
        })
        .plan(&model, &images, &NoProgress)
        .unwrap();
    assert_eq!(plan, learned.plan);
    assert!(!learned.learned.unwrap().kept);
}

/// The quantised network as the learner sees it is the one that is emitted, so what it gains arrives there.
#[test]
fn learning_lowers_the_error_of_the_emitted_model() {
    let (model, images) = digits();
    let learned = quantizer(2).learning(fast(60, Options::default().rates));
    let test = digit_images(&model, "test");
    let error = |quantizer: &Quantizer| {
        let (outcome, verification) = quantizer
            .try_out(&model, &images, Some(&test), &NoProgress)
            .unwrap();
        (outcome, verification.outputs[0].sqnr_db.unwrap())
    };
    let (_, before) = error(&quantizer(2));
    let (outcome, after) = error(&learned);
    assert!(
        after > before + 1.0,
        "{before} dB before, {after} dB after learning"
    );
    let course = outcome.learned.unwrap();
    assert!(course.kept);
    assert!(course.checks.last().unwrap().held_out < course.checks[0].held_out);
    assert_eq!(course.csv().lines().count(), course.checks.len() + 1);
}

#[test]
fn frozen_weights_keep_their_codes_while_branches_learn() {
    let (model, images) = digits();
    let learning = fast(30, Options::default().rates.with_frozen_weights());
    let plan = |it: Quantizer| it.plan(&model, &images, &NoProgress).unwrap();
    let (closed, learned) = (plan(aiqvit(3)), plan(aiqvit(3).learning(learning)));
    assert!(learned.learned.unwrap().kept);
    let linears = |plan: &Plan| {
        let linears = plan.sites.iter().filter_map(|it| match &it.decision {
            Decision::Linear(linear) => Some(linear.clone()),
            _ => None,
        });
        linears.collect::<Vec<_>>()
    };
    let pairs: Vec<_> = linears(&closed.plan)
        .into_iter()
        .zip(linears(&learned.plan))
        .collect();
    assert!(pairs.len() >= 18, "{}", pairs.len());
    let weights = pairs.iter().all(|(a, b)| a.weight == b.weight);
    let branches = pairs.iter().any(|(a, b)| a.low_rank != b.low_rank);
    assert!(weights && branches);
}

#[test]
fn the_same_seed_gives_the_same_plan() {
    let (model, images) = digits();
    let feeds = Batches::new(&images, 0..12, 1);
    let closed = quantizer(3)
        .samples(12)
        .plan(&model, &images, &NoProgress)
        .unwrap()
        .plan;
    let options = Options {
        steps: 5,
        batch: 6,
        ..Options::default()
    };
    let learn = |threads: usize| {
        let mut plan = closed.clone();
        let written = model.written(plan.rotation).unwrap();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let form = (written.graph(), written.structure());
        let course = pool
            .install(|| {
                distil(
                    form,
                    &mut plan,
                    (&feeds as &dyn Feeds, 0),
                    (&options, None),
                    &NoProgress,
                )
            })
            .unwrap();
        (plan, course)
    };
    let learned = learn(1);
    assert!(learned.1.checks.len() > 1);
    assert_eq!(learned, learn(2));
}

/// Every site of the emitted model gives for its input what the learner's site gives for it. (From end to end the two part where a
/// value lies between two codes, as rounding in float decides which.)
#[test]
fn every_emitted_site_gives_what_the_learner_measured() {
    for bits in [8, 4, 3, 2] {
        let options = Options {
            steps: 4,
            ..Options::default()
        };
        let learned = quantizer(bits).samples(8).learning(Learning {
            options,
            samples: Some(8),
        });
        judge_sites(&learned, &format!("w{bits}"));
    }
    for bits in [4, 3] {
        let options = BlockOptions {
            steps: 12,
            ..BlockOptions::aiqvit()
        };
        let learned = aiqvit(bits).samples(8).reconstruction(options);
        judge_sites(&learned, &format!("aiqvit w{bits}"));
    }
}

/// What AIQViT begins with: branches beside the weights, attention weights in one interval.
fn aiqvit(bits: u32) -> Quantizer {
    Quantizer::new().settings(Settings {
        weight_bits: bits,
        activation_bits: bits,
        edge_bits: Some(8),
        scope: Scope::All,
        ranks: Ranks::All(4),
        // Only these leave the interval its place.
        focusing: true,
        codes: Codes::Uniform,
        without: vec![Part::Logarithm],
        ..Settings::default()
    })
}

/// Compares site by site, on the digits model.
fn judge_sites(learned: &Quantizer, name: &str) {
    let (model, images) = digits();
    let feeds = Batches::new(&images, 0..8, 1);
    let feed = feeds.feed(1).unwrap();
    let dims = vec![(feed[0].0.clone(), feed[0].1.dims().to_vec())];
    let plan = learned.plan(&model, &images, &NoProgress).unwrap().plan;
    let written = model.written(plan.rotation).unwrap();
    let (graph, structure) = (written.graph(), written.structure());
    let pair = Pair::new(
        (graph, structure),
        &plan,
        &feed,
        &Options::default().rates,
        Backend::cpu(),
    )
    .unwrap();
    let leaves = pair.quantised.leaves(false).unwrap();
    let products = Products {
        structure,
        states: &pair.quantised.states,
        leaves: &leaves,
        kernels: pair.backend.kernels,
    };
    let emitted = learned.apply(&model, &plan).unwrap();
    let nodes = emitted.graph.iter().flat_map(|graph| &graph.node);
    let there: BTreeSet<&str> = nodes
        .flat_map(|node| &node.output)
        .map(String::as_str)
        .collect();
    let names = |site: &Site| {
        let outlets = [Some(site.activation), site.second, Some(site.output)];
        let names: Vec<&str> = outlets.iter().flatten().map(|&it| graph.name(it)).collect();
        let known = |name: &&str| there.contains(name) || *name == feed[0].0;
        names.iter().all(known).then_some(names)
    };
    let taps: BTreeSet<String> = structure
        .sites
        .iter()
        .filter_map(names)
        .flatten()
        .filter(|name| there.contains(name) && *name != "logits")
        .map(str::to_owned)
        .collect();
    let taps: Vec<String> = taps.into_iter().collect();
    let executor = load(
        JUDGE,
        &emitted.encode_to_vec(),
        &dims,
        &taps,
        &RunOptions::default(),
    )
    .unwrap();
    let theirs = executor.run(&feed).unwrap();
    let value = |name: &&str| {
        let place = executor.outputs().iter().position(|it| it == name);
        let array = place.map_or(&feed[0].1, |place| &theirs[place]);
        let values: Vec<f32> = array.as_f32().unwrap().iter().copied().collect();
        Tensor::from_vec(values, array.dims(), &Device::Cpu).unwrap()
    };
    let mut judged = 0;
    for (index, site) in structure.sites.iter().enumerate() {
        let Some(names) = names(site) else { continue };
        let values: Vec<Tensor> = names.iter().map(value).collect();
        let (theirs, operands) = values.split_last().unwrap();
        let ours = products.evaluate(index, operands).unwrap();
        let sum = |x: Tensor| {
            x.sqr()
                .unwrap()
                .sum_all()
                .unwrap()
                .to_scalar::<f32>()
                .unwrap()
        };
        let error = sum((&ours - theirs).unwrap()).max(1e-20);
        let db = 10.0 * (sum(theirs.clone()) / error).log10();
        assert!(db >= 60.0, "{name} {} {db:.1} dB", site.path);
        judged += 1;
    }
    assert!(judged >= 24, "only {judged} of {}", structure.sites.len());
}

#[test]
fn blocks_that_take_no_step_leave_the_closed_form_as_it_is() {
    let (model, images) = digits();
    let no_step = |options| BlockOptions {
        steps: 0,
        ..options
    };
    for (closed, options) in [
        (quantizer(3), BlockOptions::default()),
        (aiqvit(3), BlockOptions::aiqvit()),
    ] {
        let closed = closed.samples(8);
        let plan = |it: &Quantizer| it.plan(&model, &images, &NoProgress).unwrap();
        let learned = plan(&closed.clone().reconstruction(no_step(options)));
        assert_eq!(plan(&closed).plan, learned.plan);
        let report = learned.reconstructed.unwrap();
        assert!(!report.kept && report.blocks.iter().all(|it| !it.kept));
        assert!(report.blocks.len() >= 4, "{report}");
    }
}

/// What each block gains arrives in the emitted model, on images that nothing learned from.
#[test]
fn blocks_that_learn_lower_the_error_of_the_emitted_model() {
    let (model, images) = digits();
    let test = digit_images(&model, "test");
    let db = |quantizer: &Quantizer| {
        let tried = quantizer.try_out(&model, &images, Some(&test), &NoProgress);
        let (outcome, verification) = tried.unwrap();
        (outcome, verification.outputs[0].sqnr_db.unwrap())
    };
    for (closed, options) in [
        (quantizer(2), BlockOptions::default()),
        (aiqvit(2), BlockOptions::aiqvit()),
    ] {
        let (unlearned, before) = db(&closed);
        let options = BlockOptions {
            steps: 60,
            ..options
        };
        let (outcome, after) = db(&closed.reconstruction(options));
        assert!(after > before + 0.5, "{before} dB before, {after} dB after");
        let report = outcome.reconstructed.unwrap();
        assert!(report.kept && report.after < report.before, "{report}");
        let codes = |plan: &Plan| -> Vec<Vec<i8>> {
            let sites = plan.sites.iter();
            let linear = sites.filter_map(|site| match &site.decision {
                Decision::Linear(linear) => Some(linear.weight.codes.clone()),
                _ => None,
            });
            linear.collect()
        };
        let frozen = codes(&unlearned.plan) == codes(&outcome.plan);
        assert_eq!(frozen, options.rates.weight == 0.0);
    }
}

#[test]
fn blocks_learn_alike_whatever_the_number_of_threads() {
    let (model, images) = digits();
    let options = BlockOptions {
        steps: 4,
        ..BlockOptions::aiqvit()
    };
    let learned = aiqvit(3).samples(8).reconstruction(options);
    let plan = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
        let pool = pool.build().unwrap();
        let outcome = pool.install(|| learned.plan(&model, &images, &NoProgress));
        let outcome = outcome.unwrap();
        (outcome.plan, outcome.reconstructed)
    };
    assert_eq!(plan(1), plan(2));
}

/// Values above an interval pull its end up, by the step and by where it begins; the slopes are those of the clamped values.
#[test]
fn an_interval_learns_from_what_it_leaves_out() {
    let x = Tensor::new(&[0.0f32, 0.05, 0.3, 0.9], &Device::Cpu).unwrap();
    let numbers = Var::from_vec(vec![0.1f32, 2.0], 2, &Device::Cpu).unwrap();
    let op = FakeQuantise {
        quantiser: crate::quant::interval(2, 0.1, 0),
    };
    let y = x.apply_op2(&numbers, op).unwrap();
    let levels = y.to_vec1::<f32>().unwrap();
    for (level, expected) in levels.iter().zip([0.2, 0.2, 0.3, 0.5]) {
        assert!((level - expected).abs() < 1e-6, "{levels:?}");
    }
    let weight = Tensor::new(&[1.0f32, 2.0, 4.0, 8.0], &Device::Cpu).unwrap();
    let store = (y * weight).unwrap().sum_all().unwrap().backward().unwrap();
    let slopes = store.get(&numbers).unwrap().to_vec1::<f32>().unwrap();
    // Two at the lower end (level 2), one at the upper end (level 5), one between them and on a level.
    assert!((slopes[0] - (2.0 + 4.0 + 40.0)).abs() < 1e-4, "{slopes:?}");
    assert!(
        (slopes[1] - 0.1 * (1.0 + 2.0 + 8.0)).abs() < 1e-5,
        "{slopes:?}"
    );
}

/// Feeds that end after some, as if the machine went down.
struct Failing<'a>(&'a Batches<'a>, AtomicUsize);

impl Feeds for Failing<'_> {
    fn len(&self) -> usize {
        self.0.len()
    }

    fn feed(&self, i: usize) -> Result<Vec<(String, Array)>, InputError> {
        let left = self
            .1
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        left.map_err(|_| InputError::Missing {
            path: "gone".into(),
        })?;
        self.0.feed(i)
    }
}

#[test]
fn what_was_interrupted_goes_on_to_the_same_end() {
    let (model, images) = digits();
    let feeds = Batches::new(&images, 0..16, 1);
    let quantizer = quantizer(3).samples(16);
    let closed = quantizer.plan(&model, &images, &NoProgress).unwrap().plan;
    let written = model.written(closed.rotation).unwrap();
    let form = (written.graph(), written.structure());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("so far.safetensors");
    let learn = |feeds: &dyn Feeds, options: &Options, resume| {
        let mut plan = closed.clone();
        let path = path.clone();
        let checkpoint = Checkpoint { path, resume };
        distil(
            form,
            &mut plan,
            (feeds, 0),
            (options, Some(&checkpoint)),
            &NoProgress,
        )
        .map(|course| (plan, course))
    };
    for patience in [None, Some(30)] {
        let options = Options {
            steps: 40,
            batch: 4,
            damping: 0.1,
            patience,
            ..Options::default()
        };
        let whole = learn(&feeds, &options, false).unwrap();
        // Enough for the first checks, not for the last.
        let failing = Failing(&feeds, AtomicUsize::new(100));
        learn(&failing, &options, false).unwrap_err();
        let resumed = learn(&feeds, &options, true).unwrap();
        assert_eq!(resumed.0, whole.0);
        assert_eq!(resumed.1.checks.len(), whole.1.checks.len());
        let other = Options {
            steps: 41,
            ..options
        };
        let error = learn(&feeds, &other, true).unwrap_err().to_string();
        assert!(
            error.contains("so far") && error.contains("other options"),
            "{error}"
        );
    }
    std::fs::write(&path, b"no such thing").unwrap();
    let error = learn(&feeds, &Options::default(), true)
        .unwrap_err()
        .to_string();
    assert!(error.contains("no checkpoint of vitq"), "{error}");
}

/// A bar that stops the work when it comes to a block.
struct Interrupted(&'static str);

impl Progress for Interrupted {
    fn stage(&self, name: &str, _: u64) {
        assert!(!name.starts_with(self.0), "interrupted");
    }

    fn advance(&self, _: u64) {}
}

#[test]
fn blocks_that_have_learned_are_not_learned_again() {
    let (model, images) = digits();
    let feeds = Batches::new(&images, 0..8, 1);
    let closed = quantizer(3).samples(8).plan(&model, &images, &NoProgress);
    let closed = closed.unwrap().plan;
    let written = model.written(closed.rotation).unwrap();
    let form = (written.graph(), written.structure());
    let folder = tempfile::tempdir().unwrap();
    let options = BlockOptions {
        steps: 5,
        batch: 2,
        ..BlockOptions::default()
    };
    let learn = |progress: &dyn Progress, options: &BlockOptions, resume| {
        let mut plan = closed.clone();
        let path = folder.path().join("so far.safetensors");
        let checkpoint = Checkpoint { path, resume };
        let how = (options, Some(&checkpoint));
        reconstruct(form, &mut plan, (&feeds, 0), how, progress).map(|report| (plan, report))
    };
    let whole = learn(&NoProgress, &options, false).unwrap();
    let stopped = std::panic::AssertUnwindSafe(|| learn(&Interrupted("blocks.2"), &options, false));
    assert!(std::panic::catch_unwind(stopped).is_err());
    // The first blocks are not come to again.
    let resumed = learn(&Interrupted("blocks.1"), &options, true).unwrap();
    assert_eq!(resumed, whole);
    let other = BlockOptions {
        steps: 6,
        ..options
    };
    let error = learn(&NoProgress, &other, true).unwrap_err().to_string();
    assert!(error.contains("other options"), "{error}");
    let end = learn(&Interrupted(""), &options, true).unwrap();
    assert_eq!(end, whole);
}

#[test]
fn patience_ends_what_does_not_help() {
    let (model, images) = digits();
    let usual = Options::default();
    // Far too fast, so that every check is worse than the first.
    let options = Options {
        steps: 40,
        batch: 2,
        rates: usual.rates.times(60.0),
        patience: Some(3),
        ..usual
    };
    let learning = Learning {
        options,
        samples: Some(16),
    };
    let learned = quantizer(4).learning(learning);
    let course = learned
        .plan(&model, &images, &NoProgress)
        .unwrap()
        .learned
        .unwrap();
    assert!(!course.kept && course.chosen == 0, "{course}");
    assert_eq!(course.checks.len(), 4);
}

#[test]
fn a_loss_that_is_no_number_names_the_layer() {
    let (model, images) = digits();
    let feeds = Batches::new(&images, 0..4, 1);
    let mut plan = quantizer(4)
        .samples(4)
        .plan(&model, &images, &NoProgress)
        .unwrap()
        .plan;
    let written = model.written(plan.rotation).unwrap();
    let site = plan
        .sites
        .iter_mut()
        .find(|s| s.site.contains("blocks.2/mlp/fc1"))
        .unwrap();
    let Decision::Linear(linear) = &mut site.decision else {
        panic!("{site:?}")
    };
    linear.bias[0] = f32::NAN;
    let form = (written.graph(), written.structure());
    let options = Options {
        steps: 2,
        ..Options::default()
    };
    let how = (&options, None);
    let error = distil(form, &mut plan, (&feeds, 0), how, &NoProgress).unwrap_err();
    let message = error.to_string();
    assert!(message.starts_with("/blocks/blocks.2/mlp/fc1"), "{message}");
}

/// A latent weight between two codes ends nearer to one of them, and codes turn back less.
#[test]
fn damping_draws_weights_to_their_levels() {
    let (model, images) = digits();
    let turned = |damping: f32| {
        let usual = Options::default();
        let options = Options {
            steps: 60,
            batch: 4,
            rates: usual.rates.times(4.0),
            damping,
            ..usual
        };
        let learned = quantizer(3).learning(Learning {
            options,
            samples: Some(32),
        });
        let course = learned
            .plan(&model, &images, &NoProgress)
            .unwrap()
            .learned
            .unwrap();
        course.checks[10..]
            .iter()
            .map(|check| check.oscillation)
            .sum::<f64>()
    };
    let (free, damped) = (turned(0.0), turned(0.3));
    assert!(damped < 0.8 * free, "{damped} of {free}");
}

#[test]
fn one_sample_is_too_few() {
    let (model, images) = digits();
    let error = quantizer(4)
        .learning(Learning {
            samples: Some(1),
            ..Learning::default()
        })
        .plan(&model, &images, &NoProgress)
        .unwrap_err();
    assert!(error.to_string().contains("at least 2 samples"), "{error}");
}

/// What is linear along an axis stays so, on a part of its values and running either way; other axes do not matter.
#[test]
fn a_crop_of_a_ramp_is_a_part_of_it() {
    let (height, width) = (24, 40);
    let ramp = |i: usize| (i % width) as f32;
    let image: Vec<f32> = (0..height * width).map(ramp).collect();
    let image = candle_core::Tensor::from_vec(image, (1, 1, height, width), &Device::Cpu).unwrap();
    let mut mirrored = 0;
    for seed in 0..20 {
        let cropped = crop(&image, &mut Random::new(&[seed])).unwrap();
        let rows: Vec<Vec<f32>> = cropped.reshape((height, width)).unwrap().to_vec2().unwrap();
        assert!(rows.windows(2).all(|pair| pair[0] == pair[1]));
        // Ends may stand still, where the crop reaches the border.
        let steps: Vec<f32> = rows[0].windows(2).map(|pair| pair[1] - pair[0]).collect();
        let inner = &steps[2..steps.len() - 2];
        assert!(
            inner.iter().all(|s| (s - inner[0]).abs() < 1e-4),
            "{steps:?}"
        );
        let share = inner[0].abs();
        assert!((0.4..=1.0).contains(&share), "{share} of the width");
        mirrored += usize::from(inner[0] < 0.0);
    }
    assert!((3..17).contains(&mirrored), "{mirrored} of 20 are mirrored");
}

/// A view of two samples of one colour each holds what both were made of, and the same one for all images of a sample.
#[test]
fn views_paste_and_recolour() {
    let plain = |value: f32| Tensor::full(value, (1, 3, 16, 16), &Device::Cpu).unwrap();
    let (mut pasted, mut recoloured) = (0, 0);
    for seed in 0..40 {
        let view = View::new(Random::new(&[seed]));
        let (image, other) = (plain(1.0), plain(-1.0));
        let seen = view.of(&image, Some(&other)).unwrap();
        let again = view.of(&image, Some(&other)).unwrap();
        let values = |it: &Tensor| it.reshape((3, 256)).unwrap().to_vec2::<f32>().unwrap();
        assert_eq!(values(&seen), values(&again), "{seed}");
        let mut kinds: Vec<f32> = values(&seen)[0].clone();
        kinds.sort_by(f32::total_cmp);
        kinds.dedup();
        assert!(kinds.len() <= 2, "{kinds:?}");
        pasted += usize::from(kinds.len() == 2);
        recoloured += usize::from(kinds.iter().any(|v| v.abs() != 1.0));
    }
    assert!((10..30).contains(&pasted), "{pasted} of 40");
    assert!((18..38).contains(&recoloured), "{recoloured} of 40");
}

/// A weight between two codes whose gradient changes its sign goes back and forth; one that is pushed one way does not.
#[test]
fn weights_that_turn_back_are_counted() {
    let plan = LinearPlan {
        activation: Activation::Uniform {
            bits: 4,
            scale: 1.0,
            zero_point: 8,
        },
        weight: Weight {
            bits: 4,
            out: 1,
            codes: vec![1, 1],
            block: None,
            scale: vec![1.0],
            zero_point: Vec::new(),
            table: None,
        },
        bias: vec![0.0],
        low_rank: None,
        pre_scale: None,
    };
    let rates = Options::default().rates.times(100.0);
    let decision = Decision::Linear(plan);
    let mut state = State::new(Some(&decision), None, &rates, &Device::Cpu).unwrap();
    for t in 1..=24 {
        let sign = if t % 8 < 4 { 1.0 } else { -1.0 };
        let step = Step {
            t,
            pace: 1.0,
            damping: 0.0,
        };
        state.step(&[vec![sign, -1.0], vec![0.0], vec![0.0]], step);
    }
    let (turned, all) = state.turned_back().unwrap();
    assert!((1..=6).contains(&turned), "{turned}");
    assert_eq!(all, 2);
    assert_eq!(state.turned_back(), Some((0, 2)));
}

/// A Linear of two outputs whose weight alone is quantised.
fn weight_alone(weight: &Weight) -> Decision {
    Decision::Linear(LinearPlan {
        activation: Activation::Float,
        weight: weight.clone(),
        bias: vec![0.0; 2],
        low_rank: None,
        pre_scale: None,
    })
}

/// Steps of it against one gradient of the weight; the weight then, which is what is run.
fn pushed(state: &mut State, gradient: &[f32], steps: usize) -> Weight {
    for t in 1..=steps {
        let step = Step {
            t,
            pace: 1.0,
            damping: 0.0,
        };
        state.step(&[gradient.to_vec(), vec![0.0; 2], vec![0.0]], step);
    }
    let (Some(Decision::Linear(learned)), Leaves::Linear(leaves)) = (
        state.decision(),
        state.leaves(false, &Backend::cpu()).unwrap(),
    ) else {
        panic!("a Linear stays one");
    };
    let run = leaves
        .weight
        .flatten_all()
        .unwrap()
        .to_vec1::<f32>()
        .unwrap();
    assert_eq!(run, learned.weight.dequantise());
    learned.weight
}

/// A weight in blocks learns a scale for each of them, and hands on what it stands for.
#[test]
fn scales_of_blocks_learn() {
    let weight = Weight {
        bits: 4,
        out: 2,
        codes: vec![1, 2, 3, -4, 5, -6],
        block: Some(2),
        scale: vec![1.0, 2.0, 4.0, 8.0],
        zero_point: Vec::new(),
        table: None,
    };
    let decision = weight_alone(&weight);
    let mut state = State::new(
        Some(&decision),
        None,
        &Options::default().rates,
        &Device::Cpu,
    )
    .unwrap();
    assert_eq!(pushed(&mut state, &[], 0), weight);
    // Only the second block of the second row is pushed.
    let learned = pushed(&mut state, &[0.0, 0.0, 0.0, 0.0, 0.0, 1.0], 3);
    assert_eq!(learned.scale[..3], weight.scale[..3]);
    assert!(learned.scale[3] > weight.scale[3], "{learned:?}");
}

/// Levels of a codebook follow what the weights on them are pushed to, and stay apart and within the planned ones.
#[test]
fn levels_of_a_codebook_learn() {
    let table = vec![-8, -2, 2, 8];
    let weight = Weight {
        bits: 2,
        out: 2,
        codes: vec![-8, -2, 2, 8, 2, -2, 2, 8],
        block: None,
        scale: vec![1.0, 0.5],
        zero_point: Vec::new(),
        table: Some(table.clone()),
    };
    let rates = Rates {
        weight: 0.0,
        scale: 0.0,
        level: 0.5,
        ..Options::default().rates
    };
    let decision = weight_alone(&weight);
    let learned = |level: f32, push: [f32; 4], steps: usize| {
        let rates = Rates { level, ..rates };
        let mut state = State::new(Some(&decision), None, &rates, &Device::Cpu).unwrap();
        let gradient: Vec<f32> = weight
            .codes
            .iter()
            .map(|code| push[table.iter().position(|level| level == code).unwrap()])
            .collect();
        let learned = pushed(&mut state, &gradient, steps);
        assert_eq!(state.turned_back(), Some((0, 8)));
        learned
    };
    // Half a unit a step, against the gradient, as Adam's first steps are.
    let moved = learned(0.5, [0.0, 1.0, -1.0, 0.0], 4);
    assert_eq!(moved.table, Some(vec![-8, -4, 4, 8]));
    assert_eq!(moved.codes, [-8, -4, 4, 8, 4, -4, 4, 8]);
    assert_eq!(learned(0.0, [0.0, 1.0, -1.0, 0.0], 4), weight);
    let pressed = learned(0.5, [1.0, -1.0, 1.0, -1.0], 40);
    assert_eq!(
        pressed.table.as_deref().map(|it| (it[0], it[3])),
        Some((-8, 8))
    );
    assert!(pressed.table.unwrap().is_sorted_by(|a, b| a < b));
}
