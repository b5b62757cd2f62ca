//! Each rule: text in, text out, and the same numbers in ONNX Runtime.

use tempfile::TempDir;
use vitq_passes::ir::Graph;
use vitq_passes::simplify::{Report, simplify};

use crate::support::{differences, parse, save};

/// The graph of a text in that operator set.
pub fn model(opset: i64, text: &str) -> Graph {
    // Operator set 23 came with version 11.
    let ir_version = if opset < 23 { 8 } else { 11 };
    parse(&format!(
        "<ir_version: {ir_version}, opset_import: [\"\" : {opset}, \"com.microsoft\" : 1]>\n{text}"
    ))
}

/// The graph of `before` becomes that of `after` and computes the same.
#[track_caller]
pub fn rewrites(before: &str, after: &str) -> Report {
    becomes(17, before, 17, after)
}

#[track_caller]
pub fn becomes(opset: i64, before: &str, opset_after: i64, after: &str) -> Report {
    let mut graph = model(opset, before);
    let folder = TempDir::new().expect("a folder");
    let original = save(&graph, &folder, "before.onnx");
    let report = simplify(&mut graph);
    assert_eq!(
        graph.to_string(),
        model(opset_after, after).to_string(),
        "{report}"
    );
    let simplified = save(&graph, &folder, "after.onnx");
    let difference = differences(&[(original, simplified)])[0];
    assert!(difference <= 1e-6, "{difference}");
    report
}

#[track_caller]
pub fn stays_in(opset: i64, text: &str) {
    becomes(opset, text, opset, text);
}

/// The text of what a graph becomes, which computes the same.
#[track_caller]
pub fn computes_the_same(opset: i64, before: &str) -> String {
    let mut graph = model(opset, before);
    let folder = TempDir::new().expect("a folder");
    let original = save(&graph, &folder, "before.onnx");
    simplify(&mut graph);
    let simplified = save(&graph, &folder, "after.onnx");
    let difference = differences(&[(original, simplified)])[0];
    assert!(difference <= 1e-6, "{difference}");
    graph.to_string()
}

#[track_caller]
fn stays(text: &str) {
    rewrites(text, text);
}

#[test]
fn attention_scale_of_a_known_width_is_a_constant() {
    let report = rewrites(
        "g (float[n, 3, 5, 64] q) => (float[n, 3, 5, 64] y) {
            shape = Shape(q)
            from = Constant<value = int64[1] {-1}>()
            to = Constant<value = int64[1] {9223372036854775807}>()
            width = Slice(shape, from, to)
            wide = Cast<to = 1>(width)
            root = Sqrt(wide)
            one = Constant<value = float[1] {1.0}>()
            inverse = Div(one, root)
            same = Cast<to = 1>(inverse)
            scale = Sqrt(same)
            y = Mul(q, scale)
        }",
        "g (float[n, 3, 5, 64] q) => (float[n, 3, 5, 64] y)
        <float[1] scale = {0.35355338}> { y = Mul(q, scale) }",
    );
    assert!(
        report.fired["constants"] == 9 && report.declined.is_empty(),
        "{report}"
    );
}

#[test]
fn constants_are_moved_and_computed() {
    rewrites(
        "g (float[n, 2] x) => (float[n, 2] y, float[2, 3] moved)
        <float[2, 3] a = {1, 2, 3, 4, 5, 6}, int64[2] pick = {-1, 0}, int64[1] one = {1}, int64[1] end = {-4}, int64[1] back = {-1},
         int64[2] shape = {2, 1}, float[1] two = {2}> {
            t = Transpose(a)
            rows = Gather(t, pick)
            tail = Slice(rows, back, end, one, back)
            both = Concat<axis = 0>(tail, rows)
            first = Gather(both, z)
            z = Constant<value_int = 3>()
            powers = Pow(first, two)
            up = Unsqueeze(powers, one)
            low = Squeeze(up, one)
            flat = Reshape(low, shape)
            wide = Expand(flat, shape)
            list = Constant<value_floats = [0.5, 0.25]>()
            sum = Sub(list, powers)
            y = Add(x, sum)
            moved = Identity(a)
        }",
        "g (float[n, 2] x) => (float[n, 2] y, float[2, 3] moved)
        <float[2, 3] a = {1, 2, 3, 4, 5, 6}, float[2] sum = {-0.5, -15.75}> {
            y = Add(x, sum)
            moved = Identity(a)
        }",
    );
}

