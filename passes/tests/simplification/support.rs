//! Graphs in and out of files, and the judge.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;
use vitq_onnx::SaveOptions;
use vitq_passes::check::check;
use vitq_passes::ir::Graph;

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Asks `judge.py`; what it prints.
pub fn judge(arguments: &[&Path]) -> String {
    let python = std::env::var_os("VITQ_PYTHON")
        .map_or_else(|| root().join(".venv/bin/python"), PathBuf::from);
    let judge = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/simplification/judge.py");
    let output = Command::new(&python)
        .arg(judge)
        .args(arguments)
        .output()
        .unwrap_or_else(|e| {
            let python = python.display();
            panic!("{python} does not start: {e}; run ./test once, or name a Python in VITQ_PYTHON")
        });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("the judge prints text")
}

/// The graph of a text.
pub fn parse(text: &str) -> Graph {
    Graph::parse(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The graph of a file.
pub fn load(path: &Path) -> Graph {
    let loaded = vitq_onnx::load(path).unwrap_or_else(|e| panic!("{e}"));
    Graph::import(&loaded.model).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Writes the graph to a file of that name.
pub fn save(graph: &Graph, folder: &TempDir, name: &str) -> PathBuf {
    check(graph).unwrap_or_else(|faults| panic!("{faults:?}"));
    let path = folder.path().join(name);
    vitq_onnx::save(&graph.export(), &path, &SaveOptions::default()).expect("the model is saved");
    path
}

/// Largest relative difference between the outputs of two models in ONNX Runtime, of each pair.
pub fn differences(pairs: &[(PathBuf, PathBuf)]) -> Vec<f64> {
    let mut arguments = vec![Path::new("equal")];
    arguments.extend(
        pairs
            .iter()
            .flat_map(|(before, after)| [before.as_path(), after]),
    );
    let printed = judge(&arguments);
    let differences: Vec<f64> = printed
        .lines()
        .map(|l| l.parse().expect("a number"))
        .collect();
    assert_eq!(differences.len(), pairs.len());
    differences
}

/// Every export of the fixtures, by name.
pub fn exports() -> Vec<PathBuf> {
    let folder = root().join("fixtures/exports");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("the fixtures are there")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "onnx"))
        .collect();
    paths.push(root().join("fixtures/digits/model.onnx"));
    paths.sort();
    assert!(paths.len() > 20, "fixtures are missing: {paths:?}");
    paths
}
