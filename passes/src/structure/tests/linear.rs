use super::super::{Role, SiteKind};
use super::{names, on_tokens, refusals};

#[test]
fn a_product_with_its_bias_in_either_order() {
    for nodes in [
        "[lin] m = MatMul(x, w)  y = Add(m, b)",
        "[lin] m = MatMul(x, w)  y = Add(b, m)",
    ] {
        let found = on_tokens(nodes);
        assert_eq!(names(&found), ["lin"], "{nodes}");
        let site = &found.sites[0];
        assert_eq!((site.kind, site.role), (SiteKind::Linear, Role::Head));
        let parameters = site.parameters.as_ref().expect("parameters");
        assert_eq!((parameters.inputs, parameters.outputs), (4, 4));
        assert!(parameters.bias.is_some(), "{nodes}");
        assert_ne!(site.output.node, site.node, "the result includes the bias");
    }
}

#[test]
fn a_product_without_a_bias() {
    // A residual is no bias, nor is a bias that only one of two readers sees.
    for nodes in [
        "[lin] y = MatMul(x, w)",
        "[lin] m = MatMul(x, w)  y = Add(m, x)",
        "[lin] m = MatMul(x, w)  a = Add(m, b)  y = Mul(a, m)",
        "[lin] m = MatMul(x, w)  y = Add(m, scale)",
    ] {
        let found = on_tokens(nodes);
        assert_eq!(names(&found), ["lin"], "{nodes}");
        let site = &found.sites[0];
        assert!(
            site.parameters.as_ref().is_some_and(|p| p.bias.is_none()),
            "{nodes}"
        );
        assert_eq!(site.output.node, site.node);
    }
}

#[test]
fn names_and_paths_are_made_up_and_unique() {
    let found = on_tokens("m = MatMul(x, w)  [n] k = MatMul(m, w)  [n] y = MatMul(k, w)");
    assert_eq!(names(&found), ["MatMul_m", "n", "n_2"]);
    let paths: Vec<&str> = found.sites.iter().map(|s| s.path.as_str()).collect();
    assert_eq!(paths, ["linear", "linear_2", "head"]);
}

#[test]
fn other_products_are_declined_with_a_reason() {
    let table = [
        (
            "[p] y = MatMul(x, z)",
            "p: a product of two activations that is neither Q·Kᵀ",
        ),
        (
            "[p] y = MatMul(w, x)",
            "p: the constant is the first operand",
        ),
        (
            "r = Relu(w)  [p] p = MatMul(r, w)  y = Mul(x, p)",
            "p: its result is the same for every image",
        ),
        ("[p] y = MatMul(x, b)", "p: the weight has shape [4]"),
        (
            "[q] d = DequantizeLinear(codes, scale)  [p] y = MatMul(x, d)",
            "p: the weight is quantised already",
        ),
        (
            "[p] y = Gemm<transA=1>(x, w)",
            "p: its input is transposed (transA)",
        ),
        ("[p] y = Gemm(x, z)", "p: its weight is not constant"),
        (
            "[p] y = Einsum<equation=\"bij,jk->bik\">(x, w)",
            "p: holds several products",
        ),
        (
            "[p] y = com.microsoft.FusedMatMul(x, w)",
            "p: holds several products",
        ),
    ];
    for (nodes, reason) in table {
        let found = on_tokens(nodes);
        assert!(found.sites.is_empty(), "{nodes}");
        let refusals = refusals(&found);
        assert!(
            refusals.len() == 1 && refusals[0].starts_with(reason),
            "{nodes}: {refusals:?}"
        );
    }
}
