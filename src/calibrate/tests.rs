//! On the digits fixture; the float network is judged by tract running the whole file.

#[cfg(feature = "onnxruntime")]
mod executors;

use std::path::Path;

use ndarray::{ArrayD, IxDyn};
use vitq_passes::structure::Role;

use super::*;
use crate::batches::Batches;
use crate::contract::{Contract, Source};
use crate::input::{Dataset, Preset};
use crate::model::FloatModel;
use crate::pipeline::NoProgress;
use crate::run::{RunOptions, Runtime, load};
use crate::walk::World;

fn digits(file: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/digits")
        .join(file)
}

fn model() -> FloatModel {
    FloatModel::open(&digits("model.onnx")).unwrap()
}

fn images(model: &FloatModel) -> Dataset {
    let contract = Contract {
        preset: Some(Preset::Inception),
        resize: Some(32),
        ..Contract::default()
    };
    Source {
        path: digits("images/test"),
        classes: None,
        contract,
    }
    .open(model)
    .unwrap()
}

fn settings(bits: u32, scope: Scope) -> Settings {
    Settings {
        weight_bits: bits,
        activation_bits: bits,
        scope,
        effort: Effort::Balanced,
        ..Settings::default()
    }
}

/// One image, every pixel the same.
struct Constant(f32);

impl Feeds for Constant {
    fn len(&self) -> usize {
        1
    }

    fn feed(&self, _: usize) -> Result<Vec<(String, Array)>, InputError> {
        Ok(vec![(
            "input".into(),
            ArrayD::from_elem(IxDyn(&[1, 3, 32, 32]), self.0).into(),
        )])
    }
}

fn state<'a>(model: &'a FloatModel, settings: &'a Settings) -> Calibration<'a> {
    Calibration::new(&model.graph, &model.structure, settings).unwrap()
}

/// The carriers found on a walk over the whole network, by `proj`.
fn carriers(model: &FloatModel, feeds: &dyn Feeds) -> HashMap<usize, Carrier> {
    let program = Program::new(
        &model.graph,
        &model.structure,
        &feeds.feed(0).unwrap(),
        Runtime::Tract,
    )
    .unwrap();
    let settings = settings(8, Scope::Linear);
    let mut state = state(model, &settings);
    let mut walk = Walk::start(&program, feeds.len(), |i| {
        feeds.feed(i).map_err(CalibrateError::from)
    })
    .unwrap();
    while let Some(index) = walk.advance().unwrap() {
        let found = state.carrier(&walk, index).unwrap();
        state.carriers.extend(found);
        walk.complete(|walk, lane| state.float_output(walk, index, lane))
            .unwrap();
    }
    state.carriers
}

/// One input of noise for a model of the zoo.
struct Noise(Vec<usize>);

impl Feeds for Noise {
    fn len(&self) -> usize {
        1
    }

    fn feed(&self, _: usize) -> Result<Vec<(String, Array)>, InputError> {
        let mut seed = 1u32;
        let noise = ArrayD::from_shape_simple_fn(IxDyn(&self.0), || {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (seed >> 8) as f32 / (1 << 24) as f32 - 0.5
        });
        Ok(vec![("any".into(), noise.into())])
    }
}

#[test]
fn the_rows_of_v_are_found_behind_every_way_to_write_an_attention() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/exports");
    let index = std::fs::read_to_string(folder.join("index.json")).unwrap();
    let index: serde_json::Value = serde_json::from_str(&index).unwrap();
    for (name, separate) in [
        ("timm_torchscript17", false),
        ("timm_dynamo18", false),
        ("qkv_gather", false),
        ("qkv_slice", false),
        ("qkv_split", false),
        ("qkv_unbind", false),
        ("qkv_no_bias", false),
        ("qkv_separate", true),
        ("qkv_separate_dynamo20", true),
        ("post_norm", false),
    ] {
        let model = FloatModel::open(&folder.join(format!("{name}.onnx"))).unwrap();
        let dims = model.inputs[0]
            .dims
            .iter()
            .map(|d| d.unwrap_or(1))
            .collect();
        let found = carriers(&model, &Noise(dims));
        let truth = &index["models"][name];
        let (blocks, dim) = (truth["blocks"].as_u64(), truth["dim"].as_u64());
        let (blocks, dim) = (blocks.unwrap() as usize, dim.unwrap() as usize);
        assert_eq!(found.len(), blocks, "{name}");
        // As the architecture has it: q, k and v lie one behind the other in a fused Linear, the heads in order.
        let first = if separate { 0 } else { 2 * dim };
        for carrier in found.values() {
            assert_eq!(carrier.rows, Vec::from_iter(first..first + dim), "{name}");
        }
    }
}

