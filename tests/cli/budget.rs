//! Widths chosen for a budget: the file is weighed, and judged by ONNX Runtime, next to one width for all sites.

use std::fs;

use serde_json::Value;

use super::vitq::{Folder, Run, digits, python, quantize, text};

/// Quantises the fixture; gives what was printed.
fn run(folder: &Folder, more: &[&str]) -> Run {
    let report = folder.arg("report.json");
    let mut args = vec!["--report", &report];
    args.extend(more);
    quantize(
        &digits("model.onnx"),
        &digits("images/calib"),
        &folder.path("out.onnx"),
        &args,
    )
}

/// A quantised fixture: its report, its bytes, and ONNX Runtime's figures.
struct Made {
    report: Value,
    bytes: u64,
    judged: Value,
}

fn make(more: &[&str]) -> Made {
    let folder = Folder::new();
    let printed = run(&folder, more).succeeds().stdout;
    let out = folder.path("out.onnx");
    let report: Value =
        serde_json::from_slice(&fs::read(folder.path("report.json")).unwrap()).unwrap();
    let asked = report["budget"]["budget"].as_str();
    assert_eq!(
        asked.is_some_and(|budget| printed.contains(&format!("budget {budget}: "))),
        asked.is_some(),
        "{printed}"
    );
    Made {
        judged: python(
            "judge.py",
            &[&digits("model.onnx"), &out, &digits("images/test")],
        ),
        bytes: fs::metadata(out).unwrap().len(),
        report,
    }
}

fn number(value: &Value, key: &str) -> f64 {
    value[key]
        .as_f64()
        .unwrap_or_else(|| panic!("no number {key} in {value}"))
}

fn widths(made: &Made) -> Vec<(String, u64)> {
    let widths = made.report["budget"]["widths"].as_object().unwrap();
    let count = |count: &Value| count.as_u64().unwrap();
    widths.iter().map(|(w, n)| (w.clone(), count(n))).collect()
}

#[test]
fn in_the_room_of_four_bits_mixed_widths_err_less() {
    let uniform = make(&["--bits", "w4a8"]);
    assert!(uniform.report["budget"].is_null());
    let mixed = make(&["--budget", &format!("size={}B", uniform.bytes)]);
    assert!(mixed.bytes <= uniform.bytes);
    let (before, after) = (
        number(&uniform.judged, "sqnr_db"),
        number(&mixed.judged, "sqnr_db"),
    );
    println!("{before} dB, mixed {after} dB");
    assert!(after > before, "{before} dB, mixed {after} dB");
    let budget = &mixed.report["budget"];
    assert_eq!(number(budget, "bytes"), mixed.bytes as f64);
    let (predicted, bound) = (
        number(budget, "predicted_sqnr_db"),
        number(budget, "bound_sqnr_db"),
    );
    assert!(predicted <= bound && bound - predicted < 1.0, "{budget}");
    assert!((predicted - after).abs() < 6.0, "{budget}, {after} dB");
    // The patch embedding makes room, too.
    assert_eq!(widths(&mixed).iter().map(|(_, n)| n).sum::<u64>(), 22);
}

#[test]
fn more_room_is_filled_and_never_exceeded() {
    let float = fs::metadata(digits("model.onnx")).unwrap().len();
    let mut before = (0, 0.0);
    for part in [0.245, 0.27, 0.31, 0.6] {
        let made = make(&["--budget", &format!("size={part}")]);
        assert!(made.bytes as f64 <= part * float as f64, "{part}");
        let predicted = number(&made.report["budget"], "predicted_sqnr_db");
        assert!(made.bytes > before.0 && predicted > before.1, "{part}");
        before = (made.bytes, predicted);
    }
}

#[test]
fn the_smallest_good_file_is_looked_for_on_samples_held_out() {
    for (budget, key, bar) in [("sqnr=37", "sqnr_db", 37.0), ("drop=5", "agreement", 95.0)] {
        let made = make(&["--samples", "16", "--budget", budget]);
        let report = &made.report["budget"];
        let trials = report["trials"].as_array().unwrap();
        for trial in trials {
            let kept = number(trial, key) >= bar;
            assert_eq!(trial["kept"], kept, "{trial}");
        }
        let smallest = trials
            .iter()
            .filter(|trial| trial["kept"] == true)
            .map(|trial| number(trial, "bytes"))
            .min_by(f64::total_cmp);
        assert_eq!(smallest, Some(made.bytes as f64), "{report}");
        let samples = report["held_out"].as_str().unwrap();
        assert!(samples.contains("17 to 64"), "{samples}");
        // Other images: not bound to the bar, but near it.
        assert!(number(&made.judged, key) > bar - 3.0, "{}", made.judged);
    }
}

#[test]
fn a_speed_leaves_as_much_float_as_it_can() {
    let mut before = f64::INFINITY;
    for speedup in [1.2, 1.4] {
        let made = make(&["--budget", &format!("speedup={speedup}")]);
        let report = &made.report["budget"];
        let predicted = number(report, "predicted_speedup");
        assert!(
            (speedup..speedup + 0.05).contains(&predicted),
            "{predicted}"
        );
        let db = number(report, "predicted_sqnr_db");
        assert!(db < before, "more speed for nothing");
        before = db;
        let float = widths(&made).into_iter().find(|(w, _)| w == "float");
        let left = number(&made.report["summary"], "left_float");
        assert_eq!(float.map(|(_, n)| n as f64), Some(left));
    }
}

#[test]
fn the_choice_does_not_depend_on_the_number_of_threads() {
    let bytes = |threads: &str| {
        let folder = Folder::new();
        let budget = ["--budget", "size=0.26", "--samples", "7"];
        run(&folder, &[&budget[..], &["--threads", threads]].concat()).succeeds();
        fs::read(folder.path("out.onnx")).unwrap()
    };
    assert!(bytes("1") == bytes("2"));
}

#[test]
fn what_cannot_be_kept_is_refused_with_what_can() {
    let folder = Folder::new();
    for (more, words) in [
        (
            &["--budget", "size=10kB"][..],
            &["10000B", "has 2", "of the float file"][..],
        ),
        (
            &["--budget", "size=0.25", "--codes", "uniform"],
            &["8-bit weights"],
        ),
        (&["--budget", "sqnr=90"], &["sqnr=90", "reach sqnr="]),
        (
            &["--budget", "drop=1", "--samples", "64"],
            &["leaves over", "--samples"],
        ),
        (&["--budget", "speedup=9"], &["predicts 1."]),
        (
            &["--budget", "speedup=1.2", "--bits", "w4a4"],
            &["codebooks of activations"],
        ),
        (&["--budget", "size=7"], &["size=0.4", "size=3MB"]),
        (&["--budget", "fast"], &["drop=2", "speedup=1.8"]),
    ] {
        run(&folder, more).refuses(words);
        assert!(folder.names().is_empty(), "something was left behind");
    }
    let plan = folder.arg("plan.json");
    let (model, calib) = (text(&digits("model.onnx")), text(&digits("images/calib")));
    let args = [
        "plan",
        &model,
        "--calib",
        &calib,
        "-o",
        &plan,
        "--budget",
        "size=0.26",
    ];
    let args = [&args[..], &super::vitq::PREPROCESSING[..]].concat();
    let printed = super::vitq::vitq(&args).succeeds().stdout;
    assert!(printed.contains("budget size=0.26: "), "{printed}");
}
