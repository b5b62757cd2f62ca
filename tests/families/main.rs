//! Families of vision transformers, from the libraries' own code (`fixtures/families`): what is found is what the
//! architecture holds, the result runs and keeps its meaning, and the README's table tells the same.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

fn workspace(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn index() -> serde_json::Map<String, Value> {
    let text = fs::read_to_string(workspace("fixtures/families/index.json")).expect("the index");
    let index: Value = serde_json::from_str(&text).expect("the index is JSON");
    index["models"].as_object().expect("models").clone()
}

#[test]
fn every_family_holds() {
    let python = std::env::var_os("VITQ_PYTHON")
        .map_or_else(|| workspace(".venv/bin/python"), PathBuf::from);
    let output = Command::new(&python)
        .arg(workspace("tests/families/judge.py"))
        .arg(env!("CARGO_BIN_EXE_vitq"))
        .arg(workspace("fixtures/families"))
        .output()
        .unwrap_or_else(|error| {
            panic!(
                "{} doesn't start ({error}): this test needs Python with tests/requirements.txt; make .venv or name the \
                 interpreter in VITQ_PYTHON",
                python.display()
            )
        });
    let table = String::from_utf8_lossy(&output.stderr);
    println!("{table}");
    assert!(output.status.success(), "{table}");
    let complaints: BTreeMap<String, Vec<String>> =
        serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(complaints.len(), index().len());
    let failed: Vec<_> = complaints.iter().filter(|(_, c)| !c.is_empty()).collect();
    assert!(failed.is_empty(), "{table}");
}

/// One row of the README's table: everything that the index says of a family.
#[derive(Default)]
struct Row {
    libraries: BTreeSet<String>,
    exports: BTreeSet<String>,
    notes: BTreeSet<String>,
}

impl Row {
    fn add(&mut self, entry: &Value) {
        let text = |field: &str| entry[field].as_str().unwrap_or_default();
        self.libraries.insert(text("library").to_owned());
        let exporter = match text("exporter") {
            "torchscript" => "TorchScript",
            exporter => exporter,
        };
        let tool = match text("tool") {
            "" => String::new(),
            tool => format!(" + {tool}"),
        };
        self.exports
            .insert(format!("{exporter} {}{tool}", entry["opset"]));
        if let Some(why) = entry["differs"]["refused"][1].as_str() {
            self.notes.insert(match text("tool") {
                "" => format!("declined: {why}"),
                tool => format!("{tool}: declined, {why}"),
            });
            return;
        }
        let differs = entry["differs"].as_object();
        for (what, why) in differs.into_iter().flatten() {
            let why = why[1].as_str().unwrap_or_default();
            self.notes.insert(match what.as_str() {
                "tract" => format!("tract {why}"),
                "linears" | "qk" | "softmax_matmul" => format!("stays float: {why}"),
                "norm_linear" => format!("some norms are not folded: {why}"),
                _ => format!("{} stays float: {why}", what.replace('_', " ")),
            });
        }
    }
}

fn table() -> String {
    let mut rows: BTreeMap<String, Row> = BTreeMap::new();
    for entry in index().values() {
        let family = entry["family"].as_str().expect("a family").to_owned();
        rows.entry(family).or_default().add(entry);
    }
    let joined = |set: BTreeSet<String>| Vec::from_iter(set).join(", ");
    let mut table =
        "| family | code of | exported by | what differs |\n|---|---|---|---|\n".to_owned();
    for (family, row) in rows {
        let notes = Vec::from_iter(row.notes).join("; ");
        table += &format!(
            "| {family} | {} | {} | {notes} |\n",
            joined(row.libraries),
            joined(row.exports)
        );
    }
    table
}

/// `VITQ_UPDATE=1 cargo test --test families` writes the table anew.
#[test]
fn the_readme_tells_what_the_index_tells() {
    const START: &str = "<!-- families: written by tests/families/main.rs -->\n";
    const END: &str = "<!-- families end -->";
    let path = workspace("README.md");
    let readme = fs::read_to_string(&path).expect("README.md");
    let (before, rest) = readme.split_once(START).expect("the table's start");
    let (stored, after) = rest.split_once(END).expect("the table's end");
    if std::env::var_os("VITQ_UPDATE").is_some() {
        let updated = format!("{before}{START}{}{END}{after}", table());
        fs::write(&path, updated).expect("README.md is written");
        return;
    }
    assert_eq!(stored, table(), "out of date: run it with VITQ_UPDATE=1");
}