#[test]
fn a_migrated_fold_leaves_the_network_as_it_was() {
    let model = model();
    let images = images(&model);
    let feeds = Batches::new(&images, 0..4, 1);
    assert_eq!(migrated(&model, &feeds), model.structure.blocks.len());
}

#[test]
fn a_site_that_is_float_before_others_fold_its_norm_follows_the_fold() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/families/hf_vit.onnx");
    let model = FloatModel::open(&file).unwrap();
    let first = |structure: &Structure| {
        let reads_with_others = |norm: usize| structure.norms[norm].sites.len() > 1;
        let sites = structure.sites.iter();
        sites
            .filter(|site| site.norm.is_some_and(reads_with_others))
            .map(|site| site.name.clone())
            .next()
            .unwrap()
    };
    let kept = first(&model.structure);
    let settings = Settings {
        keep_float: vec![kept.clone()],
        ..settings(4, Scope::Linear)
    };
    let feeds = Noise(vec![1, 3, 32, 32]);
    let (graph, structure) = (&model.graph, &model.structure);
    let plan = calibrate(graph, structure, &feeds, &settings, &NoProgress).unwrap();
    let site = structure.sites.iter().find(|it| it.name == kept).unwrap();
    let norm = &structure.norms[site.norm.unwrap()].name;
    assert!(
        plan.plan.norms.iter().any(|it| it.norm == *norm),
        "no fold: nothing is tested"
    );
    let decision = &plan.plan.site(&kept).unwrap().decision;
    assert!(
        matches!(
            decision,
            Decision::Float {
                replace: Some(_),
                ..
            }
        ),
        "its parameters are those in front of the fold"
    );
}

#[test]
fn folds_migrate_through_relu() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/families");
    let model = FloatModel::open(&folder.join("hf_detr.onnx")).unwrap();
    let dims = model.inputs[0].dims.iter().map(|d| d.unwrap_or(1));
    let noise = Noise(dims.collect());
    let through = |role: Role| {
        let found = carriers(&model, &noise).into_values();
        let of_role = found.filter(|it| model.structure.sites[it.site].role == role);
        of_role.map(|it| it.shifts).collect::<Vec<_>>()
    };
    // A layer in the encoder, two in the decoder and the boxes' predictor; no shift passes a ReLU.
    assert_eq!(through(Role::Fc1), [false; 4]);
    assert_eq!(migrated(&model, &noise), carriers(&model, &noise).len());
}

