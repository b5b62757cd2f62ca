//! The main job on the digits fixture, judged by ONNX Runtime, the ONNX checker, Pillow and NumPy.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::vitq::{Folder, PREPROCESSING, digits, python, quantize, text, vitq};

fn model() -> PathBuf {
    digits("model.onnx")
}

fn images() -> PathBuf {
    digits("images/test")
}

/// What ONNX Runtime makes of a quantised model.
fn judge(quantised: &Path) -> Value {
    python("judge.py", &[&model(), quantised, &images()])
}

fn number(value: &Value, key: &str) -> f64 {
    value[key]
        .as_f64()
        .unwrap_or_else(|| panic!("no number {key} in {value}"))
}

/// Quantises with verification and report; gives the report and the judge's view.
fn quantised(folder: &Folder, more: &[&str]) -> (Value, Value) {
    let (eval, report) = (text(&images()), folder.arg("report.json"));
    let mut args = vec!["--eval", &eval, "--report", &report];
    args.extend(more);
    quantize(
        &model(),
        &digits("images/calib"),
        &folder.path("out.onnx"),
        &args,
    )
    .succeeds();
    let report = serde_json::from_slice(&fs::read(folder.path("report.json")).unwrap()).unwrap();
    (report, judge(&folder.path("out.onnx")))
}

/// The report's figures, which tract gave, are those of ONNX Runtime.
fn reported_truly(report: &Value, judged: &Value) {
    let verification = &report["verification"];
    let classifier = &verification["classifier"];
    assert_eq!(number(verification, "samples"), number(judged, "samples"));
    assert!(
        (number(&classifier["float"], "top1") - number(judged, "float_top1")).abs() < 1e-9,
        "{report}"
    );
    assert!(
        (number(&classifier["quantised"], "top1") - number(judged, "top1")).abs() < 1.0,
        "{report} {judged}"
    );
    assert!(
        (number(classifier, "agreement") - number(judged, "agreement")).abs() < 1.0,
        "{report} {judged}"
    );
    assert!(
        (number(&verification["outputs"][0], "sqnr_db") - number(judged, "sqnr_db")).abs() < 3.0,
        "{report} {judged}"
    );
}

#[test]
fn w8a8_does_its_job_in_onnx_runtime() {
    let folder = Folder::new();
    let (report, judged) = quantised(&folder, &[]);
    println!("{judged}");
    reported_truly(&report, &judged);
    assert!(
        (number(&judged, "float_top1") - 100.0 * 358.0 / 360.0).abs() < 1e-9,
        "the fixture's README says 358 of 360"
    );
    assert!(number(&judged, "agreement") >= 99.0, "{judged}");
    assert!(number(&judged, "sqnr_db") >= 30.0, "{judged}");
    assert_eq!(judged["same_inputs"], true);
    assert_eq!(judged["same_outputs"], true);
    let summary = &report["summary"];
    assert_eq!(number(summary, "linears"), 21.0);
    assert_eq!(
        number(&judged, "int8_weights"),
        number(summary, "linears") - number(summary, "left_float")
    );
    assert_eq!(
        number(&report["output"], "bytes") as u64,
        fs::metadata(folder.path("out.onnx")).unwrap().len()
    );
    assert!(
        number(&report["output"], "bytes") < 0.45 * number(&report["model"], "bytes"),
        "{report}"
    );
    assert_eq!(folder.names(), ["out.onnx", "report.json"]);
}

#[test]
fn w4a4_of_everything_still_reads_digits() {
    let folder = Folder::new();
    let (report, judged) = quantised(&folder, &["--bits", "w4a4", "--scope", "all"]);
    println!("{judged}");
    reported_truly(&report, &judged);
    assert!(number(&judged, "agreement") >= 90.0, "{judged}");
}

#[test]
fn the_bytes_depend_on_the_input_alone() {
    let folder = Folder::new();
    let run = |out: &str, more: &[&str]| {
        quantize(&model(), &digits("images/calib"), &folder.path(out), more).succeeds();
        fs::read(folder.path(out)).unwrap()
    };
    let one = run("one.onnx", &["--threads", "1"]);
    assert!(
        one == run("three.onnx", &["--threads", "3"]),
        "the number of threads shows in the output"
    );

    let (plan, calib) = (folder.arg("plan.json"), text(&digits("images/calib")));
    let mut args = vec![
        "plan".to_owned(),
        text(&model()),
        "--calib".into(),
        calib,
        "-o".into(),
        plan.clone(),
    ];
    args.extend(PREPROCESSING.map(str::to_owned));
    vitq(&args).succeeds();
    vitq(&[
        "apply",
        &text(&model()),
        &plan,
        "-o",
        &folder.arg("applied.onnx"),
    ])
    .succeeds();
    assert!(
        one == fs::read(folder.path("applied.onnx")).unwrap(),
        "plan and apply are not quantize"
    );
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/exports/gemm.onnx");
    vitq(&[
        "apply",
        &text(&other),
        &plan,
        "-o",
        &folder.arg("other.onnx"),
    ])
    .refuses(&["plan.json", "gemm.onnx"]);
}