#[test]
fn large_results_and_outputs_are_not_folded() {
    stays(
        "g (float[n, 1] x) => (float[3] c, float[n, 10000] y) <int64[1] many = {10000}> {
            c = Constant<value = float[3] {1.0, 2.0, 3.0}>()
            zeros = ConstantOfShape(many)
            y = Add(x, zeros)
        }",
    );
}

#[test]
fn what_changes_nothing_goes() {
    rewrites(
        "g (float[n, 4, 6] x) => (float[n, 4, 6] y)
        <float one = {1}, float[6] ones = {1, 1, 1, 1, 1, 1}, float[1] zero = {0}, int64[3] all = {0, -1, 6}, int64[1] from = {0}, int64[1] to = {4}, int64[1] axis = {1}> {
            a = Identity(x)
            b = Mul(one, a)
            c = Div(b, ones)
            d = Add(zero, c)
            e = Sub(d, zero)
            f = Dropout(e)
            h = Cast<to = 1>(f)
            i = Reshape(h, all)
            j = Transpose<perm = [0, 1, 2]>(i)
            k = Slice(j, from, to, axis)
            l = Concat<axis = 2>(k)
            m = Relu(l)
            n = Identity(m)
            y = Identity(n)
        }",
        "g (float[n, 4, 6] x) => (float[n, 4, 6] y) { y = Relu(x) }",
    );
}

#[test]
fn what_changes_something_stays() {
    // A constant that widens, one that is not all ones, steps backwards, a value with another name outside.
    stays(
        "g (float[n, 6] x) => (float[n, 6] same, float[1, n, 6] a, float[n, 6] b, float[n, 6] c, float[n, 6] d)
        <float[1, 1, 1] one = {1}, float[6] most = {1, 1, 1, 1, 1, 2}, int64[1] from = {-1}, int64[1] to = {-9223372036854775807}, int64[1] axis = {1}> {
            same = Identity(x)
            a = Mul(x, one)
            b = Mul(x, most)
            c = Slice(x, from, to, axis, from)
            d = Sub(most, x)
        }",
    );
}

#[test]
fn two_outputs_of_one_value_keep_their_names() {
    rewrites(
        "g (float[n] x) => (float[n] y, float[n] z) { a = Relu(x) y = Identity(a) z = Identity(a) }",
        "g (float[n] x) => (float[n] y, float[n] z) { y = Relu(x) z = Identity(y) }",
    );
}

#[test]
fn targets_of_reshape_are_said_by_numbers() {
    rewrites(
        "g (float[n, 8, 6] x, float[n, 2] other) => (float[n, 8, 2, 3] y, float[m, 6] z)
        <int64 i0 = {0}, int64[1] at0 = {0}, int64[2] heads = {2, 3}, int64[1] six = {6}, int64[1] at1 = {1}> {
            shape = Shape(x)
            n = Gather(shape, i0)
            n1 = Unsqueeze(n, at0)
            t = Gather(shape, at1)
            target = Concat<axis = 0>(n1, t, heads)
            y = Reshape(x, target)
            shape2 = Shape(other)
            rows = Gather(shape2, at0)
            all = Mul(rows, t)
            flat = Concat<axis = 0>(all, six)
            z = Reshape(x, flat)
        }",
        "g (float[n, 8, 6] x, float[n, 2] other) => (float[n, 8, 2, 3] y, float[m, 6] z)
        <int64[4] target_1 = {0, 8, 2, 3}, int64[2] flat_1 = {-1, 6}> {
            y = Reshape(x, target_1)
            z = Reshape(x, flat_1)
        }",
    );
}

#[test]
fn targets_of_two_free_sizes_stay() {
    stays(
        "g (float[n, m, 6] x, float[m, n] other) => (float[m, n, 6] y) <int64[1] six = {6}> {
            shape = Shape(other)
            target = Concat<axis = 0>(shape, six)
            y = Reshape(x, target)
        }",
    );
}

