//! Raising the operator set.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use vitq_passes::simplify::upgrade::{self, BREAKING, NEWEST, OLDEST, UpgradeError};

use crate::support::{differences, exports, judge, load, parse, save};

#[test]
fn everything_that_onnx_changed_is_listed() {
    let versions = [OLDEST, NEWEST].map(|v| v.to_string());
    let printed = judge(&[
        Path::new("breaking"),
        Path::new(&versions[0]),
        Path::new(&versions[1]),
    ]);
    let listed: BTreeSet<String> = BREAKING
        .iter()
        .flat_map(|(v, ops)| ops.iter().map(move |op| format!("{v} {op}")))
        .collect();
    assert!(printed.lines().count() > 15, "{printed}");
    for line in printed.lines() {
        assert!(listed.contains(line), "{line} is not listed");
    }
}

const OLD: &str = r#"<ir_version: 6, opset_import: ["" : 11]>
g (float[n, 4, 6] x) => (float[n, 6] y, float[n, 4, 3] z, float[n, 4, 1] w)
{
  a = ReduceMean <axes = [1], keepdims = 1> (x)
  b = Squeeze <axes = [1]> (a)
  s = ReduceSum <axes = [-1]> (x)
  c = Unsqueeze <axes = [0, 2]> (b)
  d = Squeeze <axes = [0, 2]> (c)
  e = Dropout <ratio = 0.5> (d)
  y = Softmax (e)
  p, q = Split <axis = 2, split = [3, 3]> (x)
  r, t = Split <axis = 2> (x)
  u = Add (p, r)
  v = Clip (u)
  z = LogSoftmax <axis = 2> (v)
  k = ReduceMax <axes = [2]> (q)
  l = Add (k, s)
  m = ReduceL2 <axes = [2]> (t)
  w = Add (l, m)
}"#;

#[test]
fn raised_graphs_compute_the_same() {
    let folder = TempDir::new().expect("a folder");
    // The oldest exports and one of the TorchScript exporter's of today.
    let chosen = |p: &PathBuf| load(p).opset() < 17 || p.ends_with("qkv_slice.onnx");
    let mut models: Vec<PathBuf> = exports().into_iter().filter(chosen).collect();
    assert!(models.len() > 3, "{models:?}");
    models.push(save(&parse(OLD), &folder, "old.onnx"));
    let mut pairs = Vec::new();
    for before in models {
        for version in [13, 17, 18, NEWEST] {
            let mut graph = load(&before);
            let was = graph.opset();
            upgrade::to(&mut graph, version)
                .unwrap_or_else(|e| panic!("{}: {e}", before.display()));
            assert_eq!(graph.opset(), version.max(was));
            let after = save(&graph, &folder, &format!("{}.onnx", pairs.len()));
            pairs.push((before.clone(), after));
        }
    }
    for ((before, _), difference) in pairs.iter().zip(differences(&pairs)) {
        // From 17 on the runtime fuses LayerNormalization, which rounds otherwise.
        assert!(difference <= 1e-5, "{}: {difference}", before.display());
    }
}

