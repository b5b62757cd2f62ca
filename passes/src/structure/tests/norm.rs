use super::super::Structure;
use super::on_tokens;

/// Names of the Linears that read the first norm, or why it is declined.
fn first_norm(found: &Structure) -> Result<Vec<&str>, &str> {
    let norm = found.norms.first().expect("a norm");
    match &norm.declined {
        Some(reason) => Err(reason),
        None => Ok(norm
            .sites
            .iter()
            .map(|&i| found.sites[i].name.as_str())
            .collect()),
    }
}

const NORM: &str = "[ln] t = LayerNormalization<axis=-1>(x, gamma, beta)";

#[test]
fn a_norm_folds_into_every_linear_that_reads_it() {
    let table = [
        ("[a] y = MatMul(t, w)", vec!["a"]),
        (
            "[a] m = MatMul(t, w)  [b] k = MatMul(t, w)  y = Add(m, k)",
            vec!["a", "b"],
        ),
        ("i = Identity(t)  [a] y = MatMul(i, w)", vec!["a"]),
        // a token is chosen, tokens are cut, moved or averaged
        (
            "c = Gather<axis=1>(t, zero)  [a] y = MatMul(c, w)",
            vec!["a"],
        ),
        (
            "c = Slice(t, one, two, one)  [a] y = MatMul(c, w)",
            vec!["a"],
        ),
        (
            "c = Slice(t, one, two, one)  s = Squeeze(c, one)  [a] y = MatMul(s, w)",
            vec!["a"],
        ),
        (
            "c = Transpose<perm=[1,0,2]>(t)  [a] y = MatMul(c, w)",
            vec!["a"],
        ),
        ("c = Reshape(t, flat)  [a] y = MatMul(c, w)", vec!["a"]),
        (
            "c = ReduceMean<axes=[1], keepdims=0>(t)  [a] y = MatMul(c, w)",
            vec!["a"],
        ),
        (
            "c, d = Split<axis=1>(t, cut)  [a] m = MatMul(c, w)  [b] k = MatMul(d, w)  y = Add(m, k)",
            vec!["a", "b"],
        ),
        // looking at the shape changes nothing
        (
            "s = Shape(t)  [a] m = MatMul(t, w)  y = Reshape(m, s)",
            vec!["a"],
        ),
    ];
    for (nodes, sites) in table {
        let found = on_tokens(&format!("{NORM}  {nodes}"));
        assert_eq!(first_norm(&found), Ok(sites), "{nodes}");
        let reads = |s: &&super::super::Site| s.norm == Some(0);
        assert_eq!(
            found.sites.iter().filter(reads).count(),
            found.norms[0].sites.len()
        );
    }
}

#[test]
fn channels_are_followed_through_other_layouts() {
    // [n, 3, 4] → [n, 4, 3] → [n, 4] and back; tokens rolled; the greatest of the tokens.
    for nodes in [
        "c = Transpose<perm=[0,2,1]>(t)  d = ReduceMean<axes=[2], keepdims=0>(c)  [a] y = MatMul(d, w)",
        "c = Transpose<perm=[0,2,1]>(t)  d = Transpose<perm=[0,2,1]>(c)  [a] y = MatMul(d, w)",
        "c = Transpose<perm=[0,2,1]>(t)  d = GlobalAveragePool(c)  e = Squeeze(d, last)  [a] y = MatMul(e, w)",
        "h, l = Split<axis=1>(t, cut)  c = Concat<axis=1>(l, h)  [a] y = MatMul(c, w)",
        "c = ReduceMax<axes=[1], keepdims=0>(t)  [a] y = MatMul(c, w)",
    ] {
        let found = on_tokens(&format!("{NORM}  {nodes}"));
        assert_eq!(first_norm(&found), Ok(vec!["a"]), "{nodes}");
        assert!(found.norms[0].split.is_empty(), "{nodes}");
    }
}

#[test]
fn a_norm_with_other_readers_is_split() {
    let table = [
        ("[a] m = MatMul(t, w)  [res] y = Add(m, t)", vec!["a"]),
        (
            "[a] m = MatMul(t, w)  [g] k = Gelu(t)  y = Add(m, k)",
            vec!["a"],
        ),
        (
            "c = Gather<axis=1>(t, zero)  [a] m = MatMul(c, w)  [b] k = MatMul(t, w)  [res] y = Add(k, t)",
            vec!["a", "b"],
        ),
        (
            "y = Identity(t)  [a] m = MatMul(t, w)  k = MatMul(m, w)",
            vec!["a"],
        ),
    ];
    for (nodes, sites) in table {
        let found = on_tokens(&format!("{NORM}  {nodes}"));
        assert_eq!(first_norm(&found), Ok(sites.clone()), "{nodes}");
        assert_eq!(found.norms[0].split.len(), sites.len(), "{nodes}");
    }
}

#[test]
fn a_reader_between_norm_and_linear_declines_it() {
    let table = [
        (
            "i = Identity(t)  [a] m = MatMul(i, w)  [res] y = Add(m, i)",
            "it is read by res (Add), which is neither",
        ),
        (
            "i = Identity(t)  [a] m = MatMul(i, w)  [c] c = Gather<axis=2>(i, one)  y = Add(m, c)",
            "it is read by c (Gather), which selects",
        ),
        (
            "i = Identity(t)  [a] m = MatMul(i, w)  [c] c = Slice(i, one, two, last)  y = Add(m, c)",
            "it is read by c (Slice), which selects",
        ),
        (
            "[c] c = Reshape(t, halves)  d = Reshape(c, whole)  [a] y = MatMul(d, w)",
            "it is read by c (Reshape)",
        ),
        (
            "[c] c = Concat<axis=1>(t, z)  [a] y = MatMul(c, w)",
            "it is read by c (Concat), which joins it with other values",
        ),
        (
            "[r] k = Relu(t)  [s] l = Neg(t)  [a] m = MatMul(k, w)  o = Add(l, m)  y = Add(m, o)",
            "it is read by r (Relu), which is neither a Linear nor a choice of tokens; and by 1 more",
        ),
        ("y = Relu(t)", "it is read by"),
    ];
    for (nodes, reason) in table {
        let found = on_tokens(&format!("{NORM}  {nodes}"));
        let declined = first_norm(&found).expect_err(nodes);
        assert!(declined.contains(reason), "{nodes}: {declined}");
        assert!(
            found.declined.iter().any(|d| d.node == "ln"),
            "listed with the others"
        );
    }
}

#[test]
fn a_norm_without_a_shift_folds() {
    let found = on_tokens("[ln] t = LayerNormalization<axis=-1>(x, gamma)  [a] y = MatMul(t, w)");
    assert_eq!(first_norm(&found), Ok(vec!["a"]));
}

#[test]
fn a_norm_without_foldable_parameters_declines() {
    let table = [
        (
            "[ln] t = LayerNormalization<axis=1>(x, gamma, beta)  y = MatMul(t, w)",
            "from axis 1 on",
        ),
        (
            "g = Relu(gamma)  [ln] t = LayerNormalization<axis=-1>(x, g, beta)  y = MatMul(t, w)",
            "its scale is no constant",
        ),
    ];
    for (nodes, reason) in table {
        let declined = on_tokens(nodes);
        let declined = first_norm(&declined).expect_err(nodes);
        assert!(declined.contains(reason), "{nodes}: {declined}");
    }
}
