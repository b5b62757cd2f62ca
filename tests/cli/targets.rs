//! `--target`, `vitq targets` and `quantize --bench`.

use std::fs;

use serde_json::Value;

use super::vitq::{Folder, digits, python, quantize, text, vitq};

/// Quantises the fixture; gives the report.
fn report(folder: &Folder, more: &[&str]) -> Value {
    let report = folder.arg("report.json");
    let more = [&["--quiet", "--report", &report], more].concat();
    let (model, calib) = (digits("model.onnx"), digits("images/calib"));
    quantize(&model, &calib, &folder.path("out.onnx"), &more).succeeds();
    serde_json::from_slice(&fs::read(report).unwrap()).unwrap()
}

/// What breaks TensorRT's rules, and how many products are quantised.
fn against_tensorrt(folder: &Folder) -> (usize, u64) {
    let found = python("tensorrt.py", &[&folder.path("out.onnx")]);
    let broken = found["broken"].as_array().expect("a list");
    println!("{broken:?}");
    (broken.len(), found["products"].as_u64().expect("a count"))
}

#[test]
fn tensorrt_gets_what_its_documentation_asks_for() {
    let folder = Folder::new();
    let told = report(&folder, &["--target", "tensorrt", "--scope", "all"]);
    let (broken, products) = against_tensorrt(&folder);
    // 5 blocks of 4 Linears and 2 products, the head and the patch embedding, less what the guard leaves float.
    let float = told["summary"]["float_sites"].as_array().unwrap().len() as u64;
    assert_eq!((broken, products + float), (0, 32), "{told}");
    let seen = python(
        "judge.py",
        &[
            &digits("model.onnx"),
            &folder.path("out.onnx"),
            &digits("images/test"),
        ],
    );
    assert!(seen["sqnr_db"].as_f64() > Some(20.0), "{seen}");
    assert_eq!(
        (&told["target"], &told["summary"]["expected_speedup"]),
        (&"tensorrt".into(), &Value::Null)
    );
}

/// What breaks QNN's rules, how many units there are, and how many products in 8 bits.
fn against_qnn(folder: &Folder) -> (usize, u64, u64) {
    let found = python("qnn.py", &[&folder.path("out.onnx")]);
    let broken = found["broken"].as_array().expect("a list");
    let floats = found["float"].as_array().expect("a list");
    println!("{broken:?} {floats:?}");
    let count = |name: &str| found[name].as_u64().expect("a count");
    (
        broken.len() + floats.len(),
        count("units"),
        count("products"),
    )
}

#[test]
fn qnn_gets_units_alone() {
    // 5 blocks of 4 Linears, and the head; with the patch embedding and 2 products a block.
    // With uint16 activations, the default, no product is one of uint8.
    let eight: &[&str] = &["--bits", "w8a8"];
    for (scope, bits, most) in [("linear", eight, 21), ("all", eight, 32), ("all", &[], 0)] {
        let folder = Folder::new();
        let told = report(
            &folder,
            &[&["--target", "qnn", "--scope", scope], bits].concat(),
        );
        let float = told["summary"]["left_float"].as_u64().unwrap();
        let (broken, units, products) = against_qnn(&folder);
        assert_eq!((broken, products + float), (0, most), "{scope}: {told}");
        assert!(units > 150, "{units}");
        let images = digits("images/test");
        let seen = python(
            "judge.py",
            &[&digits("model.onnx"), &folder.path("out.onnx"), &images],
        );
        // 27 on a processor without VNNI, over 30 with it.
        assert!(seen["sqnr_db"].as_f64() > Some(26.0), "{scope}: {seen}");
    }
}

#[test]
fn the_rules_of_qnn_tell_another_form() {
    let folder = Folder::new();
    report(&folder, &[]);
    let (broken, _, products) = against_qnn(&folder);
    assert!(broken > 0);
    assert_eq!(
        products, 0,
        "its products are no units, as nothing quantises their results"
    );
}

#[test]
fn the_rules_of_tensorrt_tell_another_form() {
    let folder = Folder::new();
    report(&folder, &["--target", "portable"]);
    let (broken, products) = against_tensorrt(&folder);
    assert!(broken > 0 && products > 0);
}

