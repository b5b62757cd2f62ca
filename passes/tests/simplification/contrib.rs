//! ONNX Runtime's own operators taken apart: the same numbers in ONNX Runtime.

use tempfile::TempDir;
use vitq_passes::simplify::simplify;

use crate::rules::{computes_the_same, model};
use crate::support::{differences, save};

/// Four channels in, two heads of two; V is twice as wide where the weight says so.
const WEIGHT: &str = "float[4, 12] w = {0.1, -0.2, 0.3, 0.4, 0.5, -0.6, 0.7, 0.8, -0.9, 1, 0.2, 0.3,
    0.4, 0.5, -0.1, 0.2, 0.3, 0.4, 0.6, -0.5, 0.4, 0.3, 0.2, 0.1, 0.9, 0.8, 0.7, -0.6, 0.5, 0.4, 0.3, 0.2, 0.1, -0.2, 0.3, 0.4,
    0.3, 0.1, 0.4, 0.1, 0.5, 0.9, -0.2, 0.6, 0.5, 0.3, 0.5, 0.8}";
const BIAS: &str = "float[12] b = {0.1, 0.2, 0.3, -0.4, 0.5, 0.6, 0.7, 0.8, 0.9, -1, 0.1, 0.2}";

#[track_caller]
fn is_gone(after: &str, operator: &str) {
    let operator = format!("com.microsoft.{operator}");
    assert!(!after.contains(&operator), "{after}");
}

#[test]
fn an_attention_with_its_linears_inside_is_taken_apart() {
    for (inputs, more, attributes) in [
        ("", "", ""),
        ("", "", ", scale = 0.3"),
        (", bool[n, 5] t", ", m", ""),
        (", bool[n, 5] t", ", m", ", mask_filter_value = -3.0"),
        (", float[n, 2, 5, 5] a", ", \"\", \"\", a", ""),
    ] {
        let mask = if more == ", m" {
            "m = Cast<to = 6>(t)"
        } else {
            ""
        };
        let after = computes_the_same(
            17,
            &format!(
                "g (float[n, 5, 4] x{inputs}) => (float[n, 5, 4] y) <{WEIGHT}, {BIAS}> {{
                    {mask}
                    [a] y = com.microsoft.Attention<num_heads = 2{attributes}>(x, w, b{more})
                }}"
            ),
        );
        is_gone(&after, "Attention");
        assert!(
            after.contains("[\"a/Split\"]") && after.contains("Softmax"),
            "{after}"
        );
    }
}

#[test]
fn heads_of_v_may_have_their_own_width() {
    let after = computes_the_same(
        17,
        &format!(
            "g (float[n, 5, 4] x) => (float[n, 5, 8] y) <{WEIGHT}, {BIAS}> {{
                [a] y = com.microsoft.Attention<num_heads = 2, qkv_hidden_sizes = [2, 2, 8]>(x, w, b)
            }}"
        ),
    );
    is_gone(&after, "Attention");
}

#[test]
fn attention_with_more_than_products_stays() {
    for (inputs, more, attributes) in [
        ("", "", ", unidirectional = 1"),
        // Where tokens end and begin.
        (", int32[8] m", ", m", ""),
        // Who sees whom.
        (", int32[n, 5, 5] m", ", m", ""),
    ] {
        let text = format!(
            "g (float[n, 5, 4] x{inputs}) => (float[n, 5, 4] y) <{WEIGHT}, {BIAS}> {{
                [a] y = com.microsoft.Attention<num_heads = 2{attributes}>(x, w, b{more})
            }}"
        );
        stays(&text);
    }
}

/// Of forms that ONNX Runtime does not run on every device.
#[track_caller]
fn stays(text: &str) {
    let mut graph = model(17, text);
    simplify(&mut graph);
    assert_eq!(graph.to_string(), model(17, text).to_string());
}

#[test]
fn multi_head_attention_is_taken_apart_and_gives_its_biases_back() {
    for (inputs, more, attributes) in [
        ("", "", ""),
        ("", ", b", ", scale = 0.3"),
        (", bool[n, 5] t", ", b, m", ""),
        (", float[n, 2, 3, 5] a", ", b, \"\", a", ""),
    ] {
        let mask = if more.ends_with('m') {
            "m = Cast<to = 6>(t)"
        } else {
            ""
        };
        let after = computes_the_same(
            17,
            &format!(
                "g (float[n, 3, 4] q, float[n, 5, 4] k, float[n, 5, 4] v{inputs}) => (float[n, 3, 4] y) <{BIAS}> {{
                    {mask}
                    [a] y = com.microsoft.MultiHeadAttention<num_heads = 2{attributes}>(q, k, v{more})
                }}"
            ),
        );
        is_gone(&after, "MultiHeadAttention");
        assert_eq!(after.contains("a/key/bias"), more.contains('b'), "{after}");
    }
}

