//! Graphs in ONNX text: what the passes make of them.

use super::{choose_early, fuse_attentions, fuse_gelus, to_gemm};
use crate::ir::Graph;

/// The nodes of a graph on tokens `x` [n, 8, 4] and `z` [n, 8, 4] behind the pass, with the number of narrowed products.
fn chosen(nodes: &str) -> (usize, String) {
    let values: Vec<String> = (0..16).map(|i| format!("{i}")).collect();
    let text = format!(
        "<ir_version: 8, opset_import: [\"\" : 17]>
         g (float[n,8,4] x, float[n,8,4] z) => (float[n,m] y)
         <float[4,4] w = {{{}}}, float[4] b = {{1, 2, 3, 4}}, float s = {{0.5}}, uint8 o = {{3}}, int64 first = {{0}}, int64 last = {{7}},
          int64[2] two = {{0, 1}}, int64[1] zero = {{0}}, int64[1] one = {{1}}, int64[4] heads = {{0, 8, 2, 2}},
          int64[3] joined = {{0, 8, 4}}, int64[2] flat = {{-1, 4}}> {{ {nodes} }}",
        values.join(", ")
    );
    let mut graph = Graph::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let products = choose_early(&mut graph);
    graph.remove_dead();
    (products, printed(&graph))
}

/// A line a node: what it gives, its operator, and what it reads but initialisers.
fn printed(graph: &Graph) -> String {
    let nodes = graph.topological().expect("an order");
    let names = nodes.into_iter().filter_map(|id| {
        let op = graph.op(id)?;
        let inputs = graph.node_inputs(id);
        let inputs = inputs
            .into_iter()
            .flatten()
            .filter(|v| graph.initializer(*v).is_none());
        let inputs: Vec<_> = inputs.map(|v| graph.name(v).to_owned()).collect();
        Some(format!(
            "{} = {}({})",
            op.outputs[0],
            op.op_type(),
            inputs.join(", ")
        ))
    });
    names.collect::<Vec<_>>().join("\n")
}

