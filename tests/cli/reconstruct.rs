//! Learning block by block, as a user meets it.

use std::fs;

use serde_json::Value;

use super::vitq::{Folder, PREPROCESSING, digits, quantize, text, vitq};

const NARROW: [&str; 6] = ["--bits", "w3a3", "--scope", "all", "--edge-bits", "8"];

/// The report of the fixture quantised so.
fn report(more: &[&str]) -> Value {
    let folder = Folder::new();
    let (out, report) = (folder.path("out.onnx"), folder.arg("report.json"));
    let args = [&NARROW[..], &["--samples", "8", "--report", &report], more].concat();
    quantize(&digits("model.onnx"), &digits("images/calib"), &out, &args).succeeds();
    assert!(out.exists());
    serde_json::from_slice(&fs::read(folder.path("report.json")).unwrap()).unwrap()
}

#[test]
fn the_report_says_what_each_block_learned() {
    let learned = report(&["--method", "reconstruct", "--block-steps", "20"]);
    let learned = &learned["reconstructed"];
    let blocks = learned["blocks"].as_array().unwrap();
    let names: Vec<&str> = blocks.iter().filter_map(|it| it["name"].as_str()).collect();
    assert_eq!(names.len(), 7, "{names:?}");
    assert_eq!((names[1], names[6]), ("blocks.0", "head"));
    for block in blocks {
        let kept = block["after"].as_f64() < block["before"].as_f64();
        assert_eq!(block["kept"].as_bool(), Some(kept), "{block}");
    }
    // Nine of ten of 64 images, one in eight of those held out.
    assert_eq!(learned["samples"], serde_json::json!([51, 7]));
    let kept = learned["after"].as_f64() < learned["before"].as_f64();
    assert_eq!(learned["kept"].as_bool(), Some(kept));
}

#[test]
fn aiqvit_keeps_to_its_share_of_the_work_and_its_branches_can_be_left_out() {
    let args = ["--method", "aiqvit", "--block-steps", "2"];
    let with = report(&[&args[..], &["--rank", "auto=5"]].concat());
    let macs = with["summary"]["low_rank"]["macs"].as_f64().unwrap();
    assert!(macs > 2.0 && macs <= 5.0, "{macs}");
    let without = [&args[..], &["--rank", "auto=5", "--without", "low-rank"]].concat();
    assert!(report(&without)["summary"]["low_rank"].is_null());
}

#[test]
fn an_ablation_tries_the_parts_of_the_method() {
    let (model, calib) = (text(&digits("model.onnx")), text(&digits("images/calib")));
    let mut args = vec!["ablate", &model, "--calib", &calib, "--json", "--quiet"];
    args.extend(PREPROCESSING);
    args.extend(NARROW);
    args.extend(["--samples", "8", "--method", "aiqvit", "--rank", "4"]);
    // Codebooks would leave the interval nothing to do.
    args.extend(["--codes", "uniform"]);
    args.extend(["--block-steps", "2", "--without", "rotation", "fold"]);
    args.extend(["migration", "margin", "sequential", "refit", "gptq"]);
    args.extend(["descent", "bias", "logarithm", "guard"]);
    let rows: Value = serde_json::from_str(&vitq(&args).succeeds().stdout).unwrap();
    let rows = rows.as_array().unwrap();
    let parts: Vec<Option<&str>> = rows.iter().map(|row| row["without"].as_str()).collect();
    let expected = [None, Some("low-rank"), Some("focusing"), Some("curriculum")];
    assert_eq!(parts, expected);
    let db = |i: usize| rows[i]["sqnr_db"].as_f64().unwrap();
    assert!(
        (1..4).all(|i| db(i) != db(0)),
        "every part does something: {rows:?}"
    );
}

#[test]
fn blocks_and_the_network_behind_them_go_on_from_their_files() {
    let folder = Folder::new();
    let (model, calib) = (text(&digits("model.onnx")), text(&digits("images/calib")));
    let checkpoint = folder.arg("so-far");
    let learn = |out: &str, more: &[&str]| {
        let out = folder.arg(out);
        let mut args = vec!["train", &model, "--calib", &calib, "-o", &out, "--quiet"];
        args.extend(PREPROCESSING);
        args.extend(NARROW);
        args.extend(["--samples", "8", "--method", "reconstruct"]);
        args.extend(["--block-steps", "3", "--steps", "4"]);
        args.extend(["--checkpoint", &checkpoint]);
        args.extend(more);
        vitq(&args)
    };
    learn("whole.onnx", &[]).succeeds();
    learn("again.onnx", &["--resume"]).succeeds();
    let file = |name: &str| fs::read(folder.path(name)).unwrap();
    assert!(file("whole.onnx") == file("again.onnx"));
    assert_ne!(file("so-far"), file("so-far.blocks"));
    learn("other.onnx", &["--resume", "--seed", "3"]).refuses(&["so-far.blocks", "other options"]);
}

#[test]
fn budgets_and_unknown_methods_are_refused() {
    let folder = Folder::new();
    for (more, word) in [
        (
            &["--method", "reconstruct", "--budget", "size=0.3"][..],
            "--budget",
        ),
        (&["--method", "magic"], "aiqvit"),
        (&["--rank", "auto=0"], "percent"),
        (&["--checkpoint", "so-far"], "vitq train"),
    ] {
        let out = folder.path("out.onnx");
        quantize(&digits("model.onnx"), &digits("images/calib"), &out, more).refuses(&[word]);
    }
    assert!(folder.names().is_empty());
}
