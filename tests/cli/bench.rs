//! `vitq bench`: what it tells, not how fast this machine is.

use serde_json::Value;

use super::vitq::{Folder, Run, digits, quantize, text, vitq};

const GRAPH: &str = r#"<ir_version: 8, opset_import: ["" : 17]>
net (float[N,3] x) => (float[N,3] y) { y = Relu(x) }"#;

fn bench(float: &str, more: &[&str]) -> Run {
    let mut args = vec!["bench", float, "--rounds", "2"];
    args.extend(more);
    vitq(&args)
}

/// The benchmark of the fixture and its quantised model.
fn fixture(runtime: &str) -> Value {
    let folder = Folder::new();
    let model = digits("model.onnx");
    let out = folder.path("out.onnx");
    quantize(&model, &digits("images/calib"), &out, &["--quiet"]).succeeds();
    let more = [&text(&out), "--runtime", runtime, "--batch", "2", "--json"];
    let run = bench(&text(&model), &more).succeeds();
    serde_json::from_str(&run.stdout).expect("JSON")
}

#[track_caller]
fn is_told(told: &Value, runtime: &str) {
    assert_eq!(told["runtime"], runtime);
    assert_eq!(
        [
            &told["version"],
            &told["threads"],
            &told["batch"],
            &told["rounds"]
        ],
        [1, 1, 2, 2]
    );
    let [float, quantised] = told["models"].as_array().expect("models").as_slice() else {
        panic!("two models: {told}");
    };
    assert_eq!(float["times_as_fast"]["median"], 1.0);
    assert_eq!(float["fusion"]["integer"], serde_json::json!({}));
    assert!(quantised["bytes"].as_u64() < float["bytes"].as_u64());
    for model in [float, quantised] {
        let ms = &model["ms"];
        assert!(ms["low"].as_f64() > Some(0.0) && ms["low"].as_f64() <= ms["high"].as_f64());
        if cfg!(target_os = "linux") {
            assert!(model["peak_bytes"].as_u64() > Some(1_000_000), "{model}");
        }
    }
    assert_eq!(quantised["fusion"]["unfused"], 0, "{quantised}");
    let integer = quantised["fusion"]["integer"].as_object().expect("counts");
    let products: u64 = integer.values().filter_map(Value::as_u64).sum();
    assert!(products >= 9, "{quantised}");
}

#[test]
fn speed_in_tract() {
    is_told(&fixture("tract"), "tract with vitq-tract");
}

#[test]
fn stock_tract_multiplies_codes_in_float() {
    let folder = Folder::new();
    let (model, calib) = (digits("model.onnx"), digits("images/calib"));
    let made = |target| {
        let out = folder.path(target);
        quantize(&model, &calib, &out, &["--quiet", "--target", target]).succeeds();
        text(&out)
    };
    let (qdq, weights) = (made("portable"), made("tract"));
    let more = [&qdq, &weights, "--runtime", "tract", "--stock", "--json"];
    let told: Value = serde_json::from_str(&bench(&text(&model), &more).succeeds().stdout).unwrap();
    assert_eq!(told["runtime"], "stock tract");
    let fusion = |i: usize| &told["models"][i]["fusion"];
    assert_eq!(fusion(1)["unfused"], 21, "{told}");
    // So few channels are not worth a quantiser there: weights alone are quantised, and float products are what was asked for.
    assert_eq!(
        fusion(2),
        &serde_json::json!({"integer": {}, "unfused": 0, "unfused_nodes": []})
    );
}

#[cfg(feature = "onnxruntime")]
#[test]
fn speed_in_onnx_runtime() {
    is_told(&fixture("onnxruntime"), "ONNX Runtime");
}

#[cfg(not(feature = "onnxruntime"))]
#[test]
fn onnx_runtime_needs_the_feature() {
    let model = text(&digits("model.onnx"));
    bench(&model, &["--runtime", "onnxruntime"]).refuses(&["cargo feature `onnxruntime`"]);
}

#[test]
fn people_get_a_table() {
    let folder = Folder::new();
    let path = text(&folder.parse("net.onnx", GRAPH));
    let run = bench(&path, &["--runtime", "tract"]).succeeds();
    for word in ["times as fast", "net.onnx", "1.00", "2 rounds"] {
        assert!(run.stdout.contains(word), "no {word:?} in: {}", run.stdout);
    }
}

#[test]
fn wrong_input() {
    let folder = Folder::new();
    let path = text(&folder.parse("net.onnx", GRAPH));
    let other = text(&folder.parse("other.onnx", &GRAPH.replace("N,3", "N,4")));
    let free = text(&folder.parse("free.onnx", &GRAPH.replace("N,3", "N,3,H,W")));
    let fixed = text(&folder.parse("fixed.onnx", &GRAPH.replace("N,3", "1,3")));
    let tract =
        |float: &str, more: &[&str]| bench(float, &[&["--runtime", "tract"], more].concat());
    tract("nowhere.onnx", &[]).refuses(&["nowhere.onnx"]);
    tract(&path, &["nowhere.onnx"]).refuses(&["nowhere.onnx"]);
    tract(&path, &[&text(&digits("classes.txt"))]).refuses(&["classes.txt"]);
    tract(&path, &[&other]).refuses(&["other.onnx", "other inputs", "[1, 4]"]);
    tract(&path, &["--threads", "2"]).refuses(&["tract", "--threads"]);
    bench(&path, &["--runtime", "onnxruntime", "--stock"]).refuses(&["--stock"]);
    tract(&fixed, &["--batch", "2"]).refuses(&["fixed.onnx", "--batch is 2"]);
    tract(&path, &["--batch", "999999999"]).refuses(&["--batch"]);
    tract(&free, &[]).refuses(&["free.onnx", "--size"]);
    tract(&free, &["--size", "4"]).succeeds();
}