#[test]
fn a_choice_moves_before_sums_norms_and_products() {
    let (products, text) = chosen(
        "m = MatMul(x, w)  a = Add(m, b)  r = Add(a, z)  t = LayerNormalization<axis=-1>(r, b, b)
         y = Gather<axis=1>(t, first)",
    );
    assert_eq!(products, 1);
    let expected = "x/chosen = Slice(x)\nz/chosen = Slice(z)\nm/chosen = MatMul(x/chosen)\na/chosen = Add(m/chosen)\n\
                    r/chosen = Add(a/chosen, z/chosen)\nt/chosen = LayerNormalization(r/chosen)\ny = Gather(t/chosen)";
    let sorted = |text: &str| {
        let mut lines: Vec<_> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    assert_eq!(sorted(&text), sorted(expected), "{text}");
}

#[test]
fn a_choice_moves_through_an_attention_up_to_the_queries() {
    let (products, text) = chosen(
        "q0 = Reshape(x, heads)  q = Transpose<perm=[0,2,1,3]>(q0)  k = Transpose<perm=[0,2,3,1]>(q0)
         p = MatMul(q, k)  c = Softmax<axis=-1>(p)  v = MatMul(c, q)  h = Transpose<perm=[0,2,1,3]>(v)
         j = Reshape(h, joined)  m = MatMul(j, w)  y = Gather<axis=1>(m, first)",
    );
    assert_eq!(products, 3, "{text}");
    assert!(text.contains("q/chosen = Slice(q)\n"), "{text}");
    assert!(text.contains("v/chosen = MatMul(c/chosen, q)\n"), "{text}");
}

#[test]
fn a_dequantised_value_is_cut_where_it_is_codes() {
    let (products, text) = chosen(
        "u = QuantizeLinear(x, s, o)  d = DequantizeLinear(u, s, o)  m = MatMul(d, w)  k = MatMul(d, w)
         c = Gather<axis=1>(m, first)  g = ReduceMean<axes=[1], keepdims=0>(k)  y = Add(c, g)",
    );
    assert_eq!(products, 1, "{text}");
    assert!(text.contains("u/chosen = Slice(u)\n"), "{text}");
    assert!(
        text.contains("d/chosen = DequantizeLinear(u/chosen)\n"),
        "{text}"
    );
}

#[test]
fn a_choice_moves_before_integer_products() {
    let (products, text) = chosen(
        "u = QuantizeLinear(x, s, o)  v = Cast<to=3>(w)  i = MatMulInteger(u, v, o)  f = Cast<to=1>(i)  m = Mul(f, s)
         a = Add(m, b)  y = Gather<axis=1>(a, first)",
    );
    assert_eq!(products, 1, "{text}");
    assert!(
        text.contains("i/chosen = MatMulInteger(u/chosen, v)\n"),
        "{text}"
    );
}

#[test]
fn several_choices_keep_the_tokens_of_all() {
    let (products, text) = chosen(
        "m = MatMul(x, w)  c = Gather<axis=1>(m, first)  d = Slice(m, zero, one, one)  e = ReduceMean<axes=[1], keepdims=0>(d)
         y = Add(c, e)",
    );
    assert_eq!(products, 1, "{text}");
}

#[test]
fn what_is_read_whole_stays() {
    for nodes in [
        // all tokens, the last of them, a mean over them
        "m = MatMul(x, w)  y = Reshape(m, flat)",
        "m = MatMul(x, w)  y = Gather<axis=1>(m, last)",
        "m = MatMul(x, w)  y = ReduceMean<axes=[1], keepdims=0>(m)",
        // tokens are mixed before the choice
        "m = MatMul(x, w)  t = Softmax<axis=1>(m)  y = Gather<axis=1>(t, first)",
        // another reader, or a reader of the shape
        "m = MatMul(x, w)  c = Gather<axis=1>(m, first)  g = ReduceMean<axes=[1], keepdims=0>(m)  y = Add(c, g)",
        "m = MatMul(x, w)  c = Gather<axis=1>(m, first)  h = Shape(m)  f = Cast<to=1>(h)  g = ReduceMean<axes=[0], keepdims=0>(f)
         y = Add(c, g)",
        // a choice of channels
        "m = MatMul(x, w)  y = Gather<axis=2>(m, first)",
        // no product becomes smaller
        "r = Relu(x)  y = Gather<axis=1>(r, first)",
    ] {
        let (products, text) = chosen(nodes);
        assert_eq!(products, 0, "{nodes}");
        assert!(!text.contains("chosen"), "{text}");
    }
}

/// A graph from `x` [n, 5, 4] to `y` behind a pass, and what the pass counted.
fn lowered(pass: fn(&mut Graph) -> usize, nodes: &str) -> (usize, String) {
    let text = format!(
        "<ir_version: 8, opset_import: [\"\" : 20]> g (float[n,5,4] x) => (float[n,5,m] y)
         <float[4,2] w = {{1, 2, 3, 4, 5, 6, 7, 8}}, float[2] b = {{1, 2}}, float half = {{0.5}}, float one = {{1}},
          float root = {{1.4142135}}> {{ {nodes} }}"
    );
    let mut graph = Graph::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    (pass(&mut graph), printed(&graph))
}

#[test]
fn a_gelu_in_arithmetic_becomes_one_operator() {
    let arithmetic = |function: &str| {
        format!(
            "s = Div(x, root)  e = {function}(s)  o = Add(e, one)  p = Mul(x, o)  g = Mul(p, half)  y = Neg(g)"
        )
    };
    let (count, text) = lowered(fuse_gelus, &arithmetic("Erf"));
    assert_eq!((count, &text[..]), (1, "g = Gelu(x)\ny = Neg(g)"));
    assert_eq!(lowered(fuse_gelus, &arithmetic("Tanh")).0, 0);
}

#[test]
fn a_linear_becomes_gemm_on_rows() {
    let (count, text) = lowered(to_gemm, "[fc] m = MatMul(x, w)  s = Add(m, b)  y = Neg(s)");
    let expected =
        "fc/rows = Reshape(x)\nfc/Gemm = Gemm(fc/rows)\ns = Reshape(fc/Gemm)\ny = Neg(s)";
    assert_eq!((count, &text[..]), (1, expected));
}

#[test]
fn a_product_that_others_read_or_with_a_computed_bias_stays() {
    for nodes in [
        "m = MatMul(x, w)  s = Add(m, b)  y = Mul(s, m)",
        "m = MatMul(x, w)  c = Neg(b)  y = Add(m, c)",
        "m = MatMul(x, w)  y = Mul(m, b)",
    ] {
        assert_eq!(lowered(to_gemm, nodes).0, 0, "{nodes}");
    }
}

/// Tokens `x` [n, 5, 12], two heads of two channels: what becomes of an attention in an operator set.
fn attended(opset: u32, nodes: &str) -> (usize, String) {
    let text = format!(
        "<ir_version: 11, opset_import: [\"\" : {opset}]> g (float[n,5,12] x, float[n,5,4] z) => (float[n,5,4] y)
         <int64[5] five = {{-1, 5, 3, 2, 2}}, int64[4] four = {{-1, 5, 2, 2}}, int64[3] joined = {{-1, 5, 4}}, int64 i = {{0}}, int64 j = {{1}},
          int64 k = {{-1}}, float half = {{0.5}}, float[1, 2, 5, 5] bias = {{{}}}> {{ {nodes} }}",
        ["1"; 50].join(", ")
    );
    let mut graph = Graph::parse(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    (fuse_attentions(&mut graph), printed(&graph))
}

/// Q, K and V of one product, as timm cuts it.
const STACKED: &str = "r = Reshape(x, five)  t = Transpose<perm=[2,0,3,1,4]>(r)  q = Gather(t, i)  kk = Gather(t, j)  v = Gather(t, k)
     kt = Transpose<perm=[0,1,3,2]>(kk)";
const JOINED: &str = "o = Transpose<perm=[0,2,1,3]>(c)  y = Reshape(o, joined)";

#[test]
fn an_attention_becomes_one_operator() {
    let stacked = format!(
        "{STACKED} qs = Mul(q, half)  p = MatMul(qs, kt)  b = Add(p, bias)  s = Softmax(b)  c = MatMul(s, v)  {JOINED}"
    );
    let expected = "r/thirds = Split(x)\ny = Attention(r/thirds/q, r/thirds/k, r/thirds/v)";
    let (count, text) = attended(23, &stacked);
    assert_eq!(count, 1, "{text}");
    let text = text.replace("x/thirds", "r/thirds");
    assert!(
        text.ends_with(expected.split_once('\n').unwrap().1),
        "{text}"
    );
    let apart = format!(
        "a = Reshape(z, four)  q = Transpose<perm=[0,2,1,3]>(a)  kt = Transpose<perm=[0,2,3,1]>(a)  v = Transpose<perm=[0,2,1,3]>(a)
         p = MatMul(q, kt)  d = Div(p, half)  s = Softmax<axis=-1>(d)  c = MatMul(s, v)  {JOINED}"
    );
    assert_eq!(attended(23, &apart), (1, "y = Attention(z, z, z)".into()));
    // There is no such operator before.
    assert_eq!(attended(22, &apart).0, 0);
}

#[test]
fn attentions_of_another_kind_stay() {
    for nodes in [
        // a bias before the scale, weights that something else reads, queries that turn, quantised weights
        "p = MatMul(q, kt)  b = Add(p, bias)  m = Mul(b, half)  s = Softmax(m)  c = MatMul(s, v)",
        "p = MatMul(q, kt)  s = Softmax(p)  c0 = MatMul(s, v)  e = ReduceMean<keepdims=0>(s)  c = Add(c0, e)",
        "n = Neg(q)  p = MatMul(n, kt)  s = Softmax(p)  c = MatMul(s, v)",
        "p = MatMul(q, kt)  s = Softmax<axis=2>(p)  c = MatMul(s, v)",
        "p = MatMul(q, kt)  s0 = Softmax(p)  s = Relu(s0)  c = MatMul(s, v)",
    ] {
        let nodes = format!("{STACKED} {nodes} {JOINED}");
        assert_eq!(attended(23, &nodes).0, 0, "{nodes}");
    }
}
