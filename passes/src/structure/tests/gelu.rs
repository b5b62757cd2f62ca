use super::super::{Role, find_gelus};
use super::{on_tokens, parse};

/// Every form in which exporters write GELU(x), with the operators that make it up.
const FORMS: [(&str, usize); 10] = [
    // TorchScript; dynamo; torch.nn.functional.gelu decomposed by others
    (
        "d = Div(x, root2)  e = Erf(d)  a = Add(e, one)  m = Mul(x, a)  y = Mul(m, half)",
        5,
    ),
    (
        "d = Div(x, root2)  e = Erf(d)  a = Add(e, one)  m = Mul(half, a)  y = Mul(x, m)",
        5,
    ),
    (
        "d = Mul(x, over_root2)  e = Erf(d)  a = Add(one, e)  m = Mul(x, half)  y = Mul(a, m)",
        5,
    ),
    (
        "p = Pow(x, three)  q = Mul(p, c)  r = Add(x, q)  s = Mul(r, k)  t = Tanh(s)
         u = Add(t, one)  m = Mul(x, half)  y = Mul(m, u)",
        8,
    ),
    (
        "xx = Mul(x, x)  xxx = Mul(xx, x)  q = Mul(c, xxx)  r = Add(q, x)  s = Mul(k, r)
         t = Tanh(s)  u = Add(one, t)  v = Mul(half, u)  y = Mul(v, x)",
        9,
    ),
    (
        "kx = Mul(k, x)  cx = Mul(c, x)  cxx = Mul(cx, x)  q = Add(cxx, one)  s = Mul(kx, q)
         t = Tanh(s)  u = Add(t, one)  v = Mul(half, u)  y = Mul(v, x)",
        9,
    ),
    ("q = Mul(x, quick)  s = Sigmoid(q)  y = Mul(x, s)", 3),
    ("y = Gelu(x)", 1),
    ("y = com.microsoft.Gelu(x)", 1),
    ("y = com.microsoft.FastGelu(x)", 1),
];

const CONSTANTS: &str = "float root2 = {1.4142135}, float over_root2 = {0.70710677},
    float one = {1.0}, float half = {0.5}, float three = {3.0}, float c = {0.044715},
    float k = {0.7978846}, float quick = {1.702}, float other = {1.6}";

#[test]
fn every_form_is_found() {
    for (nodes, covered) in FORMS {
        let graph = parse("(float[n,4] x) => (float[n,4] y)", CONSTANTS, nodes);
        let found = find_gelus(&graph);
        let names: Vec<_> = found
            .iter()
            .map(|g| (graph.name(g.input), graph.name(g.output)))
            .collect();
        assert_eq!(names, [("x", "y")], "{nodes}");
        assert_eq!(found[0].nodes.len(), covered, "{nodes}");
    }
}

#[test]
fn other_activations_are_not() {
    for nodes in [
        "s = Sigmoid(x)  y = Mul(x, s)",
        "q = Mul(x, other)  s = Sigmoid(q)  y = Mul(x, s)",
        "y = Relu(x)",
        "d = Div(x, root2)  e = Erf(d)  a = Add(e, one)  m = Mul(d, a)  y = Mul(m, half)",
    ] {
        let graph = parse("(float[n,4] x) => (float[n,4] y)", CONSTANTS, nodes);
        assert_eq!(find_gelus(&graph), [], "{nodes}");
    }
}

#[test]
fn linear_gelu_linear_is_an_mlp() {
    let found = on_tokens(
        "[fc1] m = MatMul(x, w)  h = Add(m, b)  g = Gelu(h)  i = Identity(g)
         [fc2] k = MatMul(i, w)  o = Add(b, k)  y = Add(o, x)",
    );
    let roles: Vec<Role> = found.sites.iter().map(|s| s.role).collect();
    assert_eq!((found.mlps, roles), (1, vec![Role::Fc1, Role::Fc2]));
    let lone = on_tokens("[fc1] m = MatMul(x, w)  y = Gelu(m)");
    assert_eq!((lone.mlps, lone.sites[0].role), (0, Role::Other));
}
