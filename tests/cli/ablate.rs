//! What each part of the recipe is worth: the rows are those that `quantize` gives with the same parts.

use std::fs;

use serde_json::Value;

use super::vitq::{Folder, PREPROCESSING, digits, quantize, text, vitq};

/// Output SQNR of a `quantize` with these arguments, on the samples that calibration left over.
fn quantised(folder: &Folder, more: &[&str]) -> f64 {
    let report = folder.arg("report.json");
    let mut args = vec!["--quiet", "--report", &report];
    args.extend(more);
    let (model, calib) = (digits("model.onnx"), digits("images/calib"));
    quantize(&model, &calib, &folder.path("out.onnx"), &args).succeeds();
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    report["verification"]["outputs"][0]["sqnr_db"]
        .as_f64()
        .unwrap()
}

#[test]
fn a_row_is_what_quantize_gives_without_the_part() {
    let folder = Folder::new();
    let (model, calib) = (text(&digits("model.onnx")), text(&digits("images/calib")));
    let mut args = vec!["ablate", &model, "--calib", &calib, "--json", "--quiet"];
    args.extend(PREPROCESSING);
    args.extend(["--bits", "w3a4", "--without", "guard", "fold"]);
    let rows: Value = serde_json::from_str(&vitq(&args).succeeds().stdout).unwrap();
    let rows = rows.as_array().unwrap();
    assert_eq!(
        rows.len(),
        10,
        "all parts, and each of the nine left in: {rows:?}"
    );
    let db = |row: &Value| row["sqnr_db"].as_f64().unwrap();
    let of = |name: &str| db(rows.iter().find(|row| row["without"] == name).unwrap());
    assert!(rows[0]["without"].is_null());
    let left = ["--bits", "w3a4", "--without", "guard", "fold"];
    assert_eq!(db(&rows[0]), quantised(&folder, &left));
    let without = [&left[..], &["gptq"]].concat();
    assert_eq!(of("gptq"), quantised(&folder, &without));
    assert!(of("refit") != db(&rows[0]) && of("bias") != db(&rows[0]));
}

#[test]
fn a_part_that_does_not_exist_is_refused() {
    let (model, calib) = (text(&digits("model.onnx")), text(&digits("images/calib")));
    let args = ["ablate", &model, "--calib", &calib, "--without", "magic"];
    let run = vitq(&args);
    assert_eq!(run.code, Some(2));
    assert!(
        run.stderr.contains("magic") && run.stderr.contains("gptq"),
        "{}",
        run.stderr
    );
}
