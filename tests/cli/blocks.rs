//! Weights alone, with a scale for each block of inputs: judged by ONNX Runtime.

use std::fs;

use serde_json::Value;

use super::vitq::{Folder, digits, python, quantize, text, vitq};

/// Quantises the weights of the fixture; gives the report, ONNX Runtime's dB and the file's bytes.
fn make(more: &[&str]) -> (Value, f64, u64) {
    let folder = Folder::new();
    let (out, report) = (folder.path("out.onnx"), folder.arg("report.json"));
    let args = [&["--bits", "w3a16", "--report", &report][..], more].concat();
    quantize(&digits("model.onnx"), &digits("images/calib"), &out, &args).succeeds();
    let judged = python(
        "judge.py",
        &[&digits("model.onnx"), &out, &digits("images/test")],
    );
    let report = serde_json::from_slice(&fs::read(folder.path("report.json")).unwrap()).unwrap();
    let bytes = fs::metadata(out).unwrap().len();
    (report, judged["sqnr_db"].as_f64().unwrap(), bytes)
}

fn forms(report: &Value) -> Vec<String> {
    let forms = report["summary"]["forms"].as_object().unwrap();
    forms.keys().cloned().collect()
}

#[test]
fn blocks_err_less_than_rows_and_the_report_names_them() {
    let (plain, before, small) = make(&["--codes", "uniform"]);
    let (blocked, after, large) = make(&["--block", "32"]);
    println!("{before} dB in {small} bytes, blocks {after} dB in {large}");
    assert!(after > before && large > small, "{before}, {after} dB");
    let [plain, named] = [&plain, &blocked].map(forms);
    assert!(plain.iter().all(|it| !it.contains("blocks")), "{plain:?}");
    let found = |it: &String| it == "w3 uniform, blocks of 32, a16 float";
    assert!(named.iter().any(found), "{named:?}");
    assert_eq!(blocked["settings"]["block"], "32");
    let advice = blocked["summary"]["weight_only"].as_str().unwrap();
    assert!(advice.contains("accuracy_level"), "{advice}");
}

/// 64 inputs are no more than a block of 64; the 256 of fc2 are.
#[test]
fn sites_without_blocks_say_why() {
    let (report, ..) = make(&["--block", "64", "--scope", "all"]);
    for site in report["sites"].as_array().unwrap() {
        let (form, path) = (
            site["form"].as_str().unwrap(),
            site["path"].as_str().unwrap(),
        );
        if form == "float" {
            continue;
        }
        let note = site["note"].as_str().unwrap_or_default();
        assert_eq!(
            form.contains("blocks of 64"),
            path.contains("fc2"),
            "{site}"
        );
        assert_eq!(
            note.contains("a scale an output channel"),
            !path.contains("fc2"),
            "{site}"
        );
    }
}

/// The budget is that of the very file, blocks included.
#[test]
fn blocks_are_weighed() {
    let (report, _, bytes) = make(&["--block", "32", "--budget", "size=0.25"]);
    let budget = &report["budget"];
    assert_eq!(budget["bytes"].as_u64(), Some(bytes));
    let float = fs::metadata(digits("model.onnx")).unwrap().len();
    assert!(bytes <= float / 4, "{bytes} of {float}");
    assert!(
        forms(&report).iter().any(|it| it.contains("blocks of 32")),
        "{report}"
    );
}

#[test]
fn blocks_that_cannot_be_had_are_refused() {
    let folder = Folder::new();
    let (model, calib, out) = (
        digits("model.onnx"),
        digits("images/calib"),
        folder.path("out.onnx"),
    );
    let alone = ["--bits", "w4a16", "--block", "32"];
    for (more, words) in [
        (&["--block", "48"][..], &["48", "32, 64 or 128"][..]),
        (&["--block", "wide"], &["32, 64 or 128"]),
        (&["--block", "32"], &["--block 32", "--bits w4a16 or w8a16"]),
        (&["--block", "32", "--bits", "w4a8"], &["--bits w4a16"]),
        (
            &[&alone[..], &["--codes", "codebook"]].concat(),
            &["--codes codebook"],
        ),
        (
            &[&alone[..], &["--target", "portable"]].concat(),
            &["site `", "portable", "--block", "--target onnxruntime"],
        ),
        (
            &[&alone[..], &["--target", "tract"]].concat(),
            &["tract", "--target onnxruntime"],
        ),
    ] {
        quantize(&model, &calib, &out, more).refuses(words);
    }
    assert!(folder.names().is_empty());

    let (model, calib, plan) = (text(&model), text(&calib), folder.arg("vit.plan.json"));
    let plan_args = ["plan", &model, "--calib", &calib, "-o", &plan, "--quiet"];
    vitq(&[&plan_args[..], &alone].concat()).succeeds();
    let out = text(&out);
    let apply = |target: &str| vitq(&["apply", &model, &plan, "-o", &out, "--target", target]);
    apply("portable").refuses(&["site `", "--block", "--target onnxruntime"]);
    let json = fs::read_to_string(&plan).unwrap();
    fs::write(&plan, json.replace("\"block\": 32", "\"block\": 24")).unwrap();
    apply("onnxruntime").refuses(&["blocks of 24", "vitq plan"]);
    fs::write(&plan, json).unwrap();
    apply("onnxruntime").succeeds();
}
