//! Models mean in [`vitq::run`] what they mean in ONNX Runtime, and wrong calls and files are errors.

#[path = "../tract/tests/cases/mod.rs"]
mod cases;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use cases::{Case, Values, cases, python};
use ndarray::ArrayD;
use vitq::run::{Array, RunError, RunOptions, Runtime, load};

fn array(values: Values) -> Array {
    match values {
        Values::F32(a) => a.into(),
        Values::I64(a) => a.into(),
        Values::I32(a) => a.into(),
        Values::U8(a) => a.into(),
    }
}

fn values(array: Array) -> Values {
    match array {
        Array::F32(a) => Values::F32(a.into_owned()),
        Array::I64(a) => Values::I64(a.into_owned()),
        Array::I32(a) => Values::I32(a.into_owned()),
        Array::U8(a) => Values::U8(a.into_owned()),
        other => panic!("no case has {}", other.type_name()),
    }
}

fn agree(cases: &[Case], folder: &Path, runtime: Runtime, options: &RunOptions) {
    cases::all_agree(cases, folder, |_, model, feed| {
        let named = feed
            .iter()
            .map(|(name, values)| (name.clone(), array(values.clone())));
        let feed: Vec<(String, Array)> = named.collect();
        let dims: Vec<_> = feed
            .iter()
            .map(|(n, a)| (n.clone(), a.dims().to_vec()))
            .collect();
        let executor = load(runtime, model, &dims, &[], options).map_err(|e| e.to_string())?;
        let given = executor.run(&feed).map_err(|e| e.to_string())?;
        Ok(given.into_iter().map(values).collect())
    });
}

#[test]
fn quantisation_in_tract_means_what_it_means_in_onnx_runtime() {
    let (folder, cases) = cases(&[]);
    for optimise in [true, false] {
        let options = RunOptions {
            optimise,
            ..RunOptions::default()
        };
        agree(&cases, folder.path(), Runtime::Tract, &options);
    }
}

/// Every exported form of the small ViT under `fixtures/`.
#[test]
fn exported_vits_give_in_tract_what_they_give_in_onnx_runtime() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/exports");
    let files = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let models: Vec<PathBuf> = files
        .filter(|f| f.extension().is_some_and(|e| e == "onnx"))
        .collect();
    assert!(models.len() >= 28, "only {} models", models.len());
    let (folder, cases) = cases(&models.iter().map(PathBuf::as_path).collect::<Vec<_>>());
    assert_eq!(cases.len(), models.len());
    agree(
        &cases,
        folder.path(),
        Runtime::Tract,
        &RunOptions::default(),
    );
}

/// Needs `../shared/data/vit_tiny_imagenet/model.onnx`, which lies beside the repository.
#[test]
#[ignore = "needs ../shared/data"]
fn a_trained_vit_gives_in_tract_what_it_gives_in_onnx_runtime() {
    let model =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../shared/data/vit_tiny_imagenet/model.onnx");
    assert!(
        model.exists(),
        "this test needs ../shared/data/vit_tiny_imagenet/model.onnx beside the repository"
    );
    let (folder, cases) = cases(&[&model]);
    assert_eq!(cases.len(), 1);
    agree(
        &cases,
        folder.path(),
        Runtime::Tract,
        &RunOptions::default(),
    );
}

/// One case whose graph is x → Q → Reshape ...: values inside are called q, d, f, g.
fn chain(cases: &[Case]) -> &Case {
    cases
        .iter()
        .find(|c| c.name.starts_with("Q → DQ → Reshape"))
        .unwrap()
}

fn taps_of(runtime: Runtime) -> (Vec<Array>, Array) {
    let (folder, cases) = cases(&[]);
    let case = chain(&cases);
    let model = fs::read(folder.path().join(&case.model)).unwrap();
    let x = array(case.inputs[0].read(folder.path()));
    let taps = ["q", "d", "x", "q", "r", "s1"].map(String::from);
    let options = RunOptions {
        library: library(),
        ..RunOptions::default()
    };
    let dims = [("x".to_owned(), x.dims().to_vec())];
    let executor = load(runtime, &model, &dims, &taps, &options).unwrap();
    assert_eq!(executor.outputs(), ["r", "q", "d", "x", "q", "r", "s1"]);
    (executor.run(&[("x".to_owned(), x.clone())]).unwrap(), x)
}

fn taps_are_right(runtime: Runtime) {
    let (given, x) = taps_of(runtime);
    assert_eq!(given.len(), 7);
    assert_eq!(given[3], x);
    assert_eq!((&given[1], &given[0]), (&given[4], &given[5]));
    assert_eq!(
        given[6]
            .as_f32()
            .unwrap()
            .iter()
            .copied()
            .collect::<Vec<_>>(),
        [0.05]
    );
    let (Array::U8(q), Some(d)) = (&given[1], given[2].as_f32()) else {
        panic!("{given:?}")
    };
    assert_eq!(q.shape(), x.dims());
    for (q, d) in q.iter().zip(d) {
        assert_eq!(*d, (f32::from(*q) - 128.0) * 0.05);
    }
}