#[test]
fn what_cannot_be_respelled_is_refused() {
    let graph = |opset: i64, node: &str| {
        format!(
            "<ir_version: 7, opset_import: [\"\" : {opset}]> g (float[n, 4, 6] x, bool f) => (float[n, 4, 6] y) {{ {node} }}"
        )
    };
    for (opset, node, wanted, reason) in [
        (12, "[soft] y = Softmax<axis = 1>(x)", 13, "axis 1 of 3"),
        (11, "[soft] y = Softmax(x)", 13, "axis 1 of 3"),
        (
            12,
            "a = Strange(x) [soft] y = Softmax<axis = 1>(a)",
            17,
            "axis 1 of unknown",
        ),
        (
            18,
            "[soft] y = GroupNormalization(x, x, x)",
            21,
            "operator set 21",
        ),
        (
            13,
            "[soft] y = BatchNormalization<epsilon = 0.1>(x, x, x, x, x)",
            17,
            "",
        ),
        (
            12,
            "[soft] y = If<then_branch = g () => (float[n, 4, 6] s) { s = Softmax(x) }, else_branch = h () => (float[n, 4, 6] r) { r = Relu(x) }>(f)",
            13,
            "Softmax in its sub-graph",
        ),
    ] {
        let mut graph = parse(&graph(opset, node));
        let before = graph.to_string();
        let result = upgrade::to(&mut graph, wanted);
        if reason.is_empty() {
            assert_eq!((result, graph.opset()), (Ok(()), wanted));
            continue;
        }
        let error = result.expect_err(node);
        let UpgradeError::Operator { node, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            node == "soft" && error.to_string().contains(reason),
            "{error}"
        );
        assert_eq!(graph.to_string(), before);
    }
    let mut old = parse(&graph(10, "y = Relu(x)"));
    assert_eq!(upgrade::to(&mut old, 13), Err(UpgradeError::TooOld(10)));
    let mut new = parse(&graph(17, "y = Relu(x)"));
    assert_eq!(upgrade::to(&mut new, 24), Err(UpgradeError::TooNew(24)));
    assert_eq!(upgrade::to(&mut new, 13), Ok(()));
    assert_eq!(new.opset(), 17);
}

/// A model in operator set 12 whose one node calls a function, its body written in `opset`.
fn calling(opset: i64, body: &str, folder: &TempDir) -> PathBuf {
    let text = folder.path().join("function.txt");
    let model = folder.path().join("function.onnx");
    let written = format!(
        "<ir_version: 8, opset_import: [\"\" : 12, \"local\" : 1]>
        g (float[n, 4, 6] x) => (float[n, 4, 6] y) {{ y = local.body(x) }}
        <domain: \"local\", opset_import: [\"\" : {opset}]>
        body (x) => (y) {{ {body} }}"
    );
    std::fs::write(&text, written).expect("the text is written");
    judge(&[Path::new("write"), &text, &model]);
    model
}

#[test]
fn functions_are_raised_with_the_model() {
    let folder = TempDir::new().expect("a folder");
    let before = calling(12, "a = Relu(x) y = Add(a, x)", &folder);
    for version in [13, 17, NEWEST] {
        let mut graph = load(&before);
        upgrade::to(&mut graph, version).unwrap_or_else(|e| panic!("{e}"));
        let model = graph.export();
        let [function] = &model.functions[..] else {
            panic!("{} functions", model.functions.len())
        };
        let imports: Vec<_> = function
            .opset_import
            .iter()
            .map(|o| (o.domain(), o.version()))
            .collect();
        assert_eq!(imports, [("", version)]);
        let after = save(&graph, &folder, "after.onnx");
        assert_eq!(differences(&[(before.clone(), after)]), [0.0]);
    }
}

#[test]
fn functions_that_would_read_otherwise_are_refused() {
    let folder = TempDir::new().expect("a folder");
    for (opset, body, reason) in [
        (12, "[soft] y = Softmax(x)", "Softmax \"soft\""),
        (
            12,
            "c = Constant<value = bool {1}>()
            y = If(c) <then_branch = t () => (s) { [deep] s = Softmax(x) }, else_branch = e () => (r) { r = Relu(x) }>",
            "Softmax \"deep\"",
        ),
        (10, "y = Relu(x)", "operator set 10"),
    ] {
        let mut graph = load(&calling(opset, body, &folder));
        let before = graph.export();
        let error = upgrade::to(&mut graph, 17).expect_err(body);
        let UpgradeError::Function { function, .. } = &error else {
            panic!("{error}")
        };
        assert!(
            function == "local.body" && error.to_string().contains(reason),
            "{error}"
        );
        assert_eq!(graph.export(), before);
    }
}
