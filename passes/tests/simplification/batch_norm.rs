//! BatchNormalization before what takes it over.

use crate::rules::{rewrites, stays_in};

/// g = γ/√(σ² + ε) = {2, 3}, h = β - g·μ = {-1, -1}.
const PARAMETERS: &str =
    "float[2] g = {4, 6}, float[2] e = {1, 2}, float[2] m = {1, 1}, float[2] v = {3, 3}";

#[test]
fn before_a_linear() {
    rewrites(
        &format!(
            r"net (float[N,2] x) => (float[N,2] y)
            <{PARAMETERS}, float[2,2] w = {{1, 2, 3, 4}}, float[2] b = {{10, 20}}> {{
                t = BatchNormalization<epsilon = 1.0>(x, g, e, m, v)
                [fc] p = MatMul(t, w)
                y = Add(p, b)
            }}"
        ),
        r#"net (float[N,2] x) => (float[N,2] y)
        <float[2,2] w = {2, 4, 9, 12}, float[2] b = {6, 14}> {
            [fc] p = MatMul(x, w)
            y = Add(p, b)
        }"#,
    );
}

#[test]
fn before_a_linear_on_points_without_a_bias() {
    rewrites(
        &format!(
            r"net (float[N,2,3] x) => (float[N,3,2] y)
            <{PARAMETERS}, float[2,2] w = {{1, 2, 3, 4}}> {{
                t = BatchNormalization<epsilon = 1.0>(x, g, e, m, v)
                [turn] u = Transpose<perm = [0, 2, 1]>(t)
                [fc] p = MatMul(u, w)
                [act] y = Relu(p)
            }}"
        ),
        r#"net (float[N,2,3] x) => (float[N,3,2] y)
        <float[2,2] w = {2, 4, 9, 12}, float[2] "fc/bias" = {-4, -6}> {
            [turn] u = Transpose<perm = [0, 2, 1]>(x)
            [fc] p = MatMul(u, w)
            ["fc/Add"] "fc/Add" = Add(p, "fc/bias")
            [act] y = Relu("fc/Add")
        }"#,
    );
}

#[test]
fn before_a_conv() {
    rewrites(
        &format!(
            r"net (float[N,2,1,4] x) => (float[N,1,1,2] y)
            <{PARAMETERS}, float[1,2,1,2] w = {{1, 2, 3, 4}}, float[1] b = {{10}}> {{
                t = BatchNormalization<epsilon = 1.0>(x, g, e, m, v)
                [conv] y = Conv<strides = [1, 2]>(t, w, b)
            }}"
        ),
        r#"net (float[N,2,1,4] x) => (float[N,1,1,2] y)
        <float[1,2,1,2] w = {2, 4, 9, 12}, float[1] "conv/bias" = {0}> {
            [conv] y = Conv<strides = [1, 2]>(x, w, "conv/bias")
        }"#,
    );
}

#[test]
fn stays_where_something_else_would_change() {
    let readers = [
        // zeros at the rim
        "y = Conv<pads = [0, 1, 0, 0]>(t, w, b)",
        r#"y = Conv<auto_pad = "SAME_UPPER">(t, w, b)"#,
        // another reader
        "u = Conv(t, w, b) z = Relu(t) y = Concat<axis = 3>(u, z)",
    ];
    for nodes in readers {
        stays_in(
            17,
            &format!(
                "net (float[N,2,1,4] x) => (float[N,2,1,M] y)
                <{PARAMETERS}, float[2,2,1,2] w = {{1, 2, 3, 4, 5, 6, 7, 8}}, float[2] b = {{10, 20}}> {{
                    t = BatchNormalization<epsilon = 1.0>(x, g, e, m, v)
                    {nodes}
                }}"
            ),
        );
    }
}
