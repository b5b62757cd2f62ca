//! What makes a model hard to quantise: held against `vitq sensitivity`, and against itself.

use std::fs;

use serde_json::Value;

use super::vitq::{Folder, PREPROCESSING, digits, text, vitq};

fn run(command: &str, more: &[&str]) -> String {
    let (model, calib) = (text(&digits("model.onnx")), text(&digits("images/calib")));
    let mut args = vec![command, &model, "--calib", &calib, "--samples", "8"];
    args.extend(PREPROCESSING);
    args.extend(more);
    vitq(&args).succeeds().stdout
}

fn sites(folder: &Folder, name: &str) -> Vec<Value> {
    let json: Value = serde_json::from_slice(&fs::read(folder.path(name)).unwrap()).unwrap();
    json["sites"].as_array().unwrap().clone()
}

#[test]
fn sites_cost_what_sensitivity_says_and_heads_make_up_their_products() {
    let folder = Folder::new();
    let (here, there, plot) = (
        folder.arg("here.json"),
        folder.arg("there.json"),
        folder.arg("plot.svg"),
    );
    let text = run("analyze", &["--json", &here, "--plot", &plot]);
    let more = [
        "--widths", "4", "--scope", "all", "--quiet", "--json", &there,
    ];
    run("sensitivity", &more);
    let (here, there) = (sites(&folder, "here.json"), sites(&folder, "there.json"));
    assert_eq!(here.len(), there.len());
    let energy = |db: f64| 10f64.powf(-db / 10.0);
    let mut products = 0;
    for (ours, theirs) in here.iter().zip(&there) {
        assert_eq!(ours["path"], theirs["path"]);
        assert_eq!(ours["costs"], theirs["costs"]);
        assert!(text.contains(ours["path"].as_str().unwrap()));
        assert!(ours["activation"]["most"].as_f64().unwrap() > 1.0);
        let heads = ours["heads_db"].as_array().unwrap();
        assert_eq!(heads.is_empty(), !ours["weight"].is_null(), "{ours}");
        if heads.is_empty() {
            continue;
        }
        products += 1;
        let all = energy(ours["costs"][0]["both_db"].as_f64().unwrap());
        let sum: f64 = heads.iter().map(|db| energy(db.as_f64().unwrap())).sum();
        let apart = 10.0 * (sum / all).log10();
        assert!(apart.abs() < 6.0, "heads are {apart:.1} dB apart: {ours}");
    }
    assert_eq!(products, 10);
    assert!(text.contains("vitq train --log"), "{text}");
    assert!(fs::read_to_string(&plot).unwrap().starts_with("<svg"));
}

#[test]
fn a_file_is_not_written_over_the_model() {
    let (model, calib) = (text(&digits("model.onnx")), text(&digits("images/calib")));
    let args = ["analyze", &model, "--calib", &calib, "--json", &model];
    vitq(&args).refuses(&["model.onnx"]);
}
