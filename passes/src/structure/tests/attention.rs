use super::super::{Role, SiteKind, Structure};
use super::{on_heads, refusals};

/// (name, activation operands) of the products.
fn products(found: &Structure) -> Vec<(&str, SiteKind)> {
    let product = |s: &&super::super::Site| s.role == Role::Product;
    found
        .sites
        .iter()
        .filter(product)
        .map(|s| (s.name.as_str(), s.kind))
        .collect()
}

#[test]
fn the_two_products_around_a_softmax() {
    for scores in [
        "[qk] p = MatMul(q, kt)  s = Softmax<axis=-1>(p)",
        "[qk] p = MatMul(q, kt)  d = Div(p, scale)  s = Softmax<axis=3>(d)",
        "h = Mul(q, scale)  [qk] p = MatMul(h, kt)  s = Softmax(p)",
        "[qk] p = MatMul(q, kt)  d = Mul(p, scale)  a = Add(d, mask)  s = Softmax(a)",
        "[qk] p = MatMul(q, kt)  a = Add(mask, p)  r = Reshape(a, same)  s = Softmax(r)",
        "[qk] p = MatMul(q, kt)  a = Where(keep, p, scale)  s = Softmax(a)",
        "[qk] p = MatMul(q, kt)  f = Softmax(p)  s = Identity(f)",
        "[qk] p = MatMul(q, kt)  f = Softmax(p)  s = Dropout(f)",
        "[qk] p = MatMul(q, kt)  f = Softmax(p)  s = Reshape(f, same)",
    ] {
        let found = on_heads(&format!("{scores}  [av] y = MatMul(s, v)"));
        let expected = [("qk", SiteKind::QueryKey), ("av", SiteKind::AttentionValue)];
        assert_eq!(products(&found), expected, "{scores}");
        assert!(found.declined.is_empty(), "{scores}: {:?}", found.declined);
        assert!(
            found
                .sites
                .iter()
                .all(|s| s.second.is_some() && s.parameters.is_none())
        );
        assert_eq!(found.sites[0].path, "blocks.0.attn.qk");
    }
}

#[test]
fn what_is_no_attention_is_declined() {
    let table = [
        ("[s] y = Softmax(v)", "s: it makes the model's output"),
        (
            "[s] p = Softmax(v)  [l] y = MatMul(p, kt)",
            "s: it does not stand on a product",
        ),
        (
            "[p] p = MatMul(q, kt)  [s] s = Softmax<axis=1>(p)  [l] y = MatMul(s, v)",
            "s: it runs over axis 1, an attention's over the last",
        ),
        (
            "[p] p = MatMul(q, kt)  [s] s = Softmax(p)  [l] y = MatMul(v, s)",
            "s: V comes before its result in the product; write it as",
        ),
        (
            "[p] p = MatMul(q, kt)  [s] s = Softmax(p)  t = Transpose<perm=[0, 1, 3, 2]>(s)  [l] y = MatMul(kt, t)",
            "s: V comes before its result in the product; write it as",
        ),
        (
            "[p] p = MatMul(q, kt)  [s] y = Softmax(p)",
            "s: no MatMul reads its result",
        ),
    ];
    for (nodes, reason) in table {
        let found = on_heads(nodes);
        assert_eq!(products(&found), [], "{nodes}");
        let refusals = refusals(&found);
        assert!(
            refusals.iter().any(|r| r.starts_with(reason)),
            "{nodes}: {refusals:?}"
        );
    }
}

#[test]
fn an_attention_operator_is_declined_with_the_mend() {
    let found = on_heads("[a] y = Attention(q, kt, v)");
    assert_eq!(products(&found), []);
    let refusals = refusals(&found);
    assert!(
        refusals.len() == 1 && refusals[0].contains("opset below 23"),
        "{refusals:?}"
    );
}
