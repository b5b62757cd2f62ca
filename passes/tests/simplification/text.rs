//! The textual syntax, against ONNX's own parser.

use std::path::Path;

use tempfile::TempDir;
use vitq_passes::ir::Graph;

use crate::support::{exports, judge, load, parse, save};

const EVERYTHING: &str = r#"<ir_version: 10, opset_import: ["" : 21, "com.microsoft" : 1], producer_name: "a \"quoted\" name", model_version: 3, metadata_props: ["key": "value"]>
"a graph" (float[n, 3, "h/2", ?] x, int64[] any, bool flag) => (float[n, 2] y, float[] z, float[] v)
<
  float[2] w = {1.5, -2e-6},
  float[2] specials = {inf, -inf},
  double scalar = {0.1},
  int64[3] "with/slash" = {-1, 0, 9223372036854775807},
  int32[2] i32 = {-7, 7},
  int16[1] i16 = {-300},
  int8[2] i8 = {-128, 127},
  uint8[2] u8 = {0, 255},
  uint16[1] u16 = {65535},
  uint32[1] u32 = {4294967295},
  uint64[1] u64 = {18446744073709551615},
  bool[2] flags = {1, 0},
  float16[2] half = {15360, 49152},
  bfloat16[1] brain = {16256},
  uint4[3] nibbles = {33, 3},
  int4[2] signed_nibbles = {240},
  float[0] nothing = {},
  float[n, 2] t
>
{
  ["first/MatMul"] t = Gemm <alpha = 0.5, transB = 1> (x, w)
  a, "", b = Split <axis = -1, names = ["p", "q"], list = [1, 2], floats = [0.5, 1e20], none: ints = []> (t)
  "a/b" = com.microsoft.Gelu (a)
  c = Constant <value = int64[2] inner {3, 4}> ()
  d = Resize <mode = "linear"> (b, "", scalar)
  z = If <then_branch = body () => (float[n, 2] s)
    {
      s = Add (t, w)
    }, else_branch = other () => (float[n, 2] r)
    <
      float[2] k = {1.0, 2.0}
    >
    {
      r = Sub (t, k)
    }> (flag)
  y = Identity ("a/b")
  v = Sum (c, d, specials, "with/slash", i32, i16, i8, u8, u16, u32, u64, flags, half, brain, nibbles, signed_nibbles, nothing, any)
}
"#;

#[test]
fn printing_undoes_parsing() {
    let printed = parse(EVERYTHING).to_string();
    // The printer lists constants in the order of the graph and says the attributes first.
    assert_eq!(parse(&printed).to_string(), printed);
    for line in EVERYTHING.lines().map(|l| l.trim().trim_end_matches(',')) {
        assert!(printed.contains(line), "{line:?} is missing in\n{printed}");
    }
}

#[test]
fn onnx_reads_what_is_printed() {
    let folder = TempDir::new().expect("a folder");
    let mut texts = vec![
        r#"<ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1], producer_name: "p">
        g (float[n, 3, 4] x) => (float[n, 3, 2] y)
        <float[4, 2] w = {1, 2.5, -3, 4, 5, 6, 7, 8e-12}, float16[2] h = {15360, 49152}, int8[2] i = {-1, 3}, bool[1] o = {1}>
        { [m] t = MatMul(x, w)
          u = Clip(t, "", c)
          c = Constant<value = float {0.5}>()
          p, q = Split<axis = -1>(u)
          "s/t" = com.microsoft.Gelu(u)
          y = LeakyRelu<alpha = 0.25>("s/t") }"#
            .to_owned(),
    ];
    // In files from exporters, what the text leaves out (large constants) is cut to size.
    for path in exports() {
        let mut graph = load(&path);
        for id in graph.nodes().collect::<Vec<_>>() {
            let value = vitq_passes::ir::Outlet { node: id, slot: 0 };
            let long = |d: &Vec<usize>| d.iter().product::<usize>() > vitq_passes::ir::MAX_VALUES;
            if graph.constant_dims(value).is_some_and(|d| long(&d)) {
                graph.freeze(id, vitq_onnx::Tensor::from_f32(&[1], &[0.5]).to_proto(""));
            }
        }
        texts.push(graph.to_string());
    }
    for (i, text) in texts.iter().enumerate() {
        let graph = parse(text);
        let model = save(&graph, &folder, &format!("{i}.onnx"));
        let file = folder.path().join(format!("{i}.txt"));
        std::fs::write(&file, graph.to_string()).expect("the text is saved");
        assert_eq!(judge(&[Path::new("text"), &file, &model]), "same\n");
    }
}

#[test]
fn mistakes_are_placed() {
    let graph = |body: &str| format!("g (float[n] x) => (float[n] y)\n{body}");
    let long = format!("{{ y = Add(x, w) }}<float[65] w = {}>", "{…}");
    for (text, line, column, message) in [
        (
            "g (float[n] x => (float y) {}".to_owned(),
            1,
            15,
            "expected `,`",
        ),
        (graph("{ y = Relu(x "), 2, 14, "expected `)`"),
        (graph("{ y = Relu(z) }"), 2, 16, "reads \"z\""),
        (graph("{ y = Relu<alpha = >(x) }"), 2, 20, "expected a name"),
        (graph("{ y = Relu<axes = []>(x) }"), 2, 21, "empty list"),
        (
            graph("<float[2] w = {1.0}> { y = Add(x, w) }"),
            2,
            20,
            "1 values do not fill",
        ),
        (
            graph("<int8[1] w = {1.5}> { y = Add(x, w) }"),
            2,
            15,
            "a value of type int8",
        ),
        (
            graph("<float[65] w = {…}> { y = Add(x, w) }"),
            2,
            17,
            "expected a value",
        ),
        (
            graph("{ a = Relu(b)\n b = Relu(a) y = Relu(b) }"),
            3,
            27,
            "cycle",
        ),
        (graph(&long), 2, 18, "the end of the model"),
        (
            "<ir_version: x> g () => () {}".to_owned(),
            1,
            14,
            "expected a value",
        ),
        ("<nonsense: 1> g () => () {}".to_owned(), 1, 2, "ir_version"),
        (
            "g () => () { y = If <b = ".repeat(100),
            1,
            801,
            "nested less deeply",
        ),
    ] {
        let error = Graph::parse(&text).expect_err(&text);
        assert_eq!(
            (error.line, error.column),
            (line, column),
            "{error}\n{text}"
        );
        assert!(error.message.contains(message), "{error}");
    }
}

#[test]
fn any_text_is_read_or_refused() {
    let mut cut = String::new();
    for c in EVERYTHING.chars() {
        assert!(Graph::parse(&cut).is_err());
        cut.push(c);
        // And with each character swapped for one that opens or closes something.
        for swapped in ['"', '<', '{', '-', 'é'] {
            let rest = &EVERYTHING[cut.len()..];
            let before = &cut[..cut.len() - c.len_utf8()];
            let _ = Graph::parse(&format!("{before}{swapped}{rest}"));
        }
        if cut.len() + 2 >= EVERYTHING.len() {
            break;
        }
    }
}
