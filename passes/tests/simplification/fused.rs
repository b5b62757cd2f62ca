//! Operators that hold several, taken apart: text in, text out, and the same numbers in ONNX Runtime.

use crate::rules::{becomes, computes_the_same, rewrites, stays_in};

#[test]
fn an_attention_operator_becomes_its_products() {
    becomes(
        23,
        "g (float[n, 2, 3, 4] q, float[n, 2, 5, 4] k, float[n, 2, 5, 4] v) => (float[n, 2, 3, 4] y) {
            [a] y = Attention(q, k, v)
        }",
        23,
        "g (float[n, 2, 3, 4] q, float[n, 2, 5, 4] k, float[n, 2, 5, 4] v) => (float[n, 2, 3, 4] y)
        <float \"a/scale\" = {0.5}> {
            [\"a/Transpose\"] \"a/Transpose\" = Transpose<perm = [0, 1, 3, 2]>(k)
            [\"a/MatMul\"] \"a/MatMul\" = MatMul(q, \"a/Transpose\")
            [\"a/Mul\"] \"a/Mul\" = Mul(\"a/MatMul\", \"a/scale\")
            [\"a/Softmax\"] \"a/Softmax\" = Softmax<axis = -1>(\"a/Mul\")
            [\"a/MatMul_1\"] y = MatMul(\"a/Softmax\", v)
        }",
    );
}

#[test]
fn a_mask_is_added_or_chooses_and_heads_are_taken_apart() {
    for (mask, name) in [("float[3, 5] m", "Add"), ("bool[3, 5] m", "Where")] {
        let after = computes_the_same(
            23,
            &format!(
            "g (float[n, 3, 8] q, float[n, 5, 8] k, float[n, 5, 8] v, {mask}) => (float[n, 3, 8] y) {{
                [a] y = Attention<q_num_heads = 2, kv_num_heads = 2, scale = 0.3>(q, k, v, m)
            }}"
            ),
        );
        assert!(
            after.contains(name) && !after.contains("Attention<"),
            "{after}"
        );
    }
}

#[test]
fn attention_with_more_than_products_stays() {
    for (attributes, heads) in [
        ("is_causal = 1", 4),
        ("softcap = 2.0", 4),
        ("scale = 0.1", 2),
    ] {
        // Two heads of K for four of Q share them.
        stays_in(
            23,
            &format!(
                "g (float[n, 4, 3, 2] q, float[n, {heads}, 3, 2] k, float[n, {heads}, 3, 2] v) => (float[n, 4, 3, 2] y) {{
                    [a] y = Attention<{attributes}>(q, k, v)
                }}"
            ),
        );
    }
}

#[test]
fn einsum_of_two_matrices_is_a_matmul() {
    rewrites(
        "g (float[n, 2, 3, 4] q, float[n, 2, 5, 4] k) => (float[n, 2, 3, 5] y) {
            [e] y = Einsum<equation = \"b h i d, b h j d -> b h i j\">(q, k)
        }",
        "g (float[n, 2, 3, 4] q, float[n, 2, 5, 4] k) => (float[n, 2, 3, 5] y) {
            [\"e/right/Transpose\"] \"e/right/Transpose\" = Transpose<perm = [0, 1, 3, 2]>(k)
            [\"e/MatMul\"] y = MatMul(q, \"e/right/Transpose\")
        }",
    );
    rewrites(
        "g (float[n, 4, 3] q, float[n, 4, 5] k) => (float[n, 3, 5] y) {
            [e] y = Einsum<equation = \"bdi,bdj->bij\">(q, k)
        }",
        "g (float[n, 4, 3] q, float[n, 4, 5] k) => (float[n, 3, 5] y) {
            [\"e/left/Transpose\"] \"e/left/Transpose\" = Transpose<perm = [0, 2, 1]>(q)
            [\"e/MatMul\"] y = MatMul(\"e/left/Transpose\", k)
        }",
    );
}