#[test]
fn packed_multi_head_attention_stays() {
    stays(
        "g (float[n, 5, 2, 3, 2] x) => (float[n, 5, 4] y) {
            [a] y = com.microsoft.MultiHeadAttention<num_heads = 2>(x)
        }",
    );
}

#[test]
fn embeddings_of_text_are_taken_apart() {
    let tables = "float[3, 2] words = {1, 2, 3, 4, 5, 6}, float[4, 2] places = {0.5, 0, 1, 0.25, 2, 1, 3, 3},
        float[2, 2] kinds = {0.1, 0.2, 0.3, 0.4}, float[2] gamma = {1, 2}, float[2] beta = {0.5, 1}";
    let operator = "com.microsoft.EmbedLayerNormalization<epsilon = 0.01>";
    for (segments, table, more) in [
        ("\"\"", "\"\"", ""),
        ("ids", "kinds", ""),
        ("\"\"", "\"\"", ", \"\", ids"),
    ] {
        let after = computes_the_same(
            13,
            &format!(
                "g (bool[n, 3] t) => (float[n, 3, 2] y) <{tables}> {{
                    ids = Cast<to = 6>(t)
                    [e] y, lengths = {operator}(ids, {segments}, words, places, {table}, gamma, beta{more})
                }}"
            ),
        );
        is_gone(&after, "EmbedLayerNormalization");
        assert!(
            after.contains("\"\" : 17") && after.contains("LayerNormalization"),
            "{after}"
        );
    }
}

#[test]
fn lengths_of_texts_that_nobody_knows_mask_nothing() {
    let mut graph = model(
        17,
        &format!(
            "g (bool[n, 3] t) => (float[n, 3, 4] y)
            <float[2, 4] words = {{1, 2, 3, 4, 5, 6, 7, 9}}, float[4, 4] places = {{0.5, 0, 1, 0.25, 2, 1, 3, 3, 1, 2, 1, 4, 1, 4, 2, 1}},
             float[4] g = {{1, 2, 1, 1}}, float[4] h = {{0.5, 1, 0, 0}}, {WEIGHT}, {BIAS}> {{
                ids = Cast<to = 6>(t)
                [e] x, lengths = com.microsoft.EmbedLayerNormalization(ids, \"\", words, places, \"\", g, h)
                [a] y = com.microsoft.Attention<num_heads = 2>(x, w, b, lengths)
            }}"
        ),
    );
    let folder = TempDir::new().expect("a folder");
    let before = save(&graph, &folder, "before.onnx");
    simplify(&mut graph);
    let after = save(&graph, &folder, "after.onnx");
    // ONNX Runtime adds -10000 to every score, which rounds them.
    let difference = differences(&[(before, after)])[0];
    assert!(difference < 1e-3, "{difference}");
    let after = graph.to_string();
    is_gone(&after, "Attention");
    is_gone(&after, "EmbedLayerNormalization");
}

#[test]
fn layer_normalization_of_onnx_runtime_raises_the_operator_set() {
    let after = computes_the_same(
        13,
        "g (float[n, 3] x) => (float[n, 3] y) <float[3] g = {1, 2, 3}, float[3] b = {0, 1, 0.5}> {
            y = LayerNormalization<axis = -1, epsilon = 0.1>(x, g, b)
        }",
    );
    assert!(after.contains("\"\" : 17"), "{after}");
}

#[test]
fn a_residual_and_its_norm_raise_the_operator_set() {
    let after = computes_the_same(
        13,
        "g (float[n, 2, 3] x, float[n, 2, 3] s) => (float[n, 2, 3] y) <float[3] g = {1, 2, 3}, float[3] b = {0, 1, 0.5}> {
            y = com.microsoft.SkipLayerNormalization<epsilon = 0.1>(x, s, g, b)
        }",
    );
    is_gone(&after, "SkipLayerNormalization");
    assert!(after.contains("\"\" : 17"), "{after}");
}

#[test]
fn lengths_of_texts_mask_what_comes_behind_them() {
    let after = computes_the_same(
        17,
        &format!(
            "g (bool[n, 3] t, bool[n, 3] m) => (float[n, 3, 4] y)
            <float[2, 4] words = {{1, 2, 3, 4, 5, 6, 7, 9}}, float[4, 4] places = {{0.5, 0, 1, 0.25, 2, 1, 3, 3, 1, 2, 1, 4, 1, 4, 2, 1}},
             float[4] g = {{1, 2, 1, 1}}, float[4] h = {{0.5, 1, 0, 0}}, {WEIGHT}, {BIAS}> {{
                ids = Cast<to = 6>(t)
                mask = Cast<to = 6>(m)
                [e] x, lengths = com.microsoft.EmbedLayerNormalization(ids, \"\", words, places, \"\", g, h, mask)
                [a] y = com.microsoft.Attention<num_heads = 2>(x, w, b, lengths)
            }}"
        ),
    );
    is_gone(&after, "Attention");
    is_gone(&after, "EmbedLayerNormalization");
}
