//! Low-rank branches beside rounded weights, judged by ONNX Runtime.

use std::fs;

use serde_json::Value;

use super::vitq::{Folder, digits, python, quantize};

/// Quantises the fixture; gives the report, the judge's view, and the file's bytes.
fn make(more: &[&str]) -> (Value, f64, u64) {
    let folder = Folder::new();
    let (out, report) = (folder.path("out.onnx"), folder.arg("report.json"));
    let args = [&["--bits", "w3a8", "--report", &report][..], more].concat();
    quantize(&digits("model.onnx"), &digits("images/calib"), &out, &args).succeeds();
    let judged = python(
        "judge.py",
        &[&digits("model.onnx"), &out, &digits("images/test")],
    );
    let report = serde_json::from_slice(&fs::read(folder.path("report.json")).unwrap()).unwrap();
    let bytes = fs::metadata(out).unwrap().len();
    (report, judged["sqnr_db"].as_f64().unwrap(), bytes)
}

#[test]
fn branches_take_error_away_and_the_report_says_at_what_price() {
    let (plain, before, small) = make(&[]);
    assert!(plain["summary"]["low_rank"].is_null());
    let (fixed, after, large) = make(&["--rank", "8"]);
    println!("{before} dB, rank 8 {after} dB");
    assert!(after > before && large > small, "{before}, {after} dB");
    let (_, of_floats, largest) = make(&["--rank", "8", "--branch-bits", "32"]);
    println!("in floats {of_floats} dB");
    // Their rounding is 40 dB below what they carry.
    assert!(of_floats - after < 2.0, "{of_floats}, {after} dB");
    println!("{small}, {large} and {largest} bytes");
    assert!(largest > large, "{large} and {largest} bytes");
    let summary = &fixed["summary"]["low_rank"];
    assert_eq!(
        (&summary["branches"], &summary["least"], &summary["most"]),
        (&21.into(), &8.into(), &8.into())
    );
    let gain = summary["gain_db"].as_f64().unwrap();
    assert!(gain > 0.5, "{summary}");
    let forms = fixed["summary"]["forms"].as_object().unwrap();
    assert!(
        forms.keys().any(|form| form.ends_with("+ rank 8")),
        "{forms:?}"
    );
    for site in fixed["sites"].as_array().unwrap() {
        let branch = &site["low_rank"];
        let narrow = site["form"].as_str().unwrap().starts_with("w3");
        assert_eq!(branch.is_null(), !narrow, "{site}");
    }
}

#[test]
fn auto_keeps_to_its_share_of_the_work() {
    let (report, ..) = make(&["--rank", "auto"]);
    let summary = &report["summary"]["low_rank"];
    let macs = summary["macs"].as_f64().unwrap();
    assert!(macs > 1.0 && macs <= 2.0, "{summary}");
    assert_eq!(report["settings"]["rank"], "auto");
}

#[test]
fn wrong_ranks_are_refused() {
    let folder = Folder::new();
    for (more, word) in [
        (&["--rank", "many"][..], "auto"),
        (&["--rank=-1"], "--rank"),
        (&["--rank", "4", "--branch-bits", "7"], "8 or 32"),
        (&["--rank", "4", "--budget", "size=0.3"], "--budget"),
    ] {
        let out = folder.path("out.onnx");
        quantize(&digits("model.onnx"), &digits("images/calib"), &out, more).refuses(&[word]);
    }
    assert!(folder.names().is_empty());
}
