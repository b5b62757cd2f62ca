//! Runs a Python program of this folder that makes files and says what they should be read as.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// Runs `tests/input/PROGRAM` with a new folder as its argument; the folder lives as long as the value.
pub fn run(program: &str) -> TempDir {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = TempDir::new().expect("a temporary folder");
    let python = std::env::var_os("VITQ_PYTHON")
        .map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    let output = Command::new(&python)
        .arg(root.join("tests/input").join(program))
        .arg(folder.path())
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{} doesn't start ({error}): these tests need Python with numpy, pillow and safetensors; \
                 make .venv or name the interpreter in VITQ_PYTHON",
                python.display()
            )
        });
    assert!(
        output.status.success(),
        "{program}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    folder
}
