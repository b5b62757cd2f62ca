//! Whole networks: the same outputs, and one form.

use std::collections::BTreeMap;
use std::path::PathBuf;

use tempfile::TempDir;
use vitq_passes::ir::Graph;
use vitq_passes::simplify::simplify;

use crate::support::{differences, exports, load, root, save};

/// Rounding of float sums in another order.
const ROUNDING: f64 = 1e-5;

fn counts(graph: &Graph) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for (_, op) in graph.ops() {
        *counts.entry(op.op_type().to_owned()).or_default() += 1;
    }
    counts
}

/// Simplifies files and compares the outputs.
fn simplified(paths: Vec<PathBuf>) -> Vec<(PathBuf, Graph)> {
    let folder = TempDir::new().expect("a folder");
    let mut graphs = Vec::new();
    let mut pairs = Vec::new();
    for (i, path) in paths.into_iter().enumerate() {
        let mut graph = load(&path);
        simplify(&mut graph);
        pairs.push((path.clone(), save(&graph, &folder, &format!("{i}.onnx"))));
        let printed = graph.to_string();
        let again = simplify(&mut graph);
        assert!(again.fired.is_empty(), "{}: {again}", path.display());
        assert_eq!(graph.to_string(), printed);
        graphs.push((path, graph));
    }
    for ((path, _), difference) in pairs.iter().zip(differences(&pairs)) {
        assert!(difference <= ROUNDING, "{}: {difference}", path.display());
    }
    graphs
}

#[test]
fn every_export_computes_the_same_in_one_form() {
    for (path, graph) in simplified(exports()) {
        let counts = counts(&graph);
        let label = format!("{}: {counts:?}", path.display());
        for gone in [
            "Constant",
            "Gemm",
            "Identity",
            "Cast",
            "Sqrt",
            "Pow",
            "Where",
            "Equal",
            "ConstantOfShape",
            "Unsqueeze",
        ] {
            assert!(!counts.contains_key(gone), "{gone} in {label}");
        }
        // The batch: how often the class token is repeated.
        let fixed = path.to_string_lossy().contains("_batch");
        assert_eq!(
            counts.get("Shape").copied().unwrap_or(0),
            usize::from(!fixed),
            "{label}"
        );
        assert_eq!(
            counts.get("Expand").copied().unwrap_or(0),
            usize::from(!fixed),
            "{label}"
        );
        assert!(counts["LayerNormalization"] >= 3, "{label}");
    }
}

#[test]
#[ignore = "needs the trained model under ../shared/data"]
fn vit_tiny_computes_the_same_in_one_form() {
    let path = root().join("../shared/data/vit_tiny_imagenet/model.onnx");
    let (_, graph) = simplified(vec![path]).remove(0);
    let counts = counts(&graph);
    let wanted = [
        ("Add", 86),
        ("Concat", 2),
        ("Conv", 1),
        ("Div", 12),
        ("Erf", 12),
        ("Expand", 1),
        ("Gather", 2),
        ("LayerNormalization", 25),
        ("MatMul", 73),
        ("Mul", 48),
        ("Reshape", 25),
        ("Shape", 1),
        ("Softmax", 12),
        ("Split", 12),
        ("Squeeze", 36),
        ("Transpose", 37),
    ];
    assert_eq!(counts, wanted.map(|(op, n)| (op.to_owned(), n)).into());
}