#[test]
fn onnx_runtimes_fusions_are_undone() {
    rewrites(
        "g (float[n, 3, 4] x, float[n, 3, 4] r) => (float[n, 3, 4] y, float[n, 3, 4] s)
            <float[4] g = {1, 2, 3, 4}, float[4] e = {0, 1, 0, 1}, float[4] b = {1, 1, 2, 2}> {
                [k] y, \"\", \"\", s = com.microsoft.SkipLayerNormalization<epsilon = 0.00001>(x, r, g, e, b)
            }",
        "g (float[n, 3, 4] x, float[n, 3, 4] r) => (float[n, 3, 4] y, float[n, 3, 4] s)
            <float[4] g = {1, 2, 3, 4}, float[4] e = {0, 1, 0, 1}, float[4] b = {1, 1, 2, 2}> {
                [\"k/Add\"] \"k/Add\" = Add(x, b)
                [\"k/Add_1\"] s = Add(\"k/Add\", r)
                [\"k/LayerNormalization\"] y = LayerNormalization<axis = -1, epsilon = 0.00001>(s, g, e)
            }",
    );
    rewrites(
        "g (float[n, 3, 4] x) => (float[n, 3, 4] y) <float[4] b = {1, 1, 2, 2}> {
                [k] y = com.microsoft.BiasGelu(x, b)
            }",
        "g (float[n, 3, 4] x) => (float[n, 3, 4] y) <float[4] b = {1, 1, 2, 2}> {
                [\"k/Add\"] \"k/Add\" = Add(x, b)
                [\"k/Gelu\"] y = com.microsoft.Gelu(\"k/Add\")
            }",
    );
}

#[test]
fn a_scale_behind_a_linear_is_folded_into_it() {
    rewrites(
        "g (float[n, 3, 2] x) => (float[n, 3, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}, float[2] b = {1, 2}, float[2] g = {0.5, 2}> {
            m = MatMul(x, w)
            a = Add(m, b)
            s = Mul(g, a)
            y = Add(s, x)
        }",
        "g (float[n, 3, 2] x) => (float[n, 3, 2] y)
        <float[2, 2] w = {0.5, 4, 1.5, 8}, float[2] b = {0.5, 4}> {
            m = MatMul(x, w)
            a = Add(m, b)
            y = Add(a, x)
        }",
    );
}

#[test]
fn a_batch_normalization_behind_a_linear_is_folded_into_it() {
    rewrites(
        "g (float[n, 3, 2] x) => (float[n, 3, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}, float[2] g = {1, 2}, float[2] e = {1, 0}, float[2] m = {1, 2}, float[2] v = {3, 15},
         int64[2] flat = {-1, 2}, int64[3] back = {-1, 3, 2}> {
            [fc] p = MatMul(x, w)
            f = Reshape(p, flat)
            t = BatchNormalization<epsilon = 1.0>(f, g, e, m, v)
            s = Reshape(t, back)
            y = Relu(s)
        }",
        // g' = {0.5, 0.5}, h = {0.5, -1}
        "g (float[n, 3, 2] x) => (float[n, 3, 2] y)
        <float[2, 2] w = {0.5, 1, 1.5, 2}, int64[2] flat = {-1, 2}, int64[3] back = {-1, 3, 2}, float[2] \"fc/bias\" = {0.5, -1}> {
            [fc] p = MatMul(x, w)
            [\"fc/Add\"] \"fc/Add\" = Add(p, \"fc/bias\")
            f = Reshape(\"fc/Add\", flat)
            s = Reshape(f, back)
            y = Relu(s)
        }",
    );
}

#[test]
fn a_linear_with_another_reader_keeps_its_scale_outside() {
    stays_in(
        17,
        "g (float[n, 3, 2] x) => (float[n, 3, 2] y)
        <float[2, 2] w = {1, 2, 3, 4}, float[2] g = {0.5, 2}> {
            m = MatMul(x, w)
            s = Mul(m, g)
            y = Add(s, m)
        }",
    );
}

#[test]
fn a_strided_slice_behind_a_reshape_is_a_gather() {
    rewrites(
        "g (float[n, 6, 2] x) => (float[n, 2, 2, 2] y)
        <int64[4] wide = {-1, 3, 2, 2}, int64[1] zero = {0}, int64[1] end = {9}, int64[1] axis = {1}, int64[1] two = {2}> {
            r = Reshape(x, wide)
            [s] c = Slice(r, zero, end, axis, two)
            y = Transpose<perm = [0, 2, 1, 3]>(c)
        }",
        "g (float[n, 6, 2] x) => (float[n, 2, 2, 2] y)
        <int64[4] wide = {-1, 3, 2, 2}, int64[2] \"s/indices\" = {0, 2}> {
            r = Reshape(x, wide)
            [s] c = Gather<axis = 1>(r, \"s/indices\")
            y = Transpose<perm = [0, 2, 1, 3]>(c)
        }",
    );
}
