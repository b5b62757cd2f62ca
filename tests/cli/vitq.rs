//! Runs the program on the digits fixture.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;
use vitq_onnx::{Model, SaveOptions};
use vitq_passes::ir::Graph;

/// How the images of the digits fixture were prepared in training.
pub const PREPROCESSING: [&str; 4] = ["--preprocess", "inception", "--resize", "32"];

/// A file of the fixture.
pub fn digits(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fixtures/digits")
        .join(file)
}

/// What a run of the program left behind.
pub struct Run {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Run {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

impl Run {
    /// Fails unless the program succeeded.
    #[track_caller]
    pub fn succeeds(self) -> Self {
        assert_eq!(self.code, Some(0), "{}\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails unless the program refused its input with one message that holds all these words.
    #[track_caller]
    pub fn refuses(self, words: &[&str]) {
        assert_eq!(self.code, Some(2), "{}\n{}", self.stdout, self.stderr);
        assert!(self.stderr.starts_with("error: "), "{}", self.stderr);
        assert_eq!(self.stdout, "", "nothing is printed as a result");
        for word in words {
            assert!(
                self.stderr.contains(word),
                "no {word:?} in: {}",
                self.stderr
            );
        }
    }
}

/// A folder for one test.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(TempDir::new().expect("a temporary folder"))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A path in the folder, as an argument.
    pub fn arg(&self, name: &str) -> String {
        text(&self.path(name))
    }

    /// Names in the folder, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.0.path()).expect("the folder is there");
        let mut names: Vec<String> = entries
            .map(|it| {
                it.expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }

    /// Saves a model under a name.
    pub fn save(&self, name: &str, model: &Model) -> PathBuf {
        let path = self.path(name);
        vitq_onnx::save(model, &path, &SaveOptions::default()).expect("the model is saved");
        path
    }

    /// Saves a model given in ONNX's textual syntax.
    pub fn parse(&self, name: &str, source: &str) -> PathBuf {
        self.save(
            name,
            &Graph::parse(source).expect("the text is a graph").export(),
        )
    }
}

/// A path as an argument.
pub fn text(path: &Path) -> String {
    path.to_str()
        .expect("a path of plain characters")
        .to_owned()
}

/// Runs `vitq` with these arguments.
pub fn vitq<I: AsRef<str>>(args: &[I]) -> Run {
    let args = args.iter().map(AsRef::as_ref);
    Command::new(env!("CARGO_BIN_EXE_vitq"))
        .args(args)
        .output()
        .expect("vitq starts")
        .into()
}

/// Runs `vitq quantize` on a model, calibrated on images or arrays, with further arguments.
pub fn quantize(model: &Path, calib: &Path, out: &Path, more: &[&str]) -> Run {
    let (model, calib, out) = (text(model), text(calib), text(out));
    let mut args = vec!["quantize", &model, "--calib", &calib, "-o", &out];
    args.extend(PREPROCESSING);
    args.extend(more);
    vitq(&args)
}

/// What a script beside this file prints as JSON.
pub fn python(script: &str, args: &[&Path]) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("VITQ_PYTHON")
        .map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    let script = root.join("tests/cli").join(script);
    let output = Command::new(&python).arg(script).args(args).output();
    let output = output.unwrap_or_else(|error| {
        panic!(
            "{} doesn't start ({error}): this test needs Python with tests/requirements.txt; make .venv or name the \
             interpreter in VITQ_PYTHON",
            python.display()
        )
    });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}