#[test]
fn an_operator_set_that_is_asked_for_brings_its_operators() {
    let folder = Folder::new();
    let judged = |more: &[&str]| {
        report(&folder, more);
        python(
            "judge.py",
            &[
                &digits("model.onnx"),
                &folder.path("out.onnx"),
                &digits("images/test"),
            ],
        )
    };
    let (plain, raised) = (judged(&[]), judged(&["--opset", "23"]));
    let same = ["opset", "attentions"].map(|it| (plain[it].clone(), raised[it].clone()));
    assert_eq!(same, [(17.into(), 23.into()), (0.into(), 4.into())]);
    let [plain, raised] = [plain, raised].map(|it| it["sqnr_db"].as_f64().unwrap());
    assert!((plain - raised).abs() < 1.0, "{plain}, {raised} dB");
}

#[test]
fn what_a_target_cannot_run_is_refused() {
    let folder = Folder::new();
    let (model, calib, out) = (
        digits("model.onnx"),
        digits("images/calib"),
        folder.path("out.onnx"),
    );
    let refused = |more: &[&str], words: &[&str]| {
        quantize(&model, &calib, &out, more).refuses(words);
        assert!(!out.exists());
    };
    let narrow = ["--target", "tensorrt", "--bits", "w4a4"];
    refused(
        &narrow,
        &["model.onnx", "site `", "tensorrt", "--bits w8a8 or w4a8"],
    );
    let size = ["--target", "qnn", "--budget", "size=0.3"];
    refused(&size, &["--budget", "qnn"]);
    let speed = ["--target", "tract", "--budget", "speedup=1.2"];
    refused(&speed, &["cost model", "tract", "--target onnxruntime"]);
    refused(
        &["--target", "tensorrt", "--bench"],
        &["--bench", "tensorrt"],
    );
    refused(
        &["--target", "portable", "--opset", "23"],
        &["operator set 23", "--opset 20"],
    );
    refused(&["--opset", "99"], &["--opset", "23"]);
    refused(&["--target", "nowhere"], &["nowhere", "tensorrt"]);

    let (model, plan) = (text(&model), folder.arg("vit.plan.json"));
    let calib = text(&calib);
    vitq(&["plan", &model, "--calib", &calib, "-o", &plan, "--quiet"]).succeeds();
    let apply = |target: &str| {
        let out = text(&out);
        vitq(&["apply", &model, &plan, "-o", &out, "--target", target])
    };
    apply("tensorrt").refuses(&["site `", "make the plan again with --target tensorrt"]);
    apply("qnn").refuses(&["ranges", "make the plan again with --target qnn"]);
    apply("tract").succeeds();
}

#[test]
fn the_gain_is_expected_by_site_and_measured() {
    let folder = Folder::new();
    let told = report(&folder, &[]);
    let sites = told["sites"].as_array().unwrap();
    let gains: f64 = sites
        .iter()
        .filter_map(|it| it["expected_gain"].as_f64())
        .sum();
    let expected = told["summary"]["expected_speedup"].as_f64().unwrap();
    assert!(
        expected > 1.1 && (expected - 1.0 / (1.0 - gains / 100.0)).abs() < 1e-9,
        "{told}"
    );
    assert_eq!(told["bench"], Value::Null);

    let told = report(&folder, &["--target", "tract", "--bench"]);
    assert_eq!(told["bench"]["runtime"], "stock tract");
    let models = told["bench"]["models"].as_array().unwrap();
    assert_eq!(models[1]["path"], told["output"]["path"]);
    assert!(models[1]["ms"]["median"].as_f64() > Some(0.0), "{told}");
}

#[test]
fn targets_are_listed_with_their_reasons() {
    let told = vitq(&["targets"]).succeeds().stdout;
    for words in [
        "onnxruntime: ",
        "tract: ",
        "portable: ",
        "openvino: ",
        "qnn: ",
        "MatMulInteger",
        "operator sets 17 to 20",
    ] {
        assert!(told.contains(words), "no {words:?} in: {told}");
    }
    let tensorrt = told.split_once("tensorrt: ").expect("tensorrt is listed").1;
    assert!(
        tensorrt.contains("zero point 0") && tensorrt.contains("not run in it"),
        "{told}"
    );
}
