use super::super::Structure;
use super::on_tokens;

/// Names of what writes, reads and norms the first stream, with its number of constants; or why it is declined.
fn first_stream(found: &Structure) -> Result<String, &str> {
    let stream = found.streams.first().expect("a stream");
    if let Some(reason) = &stream.declined {
        return Err(reason);
    }
    let sites = |indices: &[usize]| {
        let names: Vec<_> = indices
            .iter()
            .map(|&i| found.sites[i].name.as_str())
            .collect();
        names.join(" ")
    };
    let norms: Vec<_> = stream
        .norms
        .iter()
        .map(|&n| found.norms[n].name.as_str())
        .collect();
    Ok(format!(
        "writers {}, readers {}, norms {}, {} constants, {} channels",
        sites(&stream.writers),
        sites(&stream.readers),
        norms.join(" "),
        stream.constants.len(),
        stream.channels
    ))
}

const EMBED: &str = "[embed] e = MatMul(x, w)";
const NORM: &str = "[ln] t = LayerNormalization<axis=-1>(s, gamma, beta)";

#[test]
fn a_stream_is_followed_through_sums_and_choices_of_tokens() {
    let table = [
        (
            "s = Add(e, places)",
            "[a] m = MatMul(t, w)  r = Add(s, m)  [end] n = LayerNormalization<axis=-1>(r, gamma, beta)  [head] y = MatMul(n, w)",
            "writers embed a, readers , norms ln end, 1 constants, 4 channels",
        ),
        // a token is put in front, and only it is read at the end
        (
            "s = Concat<axis=1>(class, e)",
            "[a] m = MatMul(t, w)  r = Add(m, s)  c = Gather<axis=1>(r, zero)  [end] n = LayerNormalization<axis=-1>(c, gamma, beta)
             [head] y = MatMul(n, w)",
            "writers embed a, readers , norms ln end, 1 constants, 4 channels",
        ),
        // moved to the front and back, added to once more
        (
            "u = Transpose<perm=[0,2,1]>(e)  v = Add(u, column)  s = Transpose<perm=[0,2,1]>(v)",
            "[a] y = MatMul(t, w)",
            "writers embed, readers , norms ln, 1 constants, 4 channels",
        ),
        // read with no norm between
        (
            "s = Identity(e)",
            "[a] m = MatMul(t, w)  [b] k = MatMul(s, w)  y = Add(m, k)",
            "writers embed, readers b, norms ln, 0 constants, 4 channels",
        ),
    ];
    for (before, behind, expected) in table {
        let found = on_tokens(&format!("{EMBED}  {before}  {NORM}  {behind}"));
        assert_eq!(
            first_stream(&found).as_deref(),
            Ok(expected),
            "{before} … {behind}"
        );
    }
}

#[test]
fn whoever_cannot_take_other_channels_declines_a_stream() {
    let table = [
        (
            "s = Identity(x)",
            "[a] y = MatMul(t, w)",
            "it begins at the input x",
        ),
        (
            "[f] s = Relu(e)",
            "[a] y = MatMul(t, w)",
            "it is written by f (Relu)",
        ),
        (
            "s = Identity(e)",
            "[f] k = Relu(s)  [a] m = MatMul(t, w)  y = Add(m, k)",
            "it is read by f (Relu)",
        ),
        (
            "s = Identity(e)",
            "[a] m = MatMul(t, w)  y = Add(m, s)",
            "it is the graph's output y",
        ),
        (
            "s = Identity(e)",
            "[a] m = MatMul(t, w)  y = Add(m, t)",
            "others than Linears read ln",
        ),
        (
            "s = Identity(e)",
            "c = ReduceMax<axes=[1]>(t)  [a] y = MatMul(c, w)",
            "an extremum is taken behind ln",
        ),
        (
            "s = Identity(e)",
            "[r] y = Relu(t)",
            "of ln: its scale cannot be folded",
        ),
        (
            "[max] s = ReduceMax<axes=[1]>(e)",
            "[a] y = MatMul(t, w)",
            "it is written by max (ReduceMax)",
        ),
    ];
    for (before, behind, reason) in table {
        let found = on_tokens(&format!("{EMBED}  {before}  {NORM}  {behind}"));
        let said = first_stream(&found).expect_err(before);
        assert!(said.starts_with(reason), "{before} … {behind}: {said}");
    }
}
