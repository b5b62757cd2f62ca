//! V in rotated channels, head by head (QuaRot, arXiv 2404.00456 §4): a channel of V that stands out is spread over its head, so
//! that V and the attention's result round better. Costs nothing at run time.
//!
//! ```text
//! Linear(Wv, bv) ─ V ─ attention·V ─ Linear(Wo, bo)   →   Linear(Wv·Q, bv·Q) ─ V·Q ─ attention·(V·Q) ─ Linear(Qᵀ·Wo, bo)
//! ```
//! `Q [width, width]` is the same orthogonal matrix for all heads of that width. The results of the Linear and of
//! attention·V change, so their names get the ending `/rotated`.
//! Declined: what [`crate::structure::ValuePath`] does not follow.

use faer::{Mat, Row};

use super::{Stored, columns, orthogonal, rename};
use crate::ir::Graph;
use crate::structure::{Structure, ValuePath};
use crate::transform::{TransformError, replace_linear};

/// Rotates V wherever its way is known, and returns how often. `structure` was recognised on this very graph; it has to be
/// recognised again. On an error the graph is left half rewritten: rotate a copy.
pub fn rotate_values(
    graph: &mut Graph,
    structure: &Structure,
    seed: u64,
) -> Result<usize, TransformError> {
    let paths = &structure.value_paths;
    for path in paths {
        let q = orthogonal(path.width, seed);
        maker(graph, structure, path, &q)?;
        reader(graph, structure, path, &q)?;
        for site in [path.maker, path.product] {
            rename(graph, structure.sites[site].output);
        }
    }
    Ok(paths.len())
}

/// `Wv·Q`, `bv·Q`
fn maker(
    graph: &mut Graph,
    structure: &Structure,
    path: &ValuePath,
    q: &Mat<f64>,
) -> Result<(), TransformError> {
    let site = &structure.sites[path.maker];
    let stored = Stored::read(graph, site)?;
    let (mut weight, mut bias) = (stored.weight().to_owned(), stored.bias.clone());
    for head in path.rows.chunks_exact(path.width) {
        let turned = Mat::from_fn(weight.nrows(), path.width, |i, j| weight[(i, head[j])]) * q;
        let shift = Row::from_fn(path.width, |j| bias[head[j]]) * q;
        for (j, &row) in head.iter().enumerate() {
            weight.col_mut(row).copy_from(turned.col(j));
            bias[row] = shift[j];
        }
    }
    let bias: Vec<f32> = bias.iter().map(|&b| b as f32).collect();
    replace_linear(graph, site, &columns(&weight), &bias)
}

/// `Qᵀ·Wo`
fn reader(
    graph: &mut Graph,
    structure: &Structure,
    path: &ValuePath,
    q: &Mat<f64>,
) -> Result<(), TransformError> {
    let site = &structure.sites[path.reader];
    let stored = Stored::read(graph, site)?;
    let mut weight = stored.weight().to_owned();
    for head in path.columns.chunks_exact(path.width) {
        let before = Mat::from_fn(path.width, weight.ncols(), |i, j| weight[(head[i], j)]);
        let turned = q.transpose() * before;
        for (i, &row) in head.iter().enumerate() {
            weight.row_mut(row).copy_from(turned.row(i));
        }
    }
    let bias: Vec<f32> = stored.bias.iter().map(|&b| b as f32).collect();
    replace_linear(graph, site, &columns(&weight), &bias)
}