/// Migrates made-up folds, compares the network with the float one, and says how many they were.
fn migrated(model: &FloatModel, feeds: &dyn Feeds) -> usize {
    let settings = settings(8, Scope::Linear);
    let state = state(model, &settings);
    let float = |site: usize, replace| SitePlan {
        site: model.structure.sites[site].name.clone(),
        decision: Decision::Float {
            reason: "only folded".into(),
            replace,
        },
    };
    let mut plan = Plan {
        version: VERSION,
        ..Plan::default()
    };
    for (reader, carrier) in carriers(model, feeds) {
        let read = state.parameters[reader].as_ref().unwrap();
        let shift = |j: usize| match carrier.shifts {
            true => (j % 7) as f32 / 2.0 - 1.5,
            false => 0.0,
        };
        let fold = Fold {
            r: (0..read.k).map(|j| 0.3 + (j % 11) as f32 / 4.0).collect(),
            shift: (0..read.k).map(shift).collect(),
        };
        let folded = read.folded(&fold);
        plan.sites
            .push(float(reader, Some((folded.weight, folded.bias))));
        let mut values = float(carrier.site, None);
        let parameters = state.parameters[carrier.site].as_ref().unwrap();
        let migration = Migration {
            reader,
            carrier,
            fold,
        };
        migration.apply(&mut values, parameters);
        plan.sites.push(values);
    }
    let count = plan.sites.len() / 2;
    for (site, sites) in model.structure.sites.iter().enumerate() {
        if plan.site(&sites.name).is_none() {
            plan.sites.push(float(site, None));
        }
    }
    let changed = crate::Quantizer::new().apply(model, &plan).unwrap();
    let mut feed = feeds.feed(0).unwrap();
    feed[0].0.clone_from(&model.inputs[0].name);
    let dims = vec![(feed[0].0.clone(), feed[0].1.dims().to_vec())];
    let run = |model: &vitq_onnx::Model| {
        let bytes = prost::Message::encode_to_vec(model);
        load(Runtime::Tract, &bytes, &dims, &[], &RunOptions::default())
            .unwrap()
            .run(&feed)
            .unwrap()[0]
            .as_f32()
            .unwrap()
            .iter()
            .copied()
            .collect::<Vec<f32>>()
    };
    let (before, after) = (run(&model.message), run(&changed));
    let size = before.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert_ne!(before, after, "nothing was folded");
    for (x, y) in before.iter().zip(&after) {
        assert!((x - y).abs() <= 1e-5 * size, "{y}, not {x}");
    }
    count
}

/// The float network's outputs, walked to the end from site to site.
fn walked(model: &FloatModel, feeds: &dyn Feeds) -> Vec<Vec<f32>> {
    let program = Program::new(
        &model.graph,
        &model.structure,
        &feeds.feed(0).unwrap(),
        Runtime::Tract,
    )
    .unwrap();
    let settings = settings(8, Scope::All);
    let state = state(model, &settings);
    let mut walk = Walk::start(&program, feeds.len(), |i| {
        feeds.feed(i).map_err(CalibrateError::from)
    })
    .unwrap();
    let mut visited = 0;
    while let Some(index) = walk.advance().unwrap() {
        walk.complete(|walk, lane| state.float_output(walk, index, lane))
            .unwrap();
        visited += 1;
    }
    assert_eq!(visited, model.structure.sites.len());
    walk.outputs(World::Float).unwrap()
}

#[test]
fn a_walk_gives_the_float_networks_outputs_from_memory_and_from_files() {
    let model = model();
    let images = images(&model);
    // More than wait in memory, and the same images in two walks that keep everything there.
    let feeds = Batches::new(&images, 0..66, 1);
    let spilled = walked(&model, &feeds);
    let halves = [0..33, 33..66].map(|half| walked(&model, &Batches::new(&images, half, 1)));
    assert_eq!(spilled, halves.concat());

    let bytes = std::fs::read(digits("model.onnx")).unwrap();
    let dims: Vec<_> = feeds
        .feed(0)
        .unwrap()
        .iter()
        .map(|(name, array)| (name.clone(), array.dims().to_vec()))
        .collect();
    let executor = load(Runtime::Tract, &bytes, &dims, &[], &RunOptions::default()).unwrap();
    for (i, given) in spilled.iter().enumerate() {
        let outputs = executor.run(&feeds.feed(i).unwrap()).unwrap();
        let expected = outputs[0].as_f32().unwrap();
        assert_eq!(given.len(), expected.len());
        for (given, expected) in given.iter().zip(expected) {
            let difference = (given - expected).abs();
            assert!(
                difference <= 1e-5 * expected.abs().max(1.0),
                "image {i}: {given}, not {expected}"
            );
        }
    }
}

/// All that calibration decided and saw, as bytes.
fn bytes(model: &FloatModel, feeds: &dyn Feeds, settings: &Settings, threads: usize) -> Vec<u8> {
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .unwrap();
    let outcome = pool
        .install(|| calibrate(&model.graph, &model.structure, feeds, settings, &NoProgress))
        .unwrap();
    serde_json::to_vec(&(outcome.plan, outcome.sites)).unwrap()
}

