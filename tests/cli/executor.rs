//! `--executor onnxruntime`: models that tract does not run are calibrated and verified in ONNX Runtime.

use std::path::PathBuf;

use vitq_onnx::Tensor;
use vitq_passes::ir::Graph;

use super::vitq::{Folder, digits, quantize};

/// The fixture with operators in its residual stream that tract does not know, and that change nothing.
fn unknown_to_tract(folder: &Folder) -> PathBuf {
    let source = vitq_onnx::load(digits("model.onnx")).unwrap().model;
    let mut graph = Graph::import(&source).unwrap();
    let norm = graph.nodes().find(|&id| graph.is(id, "LayerNormalization"));
    let stream = graph.input(norm.unwrap(), 0).unwrap();
    let first = graph.add_initializer("first", &Tensor::from_i64(&[], &[0]));
    let sequence = graph.insert("SequenceConstruct", "list", &[stream]);
    let element = graph.insert("SequenceAt", "element", &[sequence, first]);
    graph.replace_uses(stream, element);
    graph.set_input(sequence.node, 0, stream);
    graph.forget_value_info();
    folder.save("unknown.onnx", &graph.export())
}

#[cfg(not(feature = "onnxruntime"))]
#[test]
fn it_needs_the_feature() {
    let folder = Folder::new();
    let (calib, out) = (digits("images/calib"), folder.path("out.onnx"));
    let model = digits("model.onnx");
    quantize(&model, &calib, &out, &["--executor", "onnxruntime"])
        .refuses(&["cargo feature `onnxruntime`"]);
    let refused = quantize(&unknown_to_tract(&folder), &calib, &out, &[]);
    assert!(!refused.stderr.contains("--executor"), "{}", refused.stderr);
    refused.refuses(&["tract", "SequenceConstruct", "vitq inspect"]);
}

#[cfg(feature = "onnxruntime")]
mod onnx_runtime {
    use std::fs;
    use std::path::Path;
    use std::process::Command;

    use safetensors::tensor::{Dtype, TensorView};
    use serde_json::Value;

    use super::super::vitq::{Run, text};
    use super::*;

    /// Quantises in ONNX Runtime and gives the report's verification.
    fn verified(folder: &Folder, model: &Path, calib: &Path, eval: &Path) -> Value {
        let (out, report, eval) = (
            folder.path("out.onnx"),
            folder.arg("report.json"),
            text(eval),
        );
        let more = [
            "--executor",
            "onnxruntime",
            "--eval",
            &eval,
            "--report",
            &report,
        ];
        quantize(model, calib, &out, &more).succeeds();
        let report: Value = serde_json::from_slice(&fs::read(report).unwrap()).unwrap();
        assert_eq!(report["settings"]["executor"], "ONNX Runtime");
        assert_eq!(report["verification"]["runtime"], "ONNX Runtime");
        report["verification"].clone()
    }

    #[test]
    fn operators_that_tract_does_not_know() {
        let folder = Folder::new();
        let (model, calib) = (unknown_to_tract(&folder), digits("images/calib"));
        quantize(&model, &calib, &folder.path("out.onnx"), &[]).refuses(&[
            "tract cannot load the float graph",
            "SequenceConstruct",
            "--executor onnxruntime",
        ]);
        let verification = verified(&folder, &model, &calib, &digits("images/test"));
        let agreement = verification["classifier"]["agreement"].as_f64().unwrap();
        assert!(agreement >= 99.0, "{agreement}");
    }

    /// Convolutions, strided slices and normalisations between the sites, for which ONNX Runtime has other kernels than tract.
    #[test]
    fn levit() {
        let folder = Folder::new();
        let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/families/levit.onnx");
        let (calib, eval) = (noise(&folder, "calib", 32), noise(&folder, "eval", 16));
        let verification = verified(&folder, &model, &calib, &eval);
        for output in verification["outputs"].as_array().unwrap() {
            assert!(output["sqnr_db"].as_f64().unwrap() >= 20.0, "{output}");
        }
    }

    /// Evenly spread numbers for LeViT's input, with the deviation of images.
    fn noise(folder: &Folder, name: &str, samples: usize) -> PathBuf {
        let mut state = samples as u32;
        let mut number = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            ((state >> 8) as f32 / (1 << 24) as f32 - 0.5) * 12f32.sqrt()
        };
        let dims = vec![samples, 3, 64, 64];
        let count = dims.iter().product();
        let bytes: Vec<u8> = (0..count).flat_map(|_| number().to_le_bytes()).collect();
        let view = TensorView::new(Dtype::F32, dims, &bytes).unwrap();
        let path = folder.path(&format!("{name}.safetensors"));
        fs::write(
            &path,
            safetensors::serialize([("input", view)], None).unwrap(),
        )
        .unwrap();
        path
    }

    #[test]
    fn it_needs_the_library() {
        let folder = Folder::new();
        let (model, calib) = (digits("model.onnx"), digits("images/calib"));
        let run = Command::new(env!("CARGO_BIN_EXE_vitq"))
            .env_remove("ORT_DYLIB_PATH")
            .arg("quantize")
            .arg(model)
            .arg("--calib")
            .arg(calib)
            .args(["--crop", "32", "--executor", "onnxruntime", "-o"])
            .arg(folder.path("out.onnx"))
            .output()
            .unwrap();
        Run::from(run).refuses(&["ORT_DYLIB_PATH is not set"]);
    }
}