#[test]
fn sites_stay_float_on_demand() {
    let folder = Folder::new();
    let (report, judged) = quantised(
        &folder,
        &[
            "--keep-float",
            "blocks.1.mlp.fc2",
            "--keep-float",
            "blocks.0.attn.qkv",
        ],
    );
    assert_eq!(number(&judged, "int8_weights"), 19.0);
    assert_eq!(number(&report["summary"], "left_float"), 2.0);
}

#[test]
fn verify_holds_the_result_against_bars() {
    let folder = Folder::new();
    quantize(
        &model(),
        &digits("images/calib"),
        &folder.path("out.onnx"),
        &["--quiet"],
    )
    .succeeds();
    let run = |more: &[&str]| {
        let (float, quantised, data) = (text(&model()), folder.arg("out.onnx"), text(&images()));
        let mut args = vec![
            "verify",
            &float,
            &quantised,
            "--data",
            &data,
            "--samples",
            "40",
        ];
        args.extend(PREPROCESSING);
        args.extend(more);
        vitq(&args)
    };
    let met = run(&["--min-agreement", "90", "--min-sqnr", "10", "--json"]).succeeds();
    let json: Value = serde_json::from_str(&met.stdout).expect("JSON");
    assert_eq!(number(&json, "samples"), 40.0);
    for (option, bar) in [("--min-sqnr", "90"), ("--min-agreement", "100")] {
        let missed = run(&[option, bar]);
        let perfect =
            option == "--min-agreement" && number(&json["classifier"], "agreement") == 100.0;
        assert_eq!(
            missed.code,
            Some(if perfect { 0 } else { 1 }),
            "{}",
            missed.stderr
        );
        assert_eq!(
            missed.stderr.contains(option),
            !perfect,
            "{}",
            missed.stderr
        );
    }
    run(&["--min-agreement", "0.96"]).refuses(&["--min-agreement", "96"]);
    let other = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/exports/gemm.onnx");
    let same = vitq(&[
        "verify",
        &text(&model()),
        &text(&model()),
        "--data",
        &text(&images()),
        "--samples",
        "4",
    ])
    .succeeds();
    assert!(same.stdout.contains("no difference"), "{}", same.stdout);
    vitq(&[
        "verify",
        &text(&model()),
        &text(&other),
        "--data",
        &text(&images()),
        "--samples",
        "4",
    ])
    .refuses(&["cannot be compared", "model.onnx", "gemm.onnx"]);
}

#[test]
fn inspect_names_what_keep_float_takes() {
    let shown = vitq(&["inspect", &text(&model())]).succeeds().stdout;
    assert!(
        shown.contains("5 blocks") && shown.contains("blocks.4"),
        "{shown}"
    );
    let json: Value = serde_json::from_str(
        &vitq(&["inspect", &text(&model()), "--json"])
            .succeeds()
            .stdout,
    )
    .unwrap();
    assert_eq!(
        json["structure"]["blocks"].as_array().map(Vec::len),
        Some(5)
    );
}

/// The figures of `vitq verify --runtime onnxruntime` are those of ONNX Runtime behind Python.
#[cfg(feature = "onnxruntime")]
#[test]
fn verify_in_onnx_runtime_itself() {
    let folder = Folder::new();
    quantize(
        &model(),
        &digits("images/calib"),
        &folder.path("out.onnx"),
        &["--quiet"],
    )
    .succeeds();
    let judged = judge(&folder.path("out.onnx"));
    let run = verify_in_onnx_runtime(&folder.arg("out.onnx")).succeeds();
    let json: Value = serde_json::from_str(&run.stdout).expect("JSON");
    assert_eq!(
        number(&json["classifier"], "agreement"),
        number(&judged, "agreement")
    );
    // Another batch size gives other kernels and, through them, other roundings.
    assert!(
        (number(&json["outputs"][0], "sqnr_db") - number(&judged, "sqnr_db")).abs() < 1.0,
        "{json} {judged}"
    );
}

#[cfg(not(feature = "onnxruntime"))]
#[test]
fn verify_in_onnx_runtime_names_what_it_needs() {
    verify_in_onnx_runtime(&text(&model())).refuses(&["cargo feature `onnxruntime`"]);
}

fn verify_in_onnx_runtime(quantised: &str) -> super::vitq::Run {
    let (float, data) = (text(&model()), text(&images()));
    let mut args = vec![
        "verify",
        &float,
        quantised,
        "--data",
        &data,
        "--runtime",
        "onnxruntime",
        "--json",
    ];
    args.extend(PREPROCESSING);
    vitq(&args)
}
