//! Quantised graphs mean in tract what they mean in ONNX Runtime, case by case.
//!
//! `qdq_operators.py` makes the graphs and runs them in the Python package `onnxruntime`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::ArrayD;
use serde::Deserialize;
use tempfile::TempDir;
use vitq::run::{Array, RunError, RunOptions, Runtime, load};

#[derive(Deserialize)]
struct Case {
    name: String,
    model: PathBuf,
    /// Greatest difference of floats; 0: bit for bit.
    tolerance: f32,
    /// Share of integers that may be one off.
    codes_off: f64,
    /// The outputs are the ONNX specification's, and ONNX Runtime's are others.
    #[cfg_attr(not(feature = "onnxruntime"), expect(dead_code))]
    specified: bool,
    inputs: Vec<Stored>,
    outputs: Vec<Stored>,
}

#[derive(Deserialize)]
struct Stored {
    name: String,
    file: PathBuf,
    dtype: String,
    dims: Vec<usize>,
}

impl Stored {
    fn read(&self, folder: &Path) -> Array {
        let bytes = fs::read(folder.join(&self.file)).unwrap();
        let dims = &self.dims;
        match self.dtype.as_str() {
            "float32" => elements(&bytes, dims, f32::from_le_bytes).into(),
            "int64" => elements(&bytes, dims, i64::from_le_bytes).into(),
            "int32" => elements(&bytes, dims, i32::from_le_bytes).into(),
            "uint8" => elements(&bytes, dims, u8::from_le_bytes).into(),
            other => panic!("{}: no array of {other}", self.name),
        }
    }
}

fn elements<T, const N: usize>(bytes: &[u8], dims: &[usize], read: fn([u8; N]) -> T) -> ArrayD<T> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    assert!(rest.is_empty());
    ArrayD::from_shape_vec(dims, chunks.iter().map(|&chunk| read(chunk)).collect()).unwrap()
}

fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python =
        std::env::var_os("VITQ_PYTHON").map_or(root.join(".venv/bin/python"), PathBuf::from);
    assert!(
        python.exists(),
        "{} is missing: this test needs a Python with numpy, onnx and onnxruntime there, or where \
         VITQ_PYTHON says",
        python.display()
    );
    python
}

/// Runs the script with further arguments and reads what it wrote.
fn cases(arguments: &[&Path]) -> (TempDir, Vec<Case>) {
    let folder = tempfile::tempdir().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/qdq_operators.py");
    let output = Command::new(python())
        .arg(script)
        .arg(folder.path())
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = fs::read(folder.path().join("cases.json")).unwrap();
    (folder, serde_json::from_slice(&listed).unwrap())
}

/// Runs a case; what differs, or how much at most.
fn judge(
    case: &Case,
    folder: &Path,
    runtime: Runtime,
    options: &RunOptions,
) -> Result<f32, String> {
    let model = fs::read(folder.join(&case.model)).unwrap();
    let feed: Vec<_> = case
        .inputs
        .iter()
        .map(|i| (i.name.clone(), i.read(folder)))
        .collect();
    let dims: Vec<_> = feed
        .iter()
        .map(|(n, a)| (n.clone(), a.dims().to_vec()))
        .collect();
    let executor = load(runtime, &model, &dims, &[], options).map_err(|e| e.to_string())?;
    let given = executor.run(&feed).map_err(|e| e.to_string())?;
    assert_eq!(given.len(), case.outputs.len());
    let mut worst = 0f32;
    for (output, given) in case.outputs.iter().zip(&given) {
        let expected = output.read(folder);
        let difference =
            compare(&expected, given, case).map_err(|e| format!("{}: {e}", output.name))?;
        worst = worst.max(difference);
    }
    Ok(worst)
}

fn compare(expected: &Array, given: &Array, case: &Case) -> Result<f32, String> {
    if expected.dims() != given.dims() {
        return Err(format!(
            "dims {:?} instead of {:?}",
            given.dims(),
            expected.dims()
        ));
    }
    match (expected, given) {
        (Array::F32(e), Array::F32(g)) => floats(e.iter().zip(g), case.tolerance),
        (Array::I32(e), Array::I32(g)) => codes(e.iter().zip(g), case.codes_off),
        (Array::U8(e), Array::U8(g)) => codes(e.iter().zip(g), case.codes_off),
        (e, g) => Err(format!("{} instead of {}", g.type_name(), e.type_name())),
    }
}

fn floats<'a>(
    pairs: impl Iterator<Item = (&'a f32, &'a f32)>,
    tolerance: f32,
) -> Result<f32, String> {
    let mut worst = 0f32;
    for (i, (e, g)) in pairs.enumerate() {
        let equal = e.to_bits() == g.to_bits() || (e.is_nan() && g.is_nan());
        let difference = if equal { 0.0 } else { (e - g).abs() };
        if !equal && (tolerance == 0.0 || difference.is_nan() || difference > tolerance) {
            return Err(format!("element {i} is {g:e}, not {e:e}"));
        }
        worst = worst.max(difference);
    }
    Ok(worst)
}

fn codes<'a, T: Copy + Into<i64> + 'a>(
    pairs: impl Iterator<Item = (&'a T, &'a T)>,
    may_be_off: f64,
) -> Result<f32, String> {
    let (mut count, mut off) = (0, 0);
    for (i, (&e, &g)) in pairs.enumerate() {
        let (e, g) = (e.into(), g.into());
        if e != g && (may_be_off == 0.0 || e.abs_diff(g) > 1) {
            return Err(format!("element {i} is {g}, not {e}"));
        }
        count += 1;
        off += usize::from(e != g);
    }
    let share = off as f64 / f64::from(count.max(1));
    if share > may_be_off {
        Err(format!("{off} of {count} codes are off"))
    } else {
        Ok(share as f32)
    }
}

fn all_agree(cases: &[Case], folder: &Path, runtime: Runtime, options: &RunOptions) {
    let mut wrong = vec![];
    let mut exact = 0;
    for case in cases {
        match judge(case, folder, runtime, options) {
            Ok(difference) => {
                exact += usize::from(difference == 0.0);
                if difference > 0.0 {
                    println!("{}: differs by up to {difference:.1e}", case.name);
                }
            }
            Err(why) => wrong.push(format!("{}: {why}", case.name)),
        }
    }
    println!(
        "{runtime}, optimise {}: {exact} of {} bit for bit",
        options.optimise,
        cases.len()
    );
    assert!(
        wrong.is_empty(),
        "{} cases are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn quantisation_in_tract_means_what_it_means_in_onnx_runtime() {
    let (folder, cases) = cases(&[]);
    assert!(cases.len() >= 180, "only {} cases", cases.len());
    for optimise in [true, false] {
        let options = RunOptions {
            optimise,
            ..RunOptions::default()
        };
        all_agree(&cases, folder.path(), Runtime::Tract, &options);
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
    all_agree(
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
    all_agree(
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
    let x = case.inputs[0].read(folder.path());
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
    let x = case.inputs[0].read(folder.path());
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
    let x = case.inputs[0].read(folder.path());
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
        all_agree(&cases, folder.path(), Runtime::OnnxRuntime, &options);
    }

    #[test]
    fn taps_follow_the_outputs() {
        taps_are_right(Runtime::OnnxRuntime);
    }
}