#[test]
fn taps_follow_the_outputs_in_tract() {
    taps_are_right(Runtime::Tract);
}

#[test]
fn wrong_calls_say_what_is_wrong() {
    let (folder, cases) = cases(&[]);
    let case = chain(&cases);
    let model = fs::read(folder.path().join(&case.model)).unwrap();
    let x = array(case.inputs[0].read(folder.path()));
    let dims = [("x".to_owned(), x.dims().to_vec())];
    let options = RunOptions::default();
    let failure = |model: &[u8], dims: &[(String, Vec<usize>)], taps: &[&str]| {
        let taps: Vec<String> = taps.iter().map(|t| (*t).to_owned()).collect();
        load(Runtime::Tract, model, dims, &taps, &options)
            .err()
            .unwrap()
    };
    assert!(matches!(
        failure(b"not a model", &dims, &[]),
        RunError::Decode(_)
    ));
    assert!(matches!(failure(b"", &dims, &[]), RunError::Decode(_)));
    assert!(matches!(
        failure(&model[..model.len() / 2], &dims, &[]),
        RunError::Decode(_)
    ));
    assert!(matches!(failure(&model, &[], &[]), RunError::MissingInput { name } if name == "x"));
    let other = [("pixels".to_owned(), vec![1])];
    let RunError::UnknownInput { name, known } = failure(&model, &other, &[]) else {
        panic!()
    };
    assert_eq!((name.as_str(), known.as_str()), ("pixels", "`x`"));
    assert!(
        matches!(failure(&model, &dims, &["nothing"]), RunError::UnknownTap { name } if name == "nothing")
    );

    let executor = load(Runtime::Tract, &model, &dims, &[], &options).unwrap();
    let given = |name: &str, array: Array| executor.run(&[(name.to_owned(), array)]).err().unwrap();
    let short = ArrayD::<f32>::zeros(vec![2]);
    assert!(matches!(
        given("x", short.into()),
        RunError::InputDims { .. }
    ));
    let bytes = ArrayD::<u8>::zeros(x.dims());
    assert!(matches!(
        given("x", bytes.into()),
        RunError::InputType { .. }
    ));
    assert!(matches!(
        given("y", x.clone()),
        RunError::UnknownInput { .. }
    ));
    assert!(matches!(
        executor.run(&[]).err().unwrap(),
        RunError::MissingInput { .. }
    ));
}

/// Bytes of a valid model changed here and there: an error or a result, never the end of the process.
#[test]
fn damaged_models_are_errors() {
    let (folder, cases) = cases(&[]);
    let case = chain(&cases);
    let model = fs::read(folder.path().join(&case.model)).unwrap();
    let x = array(case.inputs[0].read(folder.path()));
    let dims = [("x".to_owned(), x.dims().to_vec())];
    let mut refused = 0;
    for at in 0..model.len() {
        let mut damaged = model.clone();
        damaged[at] ^= 0x11;
        refused += usize::from(
            load(Runtime::Tract, &damaged, &dims, &[], &RunOptions::default())
                .and_then(|executor| executor.run(&[("x".to_owned(), x.clone())]))
                .is_err(),
        );
    }
    println!("{refused} of {} refused", model.len());
    assert!(refused > model.len() / 4);
}

/// The shared library inside the Python package.
fn library() -> Option<PathBuf> {
    let find = "import glob, os, onnxruntime; \
                print(glob.glob(os.path.dirname(onnxruntime.__file__) + '/capi/libonnxruntime.so*')[0])";
    let output = Command::new(python()).args(["-c", find]).output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Some(PathBuf::from(
        String::from_utf8(output.stdout).unwrap().trim(),
    ))
}

#[cfg(not(feature = "onnxruntime"))]
#[test]
fn onnx_runtime_needs_the_feature() {
    let (folder, cases) = cases(&[]);
    let model = fs::read(folder.path().join(&cases[0].model)).unwrap();
    let dims = [("x".to_owned(), cases[0].inputs[0].dims.clone())];
    let error = load(
        Runtime::OnnxRuntime,
        &model,
        &dims,
        &[],
        &RunOptions::default(),
    )
    .err()
    .unwrap();
    assert!(error.to_string().contains("onnxruntime"), "{error}");
}

#[cfg(feature = "onnxruntime")]
mod onnx_runtime {
    use super::*;

    #[test]
    fn gives_what_its_python_package_gives() {
        let (folder, mut cases) = cases(&[]);
        cases.retain(|case| !case.specified);
        let options = RunOptions {
            optimise: false,
            library: library(),
            ..RunOptions::default()
        };
        agree(&cases, folder.path(), Runtime::OnnxRuntime, &options);
    }

    #[test]
    fn taps_follow_the_outputs() {
        taps_are_right(Runtime::OnnxRuntime);
    }
}
