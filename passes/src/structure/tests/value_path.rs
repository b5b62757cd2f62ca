use super::super::Structure;
use super::on_tokens;

/// Who makes V and who reads it, with the rows and columns of each head.
fn paths(found: &Structure) -> Vec<String> {
    let name = |site: usize| found.sites[site].name.as_str();
    let path = |p: &super::super::ValuePath| {
        let heads = |all: &[usize]| format!("{:?}", all.chunks(p.width).collect::<Vec<_>>());
        let (rows, columns) = (heads(&p.rows), heads(&p.columns));
        format!("{} {rows} -> {} {columns}", name(p.maker), name(p.reader))
    };
    found.value_paths.iter().map(path).collect()
}

/// One attention of two heads; `nodes` make v [n, 2, 3, 2] and read its result o, of the same shape.
fn attention(nodes: &str) -> String {
    format!(
        "[q] q = MatMul(x, w)  q4 = Reshape(q, halves)  qh = Transpose<perm=[0,2,1,3]>(q4)
         [k] k = MatMul(z, w)  k4 = Reshape(k, halves)  kt = Transpose<perm=[0,2,3,1]>(k4)
         p = MatMul(qh, kt)  s = Softmax(p)  o = MatMul(s, v)  {nodes}"
    )
}

const MAKE: &str =
    "[v] m = MatMul(x, w)  m4 = Reshape(m, halves)  v = Transpose<perm=[0,2,1,3]>(m4)";
const READ: &str =
    "t = Transpose<perm=[0,2,1,3]>(o)  r = Reshape(t, whole)  [proj] y = MatMul(r, w)";

#[test]
fn rows_are_followed_head_by_head() {
    let plain = "v [[0, 1], [2, 3]] -> proj [[0, 1], [2, 3]]";
    let table = [
        (MAKE, READ, plain),
        // A bias on either side.
        (
            "[v] m0 = MatMul(x, w)  m = Add(m0, b)  m4 = Reshape(m, halves)  v = Transpose<perm=[0,2,1,3]>(m4)",
            READ,
            plain,
        ),
        // Heads are the fastest axis of V's rows: row 2 d + h is channel d of head h.
        (
            "[v] m = MatMul(x, w)  m4 = Reshape(m, halves)  v = Transpose<perm=[0,3,1,2]>(m4)",
            READ,
            "v [[0, 2], [1, 3]] -> proj [[0, 1], [2, 3]]",
        ),
        // The same on the other side.
        (
            MAKE,
            "t = Transpose<perm=[0,2,3,1]>(o)  r = Reshape(t, whole)  [proj] y = MatMul(r, w)",
            "v [[0, 1], [2, 3]] -> proj [[0, 2], [1, 3]]",
        ),
    ];
    for (make, read, expected) in table {
        let found = on_tokens(&format!("{make} {}", attention(read)));
        assert_eq!(paths(&found), [expected], "{make}\n{read}");
    }
}

#[test]
fn what_else_reads_or_changes_v_stops_it() {
    let table = [
        // Another reader of V's rows.
        (
            MAKE,
            "t = Transpose<perm=[0,2,1,3]>(o)  r0 = Reshape(t, whole)  r = Add(r0, m)  [proj] y = MatMul(r, w)",
        ),
        // Something is computed on the way, before or behind.
        (
            "[v] m0 = MatMul(x, w)  m = Mul(m0, b)  m4 = Reshape(m, halves)  v = Transpose<perm=[0,2,1,3]>(m4)",
            READ,
        ),
        (
            MAKE,
            "g = Sigmoid(o)  t = Transpose<perm=[0,2,1,3]>(g)  r = Reshape(t, whole)  [proj] y = MatMul(r, w)",
        ),
        // Two Linears read the result.
        (
            MAKE,
            "t = Transpose<perm=[0,2,1,3]>(o)  r = Reshape(t, whole)  a = MatMul(r, w)  c = MatMul(r, w)  y = Add(a, c)",
        ),
        // It reads tokens, not channels.
        (
            MAKE,
            "t = Transpose<perm=[0,1,3,2]>(o)  r = Reshape(t, whole)  [proj] y = MatMul(r, w)",
        ),
    ];
    for (make, read) in table {
        let found = on_tokens(&format!("{make} {}", attention(read)));
        assert!(
            paths(&found).is_empty(),
            "{make}\n{read}: {:?}",
            paths(&found)
        );
    }
}
