//! Float results turned as the quantised model's rotated channels are, so that both can be compared channel by channel.

use std::collections::HashMap;
use std::sync::Arc;

use vitq_onnx::Model;
use vitq_passes::quantise::ROTATION;
use vitq_passes::structure::{Site, SiteKind, Structure, ValuePath};
use vitq_passes::transform::orthogonal;

use crate::linalg::gemm;

/// The rotations of a model, by width.
pub struct Rotations<'s> {
    /// From the model's metadata; `None` where it does not speak of one.
    seed: Option<u64>,
    known: HashMap<usize, Arc<Vec<f32>>>,
    paths: &'s [ValuePath],
}

impl<'s> Rotations<'s> {
    /// Those of a quantised model; `structure` is its float original's.
    pub fn of(model: &Model, structure: &'s Structure) -> Self {
        let entry = model.metadata_props.iter().find(|it| it.key() == ROTATION);
        Rotations {
            seed: entry.and_then(|it| it.value().parse().ok()),
            known: HashMap::new(),
            paths: &structure.value_paths,
        }
    }

    /// What the results of site `index` are turned by.
    pub fn of_site(&mut self, index: usize, site: &Site) -> Option<Rotation> {
        let seed = self.seed?;
        let outputs = site.parameters.as_ref().map(|it| it.outputs);
        let (q, channels) = if let Some(path) = self.paths.iter().find(|p| p.maker == index) {
            let q = self.square(path.width, seed);
            (Arc::new(head_by_head(path, &q, outputs?)), outputs?)
        } else if let Some(path) = self.paths.iter().find(|p| p.product == index) {
            (self.square(path.width, seed), path.width)
        } else {
            (self.square(outputs?, seed), outputs?)
        };
        Some(Rotation {
            q,
            channels,
            first: site.kind == SiteKind::PatchEmbed,
        })
    }

    fn square(&mut self, channels: usize, seed: u64) -> Arc<Vec<f32>> {
        let draw = || {
            let q = orthogonal(channels, seed);
            let rows = q.row_iter().flat_map(|row| row.iter());
            Arc::new(rows.map(|&q| q as f32).collect())
        };
        Arc::clone(self.known.entry(channels).or_insert_with(draw))
    }
}

/// `[outputs, outputs]`: `q` for the rows of each head, the others as they are.
fn head_by_head(path: &ValuePath, q: &[f32], outputs: usize) -> Vec<f32> {
    let mut whole = vec![0.0; outputs * outputs];
    (0..outputs).for_each(|i| whole[i * outputs + i] = 1.0);
    for head in path.rows.chunks_exact(path.width) {
        for (from, q) in head.iter().zip(q.chunks_exact(path.width)) {
            for (to, &q) in head.iter().zip(q) {
                whole[from * outputs + to] = q;
            }
        }
    }
    whole
}

/// A rotation of one value.
pub struct Rotation {
    /// `[channels, channels]`
    q: Arc<Vec<f32>>,
    channels: usize,
    /// Whether the channels are axis 1, as in an image, and not the last.
    first: bool,
}

impl Rotation {
    /// `x·Q` of a value of the float model.
    pub fn apply(&self, values: &[f32], dims: &[usize]) -> Vec<f32> {
        let c = self.channels;
        if !self.first {
            return gemm(values, &self.q, values.len() / c, c, c);
        }
        let pixels: usize = dims.iter().skip(2).product();
        let turned: Vec<f32> = (0..c * c).map(|i| self.q[i % c * c + i / c]).collect();
        values
            .chunks_exact(c * pixels)
            .flat_map(|image| gemm(&turned, image, c, c, pixels))
            .collect()
    }
}
