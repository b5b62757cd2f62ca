//! Runs the Python packages that these tests judge by: onnx, numpy, onnxruntime.

#![allow(dead_code)] // every test file uses its part

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Runs `tests/python/<script>` and returns what it printed; a failure there fails the test.
pub fn python(script: &str, arguments: &[&Path]) -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter =
        env::var_os("VITQ_PYTHON").map_or_else(|| root.join("../.venv/bin/python"), PathBuf::from);
    let output = Command::new(&interpreter)
        .arg(root.join("tests/python").join(script))
        .args(arguments)
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{}: {error}; these tests need Python with onnx, numpy and onnxruntime: \
                 make .venv at the root of the repository or set VITQ_PYTHON",
                interpreter.display()
            )
        });
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success(),
        "{script} failed\n{printed}\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    printed
}

/// A folder that vanishes with the test.
pub fn folder() -> TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// Names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}
