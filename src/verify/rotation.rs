//! Float results turned as the quantised model's rotated residual streams are, so that both can be compared channel by channel.

use std::collections::HashMap;
use std::sync::Arc;

use vitq_onnx::Model;
use vitq_passes::quantise::ROTATION;
use vitq_passes::structure::{Site, SiteKind};
use vitq_passes::transform::orthogonal;

use crate::linalg::gemm;

/// The rotations of a model, by width.
pub struct Rotations {
    /// From the model's metadata; `None` where it does not speak of one.
    seed: Option<u64>,
    known: HashMap<usize, Arc<Vec<f32>>>,
}

impl Rotations {
    /// Those of a quantised model.
    pub fn of(model: &Model) -> Self {
        let entry = model.metadata_props.iter().find(|it| it.key() == ROTATION);
        Rotations {
            seed: entry.and_then(|it| it.value().parse().ok()),
            known: HashMap::new(),
        }
    }

    /// What a site's results are turned by.
    pub fn of_site(&mut self, site: &Site) -> Option<Rotation> {
        let seed = self.seed?;
        let channels = site.parameters.as_ref()?.outputs;
        let draw = || {
            let q = orthogonal(channels, seed);
            let rows = q.row_iter().flat_map(|row| row.iter());
            Arc::new(rows.map(|&q| q as f32).collect())
        };
        Some(Rotation {
            q: Arc::clone(self.known.entry(channels).or_insert_with(draw)),
            channels,
            first: site.kind == SiteKind::PatchEmbed,
        })
    }
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
