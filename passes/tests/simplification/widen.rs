//! float16 and bfloat16 models as float32 ones: text in, text out, and the checker's word on the restored borders.

use tempfile::TempDir;
use vitq_onnx::DataType;
use vitq_passes::ir::Graph;
use vitq_passes::widen::{WidenError, Widened, widen};

use crate::support::{differences, parse, save};

fn widened(text: &str) -> Result<(Graph, Widened), WidenError> {
    let mut model = parse(text).export();
    let widened = widen(&mut model)?;
    Ok((Graph::import(&model).expect("a graph"), widened))
}

/// `body` behind the header, with a custom domain that may be used.
fn model(body: &str) -> String {
    format!(
        "<ir_version: 8, opset_import: [\"\" : 17, \"com.microsoft\" : 1, \"mine\" : 1]>\n{body}"
    )
}

#[test]
fn constants_casts_and_types_become_float() {
    // 15360 is 1.0 and 64511 -65504 in float16; 16256 is 1.0 in bfloat16.
    let (graph, found) = widened(&model(
        "g (float16[n, 2] x) => (float[n, 2] y, bfloat16[2] b)
        <float16[2] one = {15360, 15360}, float16[2] mask = {64511, 15360}, bfloat16[2] b = {16256, 16256}> {
            s = Add (x, one)
            m = Add (s, mask)
            k = Constant <value = float16[1] k {15360}> ()
            p = Mul (m, k)
            y = Cast <to = 1> (p)
        }",
    ))
    .expect("widens");
    let expected = parse(&model(
        "g (float[n, 2] x) => (float[n, 2] y, float[2] b)
        <float[2] one = {1.0, 1.0}, float[2] mask = {-65504.0, 1.0}, float[2] b = {1.0, 1.0}> {
            s = Add (x, one)
            m = Add (s, mask)
            k = Constant <value = float[1] k {1.0}> ()
            p = Mul (m, k)
            y = Cast <to = 1> (p)
        }",
    ));
    assert_eq!(graph.to_string(), expected.to_string());
    assert_eq!(found.types(), ["float16", "bfloat16"]);
}

#[test]
fn sub_graphs_are_widened() {
    let (graph, _) = widened(&model(
        "g (float16[2] x, bool c) => (float16[2] y) {
            y = If <then_branch = yes () => (float16[2] a) <float16[2] k = {15360, 15360}> {
                a = Identity (k)
            }, else_branch = no () => (float16[2] b) {
                f = Cast <to = 10> (c)
                b = Expand (f, s)
            }> (c)
        }"
        .replace("b = Expand (f, s)", "b = Concat <axis = 0> (f, f)")
        .as_str(),
    ))
    .expect("widens");
    let text = graph.to_string();
    assert!(!text.contains("float16"), "{text}");
    assert!(
        text.contains("Cast<to = 1>") || text.contains("Cast <to = 1>"),
        "{text}"
    );
}

#[test]
fn a_float_model_stays_as_it_is() {
    let text = model("g (float[n, 2] x) => (float[n, 2] y) { y = mine.Op (x) }");
    let (graph, found) = widened(&text).expect("nothing to widen");
    assert_eq!(graph.to_string(), parse(&text).to_string());
    assert_eq!(found, Widened::default());
}

#[test]
fn what_may_want_narrow_numbers_is_named() {
    for (operator, spelled) in [("mine.Op", "mine.Op"), ("BitCast", "BitCast")] {
        let text = model(&format!(
            "g (float16[2] x) => (float16[2] y) {{ [odd] y = {operator} (x) }}"
        ));
        let error = widened(&text).expect_err("declined").to_string();
        assert!(
            error.contains("`odd`") && error.contains(spelled) && error.contains("float16"),
            "{error}"
        );
    }
}

#[test]
fn borders_get_their_types_back() {
    let before = model(
        "g (float16[n, 2] x) => (float16[n, 2] y, float16[n, 2] z)
        <float16[2] one = {15360, 15360}> {
            a = Add (x, one)
            y = Mul (a, x)
            z = Sub (x, y)
        }",
    );
    let (mut graph, found) = widened(&before).expect("widens");
    assert!(found.has_borders());
    found.check(&graph).expect("no captures");
    found.restore(&mut graph);
    let expected = parse(&model(
        "g (float16[n, 2] x) => (float16[n, 2] y, float16[n, 2] z)
        <float[2] one = {1.0, 1.0}> {
            [\"x/Cast\"] \"x/Cast\" = Cast <to = 1> (x)
            a = Add (\"x/Cast\", one)
            \"y/float\" = Mul (a, \"x/Cast\")
            \"z/float\" = Sub (\"x/Cast\", \"y/float\")
            [\"y/Cast\"] y = Cast <to = 10> (\"y/float\")
            [\"z/Cast\"] z = Cast <to = 10> (\"z/float\")
        }",
    ));
    let lines = |graph: &Graph| {
        let mut lines: Vec<String> = graph.to_string().lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(lines(&graph), lines(&expected));
    let folder = TempDir::new().expect("a folder");
    let pair = (
        save(&parse(&before), &folder, "before.onnx"),
        save(&graph, &folder, "after.onnx"),
    );
    // The results' own rounding, twice.
    let difference = differences(&[pair])[0];
    assert!(difference < 4e-3, "{difference}");
}

#[test]
fn a_border_that_a_sub_graph_reads_is_named() {
    let (graph, found) = widened(&model(
        "g (float16[2] x, bool c) => (float[2] y) {
            y = If <then_branch = yes () => (float[2] a) { a = Cast <to = 1> (x) },
                    else_branch = no () => (float[2] b) { b = Cast <to = 1> (x) }> (c)
        }",
    ))
    .expect("widens");
    let error = found.check(&graph).expect_err("declined").to_string();
    assert!(
        error.contains("`x`") && error.contains("float16"),
        "{error}"
    );
}

#[test]
fn an_output_that_is_a_constant_gets_its_cast() {
    let (mut graph, found) = widened(&model(
        "g (float[2] x) => (float16[2] b) <float16[2] b = {15360, 15360}> { y = Relu (x) }",
    ))
    .expect("widens");
    found.restore(&mut graph);
    let made = graph.find("b").expect("the output");
    assert!(graph.is(made.node, "Cast"));
    let info = graph.value_info(made).expect("a type");
    let text = format!("{:?}", info.r#type);
    assert!(
        text.contains(&format!("elem_type: Some({})", DataType::Float16 as i32)),
        "{text}"
    );
}
