//! Shapes and types against those of a run in ONNX Runtime.

use std::path::Path;

use vitq_passes::infer::{Dim, Entry, infer};

use crate::support::{exports, judge, load, parse};

const BATCH: usize = 3;

/// The size that a symbol stands for in a run with that batch: products such as `197*batch` too.
fn size(dim: &Dim) -> Option<usize> {
    match dim {
        Dim::Known(size) => Some(*size),
        Dim::Symbol(text) => Some(
            text.split('*')
                .map(|part| part.parse().unwrap_or(BATCH))
                .product(),
        ),
        Dim::Unknown => None,
    }
}

#[test]
fn every_value_of_every_export_has_the_shape_of_a_run() {
    for path in exports() {
        let graph = load(&path);
        let shapes = infer(&graph);
        let printed = judge(&[Path::new("shapes"), &path, Path::new(&BATCH.to_string())]);
        let mut lines = 0;
        for line in printed.lines() {
            let mut words = line.split_whitespace();
            let (name, dtype) = (words.next().expect("a name"), words.next().expect("a type"));
            let dims: Vec<usize> = words.map(|w| w.parse().expect("a size")).collect();
            let value = graph.find(name).expect("a value of the graph");
            let label = format!("{name} of {}", path.display());
            assert_eq!(
                shapes.dtype(value).map(|d| d.name()),
                Some(dtype),
                "{label}"
            );
            let inferred: Option<Vec<Option<usize>>> =
                shapes.of(value).map(|s| s.iter().map(size).collect());
            assert_eq!(
                inferred,
                Some(dims.into_iter().map(Some).collect()),
                "{label}"
            );
            lines += 1;
        }
        assert!(lines > 50, "{printed}");
    }
}

#[test]
fn sizes_are_followed_by_symbol() {
    let graph = parse(
        "<ir_version: 8, opset_import: [\"\" : 17, \"other\" : 1]>
        g (float[n, 3, ?, 8] x, float16[] any) => (float[] y)
        <int64[3] flat = {0, -1, 8}, int64[2] rows = {-1, 8}, int64 i0 = {0}, int64[1] at0 = {0}, int64[1] minus = {-1}> {
            a = Reshape(x, flat)
            b = Reshape(x, rows)
            c = Concat<axis = 2>(x, x)
            d = Transpose<perm = [3, 0, 1, 2]>(x)
            shape = Shape(x)
            n = Gather(shape, i0)
            n1 = Unsqueeze(n, at0)
            less = Mul(n1, minus)
            twice = Add(n1, n1)
            chosen = Concat<axis = 0>(n1, minus)
            e = Reshape(x, chosen)
            f = other.Strange(x)
            h = MatMul(a, d)
            i = Add(any, x)
            y = Add(f, e)
        }",
    );
    let shapes = infer(&graph);
    let of = |name: &str| {
        let value = graph.find(name).expect("a value");
        let words = |dims: &[Dim]| {
            dims.iter()
                .map(Dim::to_string)
                .collect::<Vec<_>>()
                .join(" ")
        };
        shapes.of(value).map(words)
    };
    let cases = [
        ("x", Some("n 3 x.2 8")),
        ("a", Some("n 3*x.2 8")),
        ("b", Some("3*n*x.2 8")),
        ("c", Some("n 3 ? 8")),
        ("d", Some("8 n 3 x.2")),
        ("e", Some("n 24*x.2")),
        ("f", None),
        ("i", None),
        ("y", None),
    ];
    for (name, dims) in cases {
        assert_eq!(of(name).as_deref(), dims, "{name}");
    }
    let entries = |name: &str| {
        shapes
            .entries(graph.find(name).expect("a value"))
            .map(<[Entry]>::to_vec)
    };
    let symbol = Entry::Symbol("n".to_owned());
    assert_eq!(entries("n"), Some(vec![symbol.clone()]));
    assert_eq!(entries("chosen"), Some(vec![symbol, Entry::Known(-1)]));
    assert_eq!(entries("less"), Some(vec![Entry::Unknown]));
    assert_eq!(entries("twice"), Some(vec![Entry::Unknown]));
}
