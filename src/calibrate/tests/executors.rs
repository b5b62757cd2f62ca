//! ONNX Runtime between the sites, next to tract.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::Value;
use tract_onnx::prelude::Tensor;

use super::*;
use crate::walk::floats;

/// The operands of each site, as the float network hands them over.
fn arriving(
    model: &FloatModel,
    feeds: &dyn Feeds,
    executor: Runtime,
) -> BTreeMap<usize, Vec<Arc<Tensor>>> {
    let first = feeds.feed(0).unwrap();
    let program = Program::new(&model.graph, &model.structure, &first, executor).unwrap();
    let settings = settings(8, Scope::All);
    let state = state(model, &settings);
    let mut walk = Walk::start(&program, feeds.len(), |i| {
        feeds.feed(i).map_err(CalibrateError::from)
    })
    .unwrap();
    let mut seen = BTreeMap::new();
    while let Some(index) = walk.advance().unwrap() {
        let operands = (0..2).filter_map(|i| walk.operand(0, i, World::Float));
        let operands = operands.map(|held| held.get().unwrap());
        seen.insert(index, operands.collect());
        walk.complete(|walk, lane| state.float_output(walk, index, lane))
            .unwrap();
    }
    assert_eq!(seen.len(), model.structure.sites.len());
    seen
}

/// Within a share of the largest of them.
fn assert_near(x: &[f32], y: &[f32], share: f32, what: &str) {
    assert_eq!(x.len(), y.len(), "{what}");
    let size = x.iter().fold(0.0f32, |size, x| size.max(x.abs()));
    for (x, y) in x.iter().zip(y) {
        assert!((x - y).abs() <= share * size, "{what}: {y}, not {x}");
    }
}

fn family(name: &str) -> (FloatModel, Noise) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/families");
    let model = FloatModel::open(&folder.join(name).with_extension("onnx")).unwrap();
    let dims = model.inputs[0].dims.iter().map(|dim| dim.unwrap_or(1));
    let noise = Noise(dims.collect());
    (model, noise)
}

#[test]
fn the_same_arrives_at_the_sites() {
    let model = model();
    let images = images(&model);
    same_arrives("digits", &model, &Batches::new(&images, 0..2, 2));
    for name in ["crossvit", "levit", "swin", "tnt"] {
        let (model, noise) = family(name);
        same_arrives(name, &model, &noise);
    }
}

fn same_arrives(name: &str, model: &FloatModel, feeds: &dyn Feeds) {
    let [tract, other] =
        [Runtime::Tract, Runtime::OnnxRuntime].map(|executor| arriving(model, feeds, executor));
    for (index, operands) in &tract {
        let what = format!("{name}, {}", model.structure.sites[*index].name);
        assert_eq!(operands.len(), other[index].len(), "{what}");
        for (x, y) in operands.iter().zip(&other[index]) {
            assert_eq!(x.shape(), y.shape(), "{what}");
            assert_near(floats(x).unwrap(), floats(y).unwrap(), 1e-4, &what);
        }
    }
}

#[test]
fn the_same_is_decided() {
    let model = model();
    let images = images(&model);
    let feeds = Batches::new(&images, 0..8, 1);
    // What a longer search decides follows from the last bits.
    let [tract, other] = [Runtime::Tract, Runtime::OnnxRuntime].map(|executor| {
        let settings = Settings {
            effort: Effort::Fast,
            executor,
            ..settings(8, Scope::All)
        };
        let progress = &NoProgress;
        let outcome =
            calibrate(&model.graph, &model.structure, &feeds, &settings, progress).unwrap();
        serde_json::to_value(outcome.plan).unwrap()
    });
    alike(&tract, &other, "plan");
}

/// Numbers alike, everything else the same. A value that lies between two codes may be rounded to either.
fn alike(x: &Value, y: &Value, what: &str) {
    match (x, y) {
        (Value::Object(x), Value::Object(y)) => {
            assert!(x.keys().eq(y.keys()), "{what}");
            x.iter()
                .for_each(|(key, x)| alike(x, &y[key], &format!("{what}.{key}")));
        }
        (Value::Array(x), Value::Array(y)) if x.iter().all(Value::is_i64) => {
            assert_eq!(x.len(), y.len(), "{what}");
            let code = |value: &Value| value.as_i64().unwrap();
            let apart = x.iter().zip(y).map(|(x, y)| (code(x) - code(y)).abs());
            assert!(apart.clone().all(|apart| apart <= 1), "{what}");
            assert!(100 * apart.sum::<i64>() <= x.len() as i64, "{what}");
        }
        (Value::Array(x), Value::Array(y)) if x.iter().all(Value::is_f64) => {
            let values = |list: &[Value]| -> Vec<f32> {
                list.iter().map(|it| it.as_f64().unwrap() as f32).collect()
            };
            // A code that goes the other way moves the mean that a bias takes away.
            assert_near(&values(x), &values(y), 1e-3, what);
        }
        (Value::Array(x), Value::Array(y)) => {
            assert_eq!(x.len(), y.len(), "{what}");
            let pairs = x.iter().zip(y).enumerate();
            pairs.for_each(|(i, (x, y))| alike(x, y, &format!("{what}[{i}]")));
        }
        (Value::Number(x), Value::Number(y)) if x.is_f64() => {
            assert_near(
                &[x.as_f64().unwrap() as f32],
                &[y.as_f64().unwrap() as f32],
                1e-3,
                what,
            );
        }
        _ => assert_eq!(x, y, "{what}"),
    }
}