#[test]
fn the_batch_of_a_token_is_read_from_the_input() {
    rewrites(
        "g (float[n, 3, 6] x) => (float[n, 4, 6] y)
        <float[1, 1, 6] token = {1, 2, 3, 4, 5, 6}, int64 i0 = {0}, int64[1] at0 = {0}, int64[1] minus = {-1}, int64 less = {-1}> {
            r = Relu(x)
            shape = Shape(r)
            n = Gather(shape, i0)
            n1 = Unsqueeze(n, at0)
            wanted = Concat<axis = 0>(n1, minus, minus)
            flat = Reshape(wanted, minus)
            rank = Shape(flat)
            ones = ConstantOfShape<value = int64[1] {1}>(rank)
            negative = Mul(ones, less)
            kept = Equal(flat, negative)
            target = Where(kept, ones, flat)
            [expand] tokens = Expand(token, target)
            y = Concat<axis = 1>(tokens, r)
        }",
        "g (float[n, 3, 6] x) => (float[n, 4, 6] y)
        <float[1, 1, 6] token = {1, 2, 3, 4, 5, 6}, int64[2] \"expand/after\" = {1, 1}, int64[1] \"expand/axis\" = {0}> {
            r = Relu(x)
            [\"expand/Shape\"] \"expand/Shape\" = Shape(x)
            [\"expand/Gather\"] \"expand/Gather\" = Gather<axis = 0>(\"expand/Shape\", \"expand/axis\")
            [\"expand/Concat\"] \"expand/Concat\" = Concat<axis = 0>(\"expand/Gather\", \"expand/after\")
            [expand] tokens = Expand(token, \"expand/Concat\")
            y = Concat<axis = 1>(tokens, r)
        }",
    );
}

const GAMMA: &str = "float[4] gamma = {1, 2, 3, 4}, float[4] beta = {0.5, 0.25, -1, 2}";

#[test]
fn layer_norm_in_parts_is_one_operator() {
    for chain in [
        "p = Pow(c, two) v = ReduceMean<axes = [-1]>(p) e = Add(v, eps) s = Sqrt(e) q = Div(c, s)",
        "d = Sub(x, mean) p = Mul(d, d) v = ReduceMean<axes = [2]>(p) e = Add(eps, v) s = Pow(e, half) q = Div(c, s)",
        "p = Pow(c, two) v = ReduceMean<axes = [-1]>(p) e = Add(v, eps) s = Sqrt(e) r = Reciprocal(s) q = Mul(r, c)",
        "p = Pow(c, two) v = ReduceMean<axes = [-1]>(p) e = Add(v, eps) s = Sqrt(e) r = Div(one, s) q = Mul(c, r)",
    ] {
        let report = becomes(
            13,
            &format!(
                "g (float[n, 3, 4] x) => (float[n, 3, 4] y)
                <{GAMMA}, float two = {{2}}, float half = {{0.5}}, float one = {{1}}, float eps = {{1e-6}}> {{
                    mean = ReduceMean<axes = [-1]>(x)
                    c = Sub(x, mean)
                    {chain}
                    scaled = Mul(gamma, q)
                    [\"/norm1/Add_1\"] shifted = Add(scaled, beta)
                    y = Relu(shifted)
                }}"
            ),
            17,
            &format!(
                "g (float[n, 3, 4] x) => (float[n, 3, 4] y) <{GAMMA}> {{
                    [\"/norm1/LayerNormalization\"] shifted = LayerNormalization<axis = -1, epsilon = 1e-6>(x, gamma, beta)
                    y = Relu(shifted)
                }}"
            ),
        );
        assert_eq!(report.fired["layer_norm"], 1);
    }
}

#[test]
fn a_bias_behind_a_reshape_goes_back_to_its_linear() {
    for (target, bias, dims) in [
        ("{-1, 3, 4}", "float[4]", "?, 3, 4"),
        ("{-1, 3, 2, 2}", "float[1, 2, 2]", "?, 3, 2, 2"),
    ] {
        let after = computes_the_same(
            17,
            &format!(
                "g (float[n, 2] x) => (float[{dims}] y)
                <float[2, 4] w = {{1, 2, 3, 4, 5, 6, 7, 8}}, int64[{}] s = {target}, {bias} b = {{0.5, 1, 2, 4}}> {{
                    t = Concat<axis = 0>(x, x, x)
                    m = MatMul(t, w)
                    r = Reshape(m, s)
                    a = Add(b, r)
                    y = Relu(a)
                }}",
                target.split(',').count()
            ),
        );
        let (add, reshape) = (after.find("Add ("), after.find("Reshape ("));
        let (add, reshape) = (
            add.or(after.find("Add(")),
            reshape.or(after.find("Reshape(")),
        );
        assert!(add.is_some() && add < reshape, "{after}");
    }
}

#[test]
fn layer_norm_as_jax_and_keras_write_it_is_one_operator() {
    let raw = "m = ReduceMean<axes = [-1]>(x)
            c = Sub(x, m)
            q = Mul(x, x)
            e = ReduceMean<axes = [-1]>(q)
            f = Mul(m, m)
            u = Sub(e, f)
            v = Max(u, zero)
            w = Add(v, epsilon)
            d = Sqrt(w)
            n = Div(c, d)
            s = Mul(n, gamma)
            y = Add(s, beta)";
    let scaled = |shift: &str| {
        format!(
            "m = GlobalAveragePool(x)
            c = Sub(x, m)
            q = Mul(c, c)
            v = GlobalAveragePool(q)
            w = Add(v, epsilon)
            d = Sqrt(w)
            i = Reciprocal(d)
            s = Mul(i, gamma)
            p = Mul(x, s)
            {shift}
            y = Add(p, t)"
        )
    };
    let bodies = [
        raw.to_owned(),
        scaled("g = Neg(m)  h = Mul(g, s)  t = Add(h, beta)"),
        scaled("h = Mul(s, m)  t = Sub(beta, h)"),
        scaled("g = Neg(m)  t = Mul(g, s)"),
    ];
    for body in bodies {
        let after = computes_the_same(
            17,
            &format!(
                "g (float[n, 4, 3] x) => (float[n, 4, 3] y)
                <float zero = {{0}}, float epsilon = {{0.01}}, float[1, 1, 3] gamma = {{1, 2, 3}}, float[3] beta = {{0.5, 0, 1}}> {{
                    {body}
                }}"
            ),
        );
        assert!(
            after.contains("LayerNormalization") && !after.contains("Sqrt"),
            "{after}"
        );
    }
}

#[test]
fn what_only_looks_like_their_layer_norms_stays() {
    for body in [
        // Another value's mean.
        "m = GlobalAveragePool(z)  t = Sub(beta, h)",
        // The shift is no vector of channels.
        "m = GlobalAveragePool(x)  t = Sub(z, h)",
    ] {
        let after = computes_the_same(
            17,
            &format!(
                "g (float[n, 4, 3] x, float[n, 4, 3] z) => (float[n, 4, 3] y)
                <float epsilon = {{0.01}}, float[3] gamma = {{1, 2, 3}}, float[3] beta = {{0.5, 0, 1}}> {{
                    o = GlobalAveragePool(x)
                    c = Sub(x, o)
                    q = Mul(c, c)
                    v = GlobalAveragePool(q)
                    w = Add(v, epsilon)
                    d = Sqrt(w)
                    i = Reciprocal(d)
                    s = Mul(i, gamma)
                    p = Mul(x, s)
                    {}
                    y = Add(p, t)
                }}",
                body.replace("t =", "h = Mul(m, s)  t =")
            ),
        );
        assert!(!after.contains("LayerNormalization"), "{after}");
    }
}

#[test]
fn layer_norm_without_parameters_gets_neutral_ones() {
    becomes(
        17,
        "g (float[n, 2] x) => (float[n, 2] y) <float two = {2}, float eps = {1e-5}> {
            mean = ReduceMean<axes = [-1]>(x)
            c = Sub(x, mean)
            p = Pow(c, two)
            v = ReduceMean<axes = [-1]>(p)
            e = Add(v, eps)
            s = Sqrt(e)
            [div] y = Div(c, s)
        }",
        17,
        "g (float[n, 2] x) => (float[n, 2] y)
        <float[2] \"div_LayerNormalization/scale\" = {1, 1}, float[2] \"div_LayerNormalization/bias\" = {0, 0}> {
            [div_LayerNormalization] y = LayerNormalization<axis = -1, epsilon = 1e-5>(x, \"div_LayerNormalization/scale\", \"div_LayerNormalization/bias\")
        }",
    );
}

#[test]
fn other_norms_stay() {
    // Over the channels of an image; a variance of another value; a root mean square.
    stays(
        "g (float[n, 3, 4] x, float[n, 3, 4] w) => (float[n, 3, 4] a, float[n, 3, 4] b, float[n, 3, 4] c)
        <float two = {2}, float eps = {1e-5}> {
            mean1 = ReduceMean<axes = [1]>(x)
            c1 = Sub(x, mean1)
            p1 = Pow(c1, two)
            v1 = ReduceMean<axes = [1]>(p1)
            e1 = Add(v1, eps)
            s1 = Sqrt(e1)
            a = Div(c1, s1)
            mean2 = ReduceMean<axes = [2]>(x)
            c2 = Sub(x, mean2)
            p2 = Pow(w, two)
            v2 = ReduceMean<axes = [2]>(p2)
            e2 = Add(v2, eps)
            s2 = Sqrt(e2)
            b = Div(c2, s2)
            p3 = Pow(x, two)
            v3 = ReduceMean<axes = [2]>(p3)
            e3 = Add(v3, eps)
            s3 = Sqrt(e3)
            c = Div(x, s3)
        }",
    );
}

#[test]
fn layer_norm_that_cannot_be_said_says_why() {
    let mut graph = model(
        12,
        "g (float[n, 2, 2] x) => (float[n, 2, 2] y) <float two = {2}, float eps = {1e-5}> {
            mean = ReduceMean<axes = [-1]>(x)
            c = Sub(x, mean)
            p = Pow(c, two)
            v = ReduceMean<axes = [-1]>(p)
            e = Add(v, eps)
            s = Sqrt(e)
            q = Div(c, s)
            [flat_softmax] y = Softmax<axis = 1>(q)
        }",
    );
    let before = graph.to_string();
    let report = simplify(&mut graph);
    assert_eq!(graph.to_string(), before);
    let [reason] = &report.declined[..] else {
        panic!("{report}")
    };
    assert!(
        reason.contains("\"flat_softmax\"") && reason.contains("1 LayerNormalizations"),
        "{reason}"
    );
}

#[test]
fn gemm_is_a_product_and_a_bias() {
    rewrites(
        "g (float[n, 2] x) => (float[n, 3] y, float[n, 3] z, float[n, 2] v)
        <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[3] b = {1, 2, 3}, float[1, 2] c = {4, 5}> {
            [head] h = Gemm<transB = 1>(x, w, b)
            [again] y = Gemm<transB = 1, alpha = 2.0, beta = 0.5>(x, w, b)
            [shared] z = Gemm<transB = 1>(x, w)
            [plain] v = Gemm(h, w, c)
        }",
        "g (float[n, 2] x) => (float[n, 3] y, float[n, 3] z, float[n, 2] v)
        <float[3, 2] w = {1, 2, 3, 4, 5, 6}, float[3] b = {1, 2, 3}, float[2, 3] w_1 = {1, 3, 5, 2, 4, 6},
         float[2, 3] w_2 = {2, 6, 10, 4, 8, 12}, float[3] b_1 = {0.5, 1, 1.5}, float[2] c_1 = {4, 5}> {
            [head] head = MatMul(x, w_1)
            [\"head/Add\"] h = Add(head, b)
            [again] again = MatMul(x, w_2)
            [\"again/Add\"] y = Add(again, b_1)
            [shared] z = MatMul(x, w_1)
            [plain] plain = MatMul(h, w)
            [\"plain/Add\"] v = Add(plain, c_1)
        }",
    );
}

#[test]
fn gemm_of_other_forms_stays() {
    stays(
        "g (float[2, n] x, float[n, 2] u, float[n, 3] k) => (float[n, 3] y, float[n, 3] z)
        <float[2, 3] c = {1, 2, 3, 4, 5, 6}> {
            y = Gemm<transA = 1>(x, c)
            z = Gemm<beta = 0.5>(u, c, k)
        }",
    );
}

#[test]
fn a_bias_comes_last_and_is_a_vector() {
    rewrites(
        "g (float[n, 3, 2] x) => (float[n, 3, 2] y, float[n, 3, 2] z)
        <float[2, 2] w = {1, 2, 3, 4}, float[1, 1, 2] b = {5, 6}> {
            t = MatMul(x, w)
            y = Add(b, t)
            z = Mul(x, b)
        }",
        "g (float[n, 3, 2] x) => (float[n, 3, 2] y, float[n, 3, 2] z)
        <float[2, 2] w = {1, 2, 3, 4}, float[1, 1, 2] b = {5, 6}, float[2] b_1 = {5, 6}> {
            t = MatMul(x, w)
            z = Mul(x, b)
            y = Add(t, b_1)
        }",
    );
}

#[test]
fn what_a_sub_graph_reads_by_name_stays() {
    // `c` becomes an initialiser under its name; the Identity that the branch reads keeps its own.
    let text = |constant: &str, c: &str| {
        format!(
            "g (float[n] x) => (float[n] y) <bool[1] flag = {{1}}{constant}> {{
                a = Relu(x)
                b = Identity(a)
                {c}
                y = If<then_branch = t () => (float[n] s) {{ s = Add(b, c) }}, else_branch = e () => (float[n] r) {{ r = Neg(b) }}>(flag)
            }}"
        )
    };
    rewrites(
        &text("", "c = Constant<value = float[1] {2.0}>()"),
        &text(", float[1] c = {2}", ""),
    );
}

#[test]
fn shapes_that_do_not_fit_are_left_alone() {
    // Wrong models must not make a rule panic or loop.
    for body in [
        "t = Transpose<perm = [0, 7]>(c) y = MatMul(x, t)",
        "t = Transpose<perm = [0, 0]>(c) y = MatMul(x, t)",
        "t = Concat<axis = 9>(c, c) y = MatMul(x, t)",
        "t = Concat<axis = 1>(c, i) y = MatMul(x, t)",
        "t = Gather<axis = 1>(c, big) y = MatMul(x, t)",
        "t = Slice(c, i, i, i, zero) y = MatMul(x, t)",
        "t = Slice(c, big, i, big, big) y = MatMul(x, t)",
        "t = Reshape(c, big) y = MatMul(x, t)",
        "t = Reshape(c) y = MatMul(x, t)",
        "t = Expand(c, big) y = MatMul(x, t)",
        "t = ConstantOfShape(big) y = MatMul(x, t)",
        "t = Add(c, d) y = MatMul(x, t)",
        "t = Cast(c) y = MatMul(x, t)",
        "t = Cast<to = 99>(c) y = MatMul(x, t)",
        "t = Unsqueeze(c, big) y = MatMul(x, t)",
        "t = Squeeze(c, i) y = MatMul(x, t)",
        "t = Split<axis = 5>(c) y = MatMul(x, t)",
        "t = Range(big, zero, zero) y = Add(x, t)",
        "y = Gemm(x)",
        "y = Gemm<transB = 1>(x, i)",
        "y = Conv(x, c)",
        "y = Conv<strides = [0], kernel_shape = [9]>(x, e)",
        "y = ReduceMean<axes = [9]>(x)",
        "m = ReduceMean<axes = [-1]>(x) k = Sub(x, m) y = Div(k, k)",
        "y = Dropout(x, big, big)",
        "y = Mul(x)",
        "y = Pad(x, i)",
        "y = Tile(x, big)",
        "y = Flatten<axis = -9>(x)",
    ] {
        let mut graph = model(
            17,
            &format!(
                "g (float[n, 3] x) => (float[n, 3] y)
                <float[3, 3] c = {{1, 2, 3, 4, 5, 6, 7, 8, 9}}, float[2] d = {{1, 2}}, float[1, 1, 1] e = {{1}},
                 int64[2] i = {{1, 0}}, int64[1] zero = {{0}}, int64[2] big = {{9223372036854775807, -9223372036854775808}}> {{ {body} }}"
            ),
        );
        let report = simplify(&mut graph);
        assert!(report.fired.len() < 4, "{body}: {report}");
        assert!(graph.to_string().contains("y ="), "{body}");
    }
}