#[test]
fn the_result_does_not_depend_on_the_number_of_threads() {
    let model = model();
    let images = images(&model);
    let feeds = Batches::new(&images, 0..7, 1);
    let branched = Settings {
        ranks: Ranks::All(4),
        ..settings(4, Scope::Linear)
    };
    for settings in [
        settings(8, Scope::Linear),
        settings(4, Scope::All),
        branched,
    ] {
        let one = bytes(&model, &feeds, &settings, 1);
        for threads in [2, 3] {
            assert!(
                one == bytes(&model, &feeds, &settings, threads),
                "{threads} threads, {settings:?}"
            );
        }
    }
}

#[test]
fn pixels_that_are_no_numbers_are_refused_at_the_first_site() {
    let model = model();
    for value in [f32::NAN, f32::INFINITY] {
        for (scope, bits) in [(Scope::Linear, 8), (Scope::All, 8), (Scope::All, 4)] {
            let settings = settings(bits, scope);
            let in_scope = |site: &&Site| settings.float_reason(site).is_none();
            let first = &model.structure.sites.iter().find(in_scope).unwrap().name;
            let error = calibrate(
                &model.graph,
                &model.structure,
                &Constant(value),
                &settings,
                &NoProgress,
            )
            .unwrap_err();
            assert!(
                matches!(&error, CalibrateError::NotFinite { site } if site == first),
                "{error}"
            );
        }
    }
}

/// Every number of a plan can be computed with.
fn finite(outcome: &Outcome) {
    for site in &outcome.plan.sites {
        if let Decision::Linear(linear) = &site.decision {
            let numbers = linear.weight.scale.iter().chain(&linear.bias);
            assert!(
                numbers
                    .chain(linear.pre_scale.iter().flatten())
                    .all(|v| v.is_finite()),
                "{}",
                site.site
            );
            assert!(
                linear.weight.scale.iter().all(|s| *s > 0.0),
                "{}",
                site.site
            );
        }
    }
    for norm in &outcome.plan.norms {
        assert!(
            norm.gamma.iter().chain(&norm.beta).all(|v| v.is_finite()),
            "{}",
            norm.norm
        );
    }
}

#[test]
fn one_image_and_one_without_content_are_enough_for_a_plan() {
    let model = model();
    let images = images(&model);
    let one = Batches::new(&images, 0..1, 1);
    let feeds: [&dyn Feeds; 2] = [&one, &Constant(0.0)];
    for feeds in feeds {
        for settings in [
            settings(8, Scope::Linear),
            settings(4, Scope::All),
            settings(2, Scope::All),
        ] {
            let outcome = calibrate(
                &model.graph,
                &model.structure,
                feeds,
                &settings,
                &NoProgress,
            )
            .unwrap();
            assert_eq!(outcome.plan.sites.len(), model.structure.sites.len());
            finite(&outcome);
        }
    }
}

#[test]
fn an_interval_stands_only_where_no_other_codes_suit_attention_weights_better() {
    let model = model();
    let images = images(&model);
    let feeds = Batches::new(&images, 0..4, 1);
    let products = |focusing, codes, without: &[Part]| -> Vec<f64> {
        let settings = Settings {
            focusing,
            codes,
            // Each site by itself.
            without: [without, &[Part::Sequential, Part::Guard]].concat(),
            ..settings(3, Scope::All)
        };
        let outcome = calibrate(
            &model.graph,
            &model.structure,
            &feeds,
            &settings,
            &NoProgress,
        );
        let sites = model.structure.sites.iter().zip(outcome.unwrap().sites);
        sites
            .filter(|(site, _)| site.kind == SiteKind::AttentionValue)
            .filter_map(|(_, report)| report.output_sqnr_db)
            .collect()
    };
    // What `range` and the logarithm cannot do is what the interval is for.
    let (plain, focused) = (
        products(false, Codes::Uniform, &[Part::Logarithm]),
        products(true, Codes::Uniform, &[Part::Logarithm]),
    );
    assert!(!plain.is_empty() && plain.len() == focused.len());
    assert!(
        plain.iter().zip(&focused).all(|(p, f)| f > p),
        "{plain:?} {focused:?}"
    );
    assert_eq!(
        products(false, Codes::Auto, &[]),
        products(true, Codes::Auto, &[])
    );
}

