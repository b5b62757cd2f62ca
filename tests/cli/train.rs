//! Learning, as a user meets it.

use std::fs;

use serde_json::Value;

use super::vitq::{Folder, PREPROCESSING, Run, digits, quantize, text, vitq};

fn train(folder: &Folder, more: &[&str]) -> Run {
    let (model, calib) = (text(&digits("model.onnx")), text(&digits("images/calib")));
    let out = folder.arg("out.onnx");
    let mut args = vec!["train", &model, "--calib", &calib, "-o", &out];
    args.extend(PREPROCESSING);
    args.extend(more);
    vitq(&args)
}

#[test]
fn a_model_that_learned_is_written_with_its_course() {
    let folder = Folder::new();
    let (report, log, plot) = (
        folder.arg("report.json"),
        folder.arg("course.csv"),
        folder.arg("course.svg"),
    );
    let files = ["--report", &report, "--log", &log, "--plot", &plot];
    let args = [
        "--bits",
        "w2a2",
        "--edge-bits",
        "8",
        "--scope",
        "all",
        "--steps",
        "60",
        "--rate",
        "4",
        "--learn-levels",
    ];
    let run = train(&folder, &[&args[..], &files].concat()).succeeds();
    assert!(
        run.stdout.contains("learned for 60 steps"),
        "{}",
        run.stdout
    );
    let report: Value = serde_json::from_slice(&fs::read(&report).unwrap()).unwrap();
    let checks = report["learned"]["checks"].as_array().unwrap();
    let held_out = |check: Option<&Value>| check.unwrap()["held_out"].as_f64().unwrap();
    assert_eq!(report["learned"]["kept"], true);
    assert!(held_out(checks.last()) < held_out(checks.first()));
    let log = fs::read_to_string(log).unwrap();
    assert_eq!(log.lines().count(), checks.len() + 1);
    assert!(log.starts_with("step,loss,held_out,agreement,oscillation\n0,,"));
    assert!(fs::read_to_string(plot).unwrap().starts_with("<svg"));
}

#[test]
fn what_would_be_lost_or_misjudged_is_refused_before_the_work() {
    let folder = Folder::new();
    let out = folder.arg("out.onnx");
    let run = train(&folder, &["--log", &out]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("out.onnx"), "{}", run.stderr);
    let run = train(&folder, &["--budget", "drop=5"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("size="), "{}", run.stderr);
    assert!(!folder.path("out.onnx").exists());
}

#[test]
fn one_image_to_learn_from_is_refused() {
    let folder = Folder::new();
    let run = train(&folder, &["--learn-samples", "1", "--bits", "w4a4"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("at least 2 samples"), "{}", run.stderr);
    assert!(!folder.path("out.onnx").exists());
}

#[cfg(not(feature = "cuda"))]
#[test]
fn a_build_without_a_gpu_says_so_before_the_work() {
    let folder = Folder::new();
    let run = train(&folder, &["--device", "cuda"]);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("--features cuda"), "{}", run.stderr);
    assert!(!folder.path("out.onnx").exists());
}

#[test]
fn a_device_where_nothing_learns_is_refused() {
    let folder = Folder::new();
    let out = folder.path("out.onnx");
    let more = ["--device", "cuda"];
    let run = quantize(&digits("model.onnx"), &digits("images/calib"), &out, &more);
    assert_eq!(run.code, Some(2));
    assert!(run.stderr.contains("--method"), "{}", run.stderr);
    assert!(!out.exists());
}
