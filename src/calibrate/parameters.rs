//! Weight and bias of a Linear or patch embedding.

use vitq_onnx::{DataType, Tensor};
use vitq_passes::ir::Graph;
use vitq_passes::structure::{Site, SiteKind};

use super::CalibrateError;
use super::fold::Fold;
use crate::linalg::{add_gemm_nn, add_gemm_nt};

/// Weight and bias of a Linear or patch embedding.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// `[out, in]`
    pub weight: Vec<f32>,
    /// `[out]`, zeros where there is none.
    pub bias: Vec<f32>,
    /// `in`
    pub k: usize,
}

impl Parameters {
    /// Reads them from the graph; `None` at an attention product.
    pub fn load(graph: &Graph, site: &Site) -> Result<Option<Parameters>, CalibrateError> {
        let Some(parameters) = &site.parameters else {
            return Ok(None);
        };
        let read = |value| {
            graph
                .tensor(value)
                .and_then(|t| t.to_f32().ok())
                .ok_or_else(|| CalibrateError::Parameters {
                    site: site.name.clone(),
                    tensor: graph.name(value).to_owned(),
                })
        };
        let (k, out) = (parameters.inputs, parameters.outputs);
        let weight = if site.kind == SiteKind::PatchEmbed {
            read(parameters.weight)?
        } else if let Some(turned) = graph
            .tensor(parameters.weight)
            .and_then(|it| turned(&it, k, out))
        {
            turned
        } else {
            transpose(&read(parameters.weight)?, k, out)
        };
        let bias = parameters.bias.map_or_else(|| Ok(vec![0.0; out]), read)?;
        let bias = if bias.len() == out {
            bias
        } else {
            vec![bias.first().copied().unwrap_or(0.0); out]
        };
        Ok(Some(Parameters { weight, bias, k }))
    }

    /// Number of rows.
    pub fn out(&self) -> usize {
        self.bias.len()
    }

    /// The same behind a fold.
    pub fn folded(&self, fold: &Fold) -> Parameters {
        let mut folded = self.clone();
        if !fold.is_identity() {
            fold.apply_linear(&mut folded.weight, &mut folded.bias);
        }
        folded
    }

    /// `x·Wᵀ + b`, `[rows, out]`.
    pub fn forward(&self, x: &[f32]) -> Vec<f32> {
        let mut y = self.bias.repeat(x.len() / self.k);
        self.add_product(x, &mut y);
        y
    }

    /// `y += x·Wᵀ`
    pub(super) fn add_product(&self, x: &[f32], y: &mut [f32]) {
        add_gemm_nt(y, x, &self.weight, x.len() / self.k, self.k, self.out());
    }

    /// The weight as `[in, out]`, for [`Self::add_product_of`].
    pub(super) fn inputs_first(&self) -> Vec<f32> {
        transpose(&self.weight, self.out(), self.k)
    }

    /// `y += x·Wᵀ`, of the turned weight if there is one: for many inputs, as turning it takes time of its own.
    pub(super) fn add_product_of(&self, turned: Option<&[f32]>, x: &[f32], y: &mut [f32]) {
        match turned {
            Some(turned) => add_gemm_nn(y, x, turned, x.len() / self.k, self.k, self.out()),
            None => self.add_product(x, y),
        }
    }

    /// `Σ_o w_oj²`: what an error in input channel `j` costs at the output.
    pub(super) fn column_energy(&self) -> Vec<f32> {
        let mut energy = vec![0.0f32; self.k];
        for row in self.weight.chunks_exact(self.k) {
            for (e, w) in energy.iter_mut().zip(row) {
                *e += w * w;
            }
        }
        energy
    }
}

/// `[rows, cols]` → `[cols, rows]`
pub(super) fn transpose(values: &[f32], rows: usize, cols: usize) -> Vec<f32> {
    transposed(rows, cols, |i| values[i])
}

/// The same of a float32 tensor as the file holds it: without a copy in between, as fresh memory is what takes time there.
fn turned(tensor: &Tensor, rows: usize, cols: usize) -> Option<Vec<f32>> {
    let (elements, rest) = tensor.data.as_chunks();
    let fits = tensor.dtype == DataType::Float && rest.is_empty() && elements.len() == rows * cols;
    fits.then(|| transposed(rows, cols, |i| f32::from_le_bytes(elements[i])))
}

fn transposed(rows: usize, cols: usize, at: impl Fn(usize) -> f32) -> Vec<f32> {
    /// Side of the squares that are turned one after the other, so that both sides stay in the cache.
    const TILE: usize = 16;
    let mut out = vec![0.0; rows * cols];
    for (r0, c0) in (0..rows)
        .step_by(TILE)
        .flat_map(|r| (0..cols).step_by(TILE).map(move |c| (r, c)))
    {
        for c in c0..cols.min(c0 + TILE) {
            for r in r0..rows.min(r0 + TILE) {
                out[c * rows + r] = at(r * cols + c);
            }
        }
    }
    out
}