#[test]
fn nothing_to_calibrate_on_is_refused() {
    let model = model();
    let images = images(&model);
    let none = Batches::new(&images, 0..0, 1);
    let result = calibrate(
        &model.graph,
        &model.structure,
        &none,
        &settings(8, Scope::Linear),
        &NoProgress,
    );
    assert!(matches!(result, Err(CalibrateError::NoInputs)));
}

#[test]
fn a_carrier_takes_a_fold_over_in_its_branch_too() {
    use vitq_passes::plan::{Activation, LinearPlan, LowRank, Weight};
    let plan = LinearPlan {
        activation: Activation::Uniform {
            bits: 8,
            scale: 1.0,
            zero_point: 0,
        },
        pre_scale: None,
        weight: Weight {
            bits: 8,
            out: 3,
            codes: vec![1, -2, 3, 4, -5, 6],
            block: None,
            scale: vec![0.5, 1.0, 2.0],
            zero_point: Vec::new(),
            table: None,
        },
        bias: vec![0.0; 3],
        low_rank: Some(LowRank {
            rank: 2,
            bits: 32,
            down: vec![1.0, 2.0, 3.0, 4.0],
            up: vec![0.25, 0.5, 0.75, 1.0, 1.25, 1.5],
        }),
    };
    // What a row of codes and branch stand for together.
    let row = |plan: &LinearPlan, o: usize| {
        let branch = plan.low_rank.as_ref().unwrap();
        let codes = plan.weight.dequantise();
        let part = |i: usize, r: usize| branch.up[o * 2 + r] * branch.down[r * 2 + i];
        [0, 1].map(|i| codes[o * 2 + i] + part(i, 0) + part(i, 1))
    };
    let mut site = SitePlan {
        site: "v".into(),
        decision: Decision::Linear(plan.clone()),
    };
    let migration = Migration {
        reader: 1,
        carrier: Carrier {
            site: 0,
            rows: vec![2, 0],
            shifts: true,
        },
        fold: Fold {
            r: vec![4.0, 0.5],
            shift: vec![0.0, 0.0],
        },
    };
    let parameters = Parameters {
        weight: vec![0.0; 6],
        bias: vec![0.0; 3],
        k: 2,
    };
    migration.apply(&mut site, &parameters);
    let Decision::Linear(changed) = &site.decision else {
        panic!("{site:?}")
    };
    for (o, r) in [(0, 0.5), (1, 1.0), (2, 4.0)] {
        assert_eq!(row(changed, o), row(&plan, o).map(|w| w / r), "row {o}");
    }
}

/// One image of 1 by 3 pixels.
struct Sliver;

impl Feeds for Sliver {
    fn len(&self) -> usize {
        1
    }

    fn feed(&self, _: usize) -> Result<Vec<(String, Array)>, InputError> {
        Ok(vec![(
            "x".into(),
            ArrayD::from_elem(IxDyn(&[1, 1, 1, 3]), 1.0f32).into(),
        )])
    }
}

#[test]
fn an_image_smaller_than_a_patch_is_one_error() {
    let graph = Graph::parse(
        "<ir_version: 8, opset_import: [\"\" : 17]> g (float[n, 1, h, w] x) => (float[n, 2] y)
        <float[2, 1, 2, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}, float[2, 2] v = {1, 2, 3, 4}> {
            [embed] p = Conv<kernel_shape = [2, 2], strides = [2, 2]>(x, w)
            m = ReduceMean<axes = [2, 3], keepdims = 0>(p)
            y = MatMul(m, v)
        }",
    )
    .unwrap();
    let structure = vitq_passes::structure::recognise(&graph);
    for scope in [Scope::Linear, Scope::All] {
        let settings = settings(8, scope);
        let error = calibrate(&graph, &structure, &Sliver, &settings, &NoProgress).unwrap_err();
        let message = error.to_string();
        assert!(
            message.contains("embed")
                && message.contains("1 by 3 pixels")
                && message.contains("2 by 2"),
            "{message}"
        );
    }
}
