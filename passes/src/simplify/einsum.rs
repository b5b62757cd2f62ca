//! ```text
//! Einsum<"b h i d, b h j d -> b h i j">(Q, K)  →  MatMul(Q, Transpose(K))
//! Einsum<"b h i j, b h j d -> b h i d">(A, V)  →  MatMul(A, V)
//! ```
//! The contraction of one axis of two operands with the same leading axes, each operand transposed where its last two
//! axes stand the other way round.
//!
//! Declines other numbers of operands, ellipses, repeated letters, and contractions whose leading axes differ or are
//! moved: the operator stays, and stays float.

use super::Report;
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Op, Outlet};

pub(super) fn apply(graph: &mut Graph, shapes: &Shapes, _: &mut Report) -> usize {
    let mut fired = 0;
    for id in graph.topological().unwrap_or_default() {
        fired += usize::from(rewrite(graph, shapes, id).is_some());
    }
    fired
}

/// Whether the last two axes of the operands stand the other way round.
#[derive(Debug, PartialEq, Eq)]
struct Turned {
    left: bool,
    right: bool,
}

fn rewrite(graph: &mut Graph, shapes: &Shapes, id: NodeId) -> Option<()> {
    let op = graph.op(id).filter(|op| op.is("Einsum"))?;
    let turned = matrix_product(op.string("equation")?)?;
    let name = graph.label(id);
    let [Some(left), Some(right)] = graph.node_inputs(id)[..] else {
        return None;
    };
    // A dimension of one would be stretched by MatMul and by Einsum alike; unknown ranks are left alone.
    let rank = shapes
        .rank(left)
        .filter(|rank| shapes.rank(right) == Some(*rank))?;
    let left = operand(graph, &format!("{name}/left"), left, rank, turned.left);
    let right = operand(graph, &format!("{name}/right"), right, rank, turned.right);
    let product = graph.insert("MatMul", &format!("{name}/MatMul"), &[left, right]);
    graph.supersede(Outlet { node: id, slot: 0 }, product);
    Some(())
}

fn operand(graph: &mut Graph, name: &str, value: Outlet, rank: usize, turned: bool) -> Outlet {
    if !turned {
        return value;
    }
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    perm.swap(rank - 2, rank - 1);
    let op = Op::new("Transpose", &format!("{name}/Transpose")).with_ints("perm", &perm);
    graph.insert_op(op, &[value])
}

/// How the equation is a product of matrices, if it is.
fn matrix_product(equation: &str) -> Option<Turned> {
    let equation: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (operands, result) = equation.split_once("->")?;
    let (left, right) = operands.split_once(',')?;
    let [left, right, result] = [left, right, result].map(|term| term.chars().collect::<Vec<_>>());
    let plain = |term: &[char]| {
        let distinct: std::collections::BTreeSet<_> = term.iter().collect();
        term.len() >= 2
            && distinct.len() == term.len()
            && term.iter().all(char::is_ascii_alphabetic)
    };
    if ![&left, &right, &result].into_iter().all(|term| plain(term)) {
        return None;
    }
    let (batch, [rows, columns]) = matrix(&result)?;
    let (left_batch, left) = matrix(&left)?;
    let (right_batch, right) = matrix(&right)?;
    if batch != left_batch || batch != right_batch {
        return None;
    }
    let (left_turned, inner) = match left {
        [first, inner] if first == rows => (false, inner),
        [inner, last] if last == rows => (true, inner),
        _ => return None,
    };
    let right_turned = match right {
        _ if right == [inner, columns] => false,
        _ if right == [columns, inner] => true,
        _ => return None,
    };
    Some(Turned {
        left: left_turned,
        right: right_turned,
    })
}

/// The leading axes and the last two.
fn matrix(term: &[char]) -> Option<(&[char], [char; 2])> {
    let (batch, last) = term.split_last_chunk::<2>()?;
    Some((batch, *last))
}

#[cfg(test)]
mod tests {
    use super::{Turned, matrix_product};

    #[test]
    fn products_of_matrices_are_told_from_others() {
        let turned = |left, right| Some(Turned { left, right });
        for (equation, expected) in [
            ("bhid,bhjd->bhij", turned(false, true)),
            ("b h i j, b h j d -> b h i d", turned(false, false)),
            ("bhdi,bhdj->bhij", turned(true, false)),
            ("ij,jk->ik", turned(false, false)),
            ("bhid,bhjd->bhji", None),
            ("bhid,hjd->bhij", None),
            ("bhid,bhjd->bihj", None),
            ("...id,...jd->...ij", None),
            ("bii,bij->bij", None),
            ("bhwc,hkc->bhwk", None),
            ("ij->ji", None),
        ] {
            assert_eq!(matrix_product(equation), expected, "{equation}");
        }
    }
}
