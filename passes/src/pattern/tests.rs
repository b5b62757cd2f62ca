use super::{Pattern, either, number, op, var};
use crate::ir::Graph;

/// A graph on `x` and `y` [4] that computes `result` by `body`.
fn graph(body: &str) -> Graph {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\" : 17]>
         g (float[4] x, float[4] y) => (float[4] result)
         <float half = {{0.5}}, float[1] two = {{2.0}}, float one = {{1.0}},
          float[2] pair = {{2.0, 2.0}}> {{ {body} }}"
    );
    Graph::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// Names of what `x` and `y` of the pattern stand for, if it fits the result.
fn bound(pattern: &Pattern, body: &str) -> Option<Vec<String>> {
    let graph = graph(body);
    let found = pattern.find(&graph, graph.find("result").expect("the result"))?;
    let name = |v: &&str| found.get(v).map(|value| graph.name(value).to_owned());
    Some(["x", "y"].iter().filter_map(name).collect())
}

#[test]
fn products_and_sums_match_in_any_order_and_association() {
    let pattern = var("x") * 0.5 * (op("Erf", [var("x")]) + 1.0);
    for body in [
        "e = Erf(x)  a = Add(e, one)  m = Mul(x, half)  result = Mul(m, a)",
        "e = Erf(x)  a = Add(one, e)  m = Mul(half, a)  result = Mul(x, m)",
        "e = Erf(x)  a = Add(e, one)  m = Mul(a, x)  result = Div(m, two)",
        "m = Div(x, two)  e = Erf(x)  a = Add(one, e)  result = Mul(a, m)",
        "e = Erf(x)  a = Sub(e, half)  b = Sub(a, half)  c = Add(b, two)
         m = Mul(x, two)  n = Div(m, two)  k = Mul(n, half)  result = Mul(k, c)",
    ] {
        assert_eq!(bound(&pattern, body), Some(vec!["x".to_owned()]), "{body}");
    }
}

#[test]
fn what_differs_does_not_match() {
    let pattern = var("x") * 0.5 * (op("Erf", [var("x")]) + 1.0);
    for body in [
        // another number, another value in one of the places, another operator, division the wrong way round
        "e = Erf(x)  a = Add(e, one)  m = Mul(x, two)  result = Mul(m, a)",
        "e = Erf(y)  a = Add(e, one)  m = Mul(x, half)  result = Mul(m, a)",
        "e = Tanh(x)  a = Add(e, one)  m = Mul(x, half)  result = Mul(m, a)",
        "e = Erf(x)  a = Add(e, one)  m = Div(half, x)  result = Mul(m, a)",
        "e = Erf(x)  a = Add(e, one)  m = Mul(x, half)  result = Div(m, a)",
    ] {
        assert_eq!(bound(&pattern, body), None, "{body}");
    }
}

#[test]
fn a_variable_may_stand_for_a_product_itself() {
    let pattern = var("x") * op("Sigmoid", [var("x") * 0.5]);
    let body = "p = Mul(x, y)  h = Mul(p, half)  s = Sigmoid(h)  result = Mul(s, p)";
    assert_eq!(bound(&pattern, body), Some(vec!["p".to_owned()]));
    let body = "p = Mul(x, half)  h = Mul(p, half)  s = Sigmoid(h)  result = Mul(s, p)";
    assert_eq!(bound(&pattern, body), Some(vec!["p".to_owned()]));
}

#[test]
fn variables_are_tried_in_every_place() {
    // The first leaf that fits `x` alone leaves nothing for the rest.
    let pattern = var("x") * var("y") * op("Erf", [var("y")]);
    let body = "e = Erf(x)  m = Mul(x, y)  result = Mul(m, e)";
    assert_eq!(
        bound(&pattern, body),
        Some(vec!["y".to_owned(), "x".to_owned()])
    );
}

#[test]
fn optional_parts_and_alternatives() {
    let pattern = op("Erf", [op("Neg", [var("x")]).or_cast()]);
    assert!(bound(&pattern, "n = Neg(x)  result = Erf(n)").is_some());
    assert!(bound(&pattern, "n = Neg(x)  c = Cast<to=1>(n)  result = Erf(c)").is_some());
    assert!(bound(&pattern, "c = Cast<to=1>(x)  result = Erf(c)").is_none());
    let biased = either([op("Erf", [var("x")]) + var("y"), op("Erf", [var("x")])]);
    let found = bound(&biased, "e = Erf(x)  result = Add(y, e)");
    assert_eq!(found, Some(vec!["x".to_owned(), "y".to_owned()]));
    assert_eq!(
        bound(&biased, "result = Erf(x)"),
        Some(vec!["x".to_owned()])
    );
}

#[test]
fn numbers_are_single_elements_within_a_tolerance() {
    let times = |value: f32| var("x") * value;
    assert!(bound(&times(2.0005), "result = Mul(x, two)").is_some());
    assert!(bound(&times(2.01), "result = Mul(x, two)").is_none());
    assert!(
        bound(
            &times(2.0),
            "a = Concat<axis=0>(pair, pair)  result = Mul(x, a)"
        )
        .is_none()
    );
    let power = op("Pow", [var("x"), number(2.0)]);
    assert!(bound(&power, "result = Pow(x, two)").is_some());
    assert!(bound(&power, "result = Pow(x, half)").is_none());
}

#[test]
fn the_covered_operators_are_those_of_the_expression() {
    let graph = graph("p = Neg(x)  e = Erf(p)  a = Add(e, one)  result = Mul(p, a)");
    let pattern = var("x") * (op("Erf", [var("x")]) + 1.0);
    let found = pattern
        .find(&graph, graph.find("result").expect("result"))
        .expect("a match");
    let covered: Vec<&str> = found
        .nodes()
        .filter_map(|n| graph.op(n))
        .map(|op| op.op_type())
        .collect();
    assert_eq!(covered, ["Erf", "Add", "Mul"]);
}

#[test]
fn a_long_residual_stream_is_not_walked_to_its_end() {
    let mut body = "r0 = Add(x, y)".to_owned();
    for i in 1..3000 {
        body += &format!("  r{i} = Add(r{}, y)", i - 1);
    }
    body += "  result = Add(r2999, one)";
    assert!(bound(&(op("Erf", [var("x")]) + var("y") + 1.0), &body).is_none());
}
