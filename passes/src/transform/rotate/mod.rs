//! The residual stream in rotated channels (QuaRot, arXiv 2404.00456; SpinQuant, arXiv 2405.16406): channels that stand out are
//! spread over all, so that weights and norms' results round better. Costs nothing at run time.
//!
//! ```text
//! Linear(W₁, b₁) ─ Add ─ LayerNormalization(γ, β) ─ Linear(W₂, b₂)
//!   →  Linear(W₁·Q, b₁·Q) ─ Add ─ LayerNormalization(1, 0) ─ Linear(Qᵀ·diag(γ)·W₂, b₂ + β·W₂)
//! ```
//! Weights are `[in, out]`, values rows. `Q` is orthogonal with `Q·1 = 1`, so that a rotated row has the mean and the variance
//! of the row before and LayerNormalization and RMSNormalization stay what they are; the papers' `Q` needs norms without a
//! mean. Constants of the
//! stream (class token, positions) become `c·Q`.
//! Every value of the stream changes, so its name gets the ending `/rotated`.
//! Declined: streams that [`Stream::declined`] speaks of.

mod basis;
mod values;

use std::collections::HashMap;

use faer::{Col, Mat, MatRef, Row};
use rayon::prelude::*;
use vitq_onnx::Tensor;

use super::{TransformError, apply_norm, replace_linear, weight_dims};
use crate::ir::{Graph, Outlet};
use crate::structure::{Constant, Norm, Site, SiteKind, Stream, Structure};

pub use basis::orthogonal;
pub use values::rotate_values;

/// What the names of rotated values end with.
pub const ROTATED: &str = "/rotated";

/// Rotates every stream that can be, and returns how many. `structure` was recognised on this very graph; it has to be
/// recognised again. On an error the graph is left half rewritten: rotate a copy.
pub fn rotate(
    graph: &mut Graph,
    structure: &Structure,
    seed: u64,
) -> Result<usize, TransformError> {
    let streams = structure.streams.iter().filter(|s| s.declined.is_none());
    let rotations: Vec<Rotation> = streams
        .map(|stream| Rotation::new(graph, structure, stream, seed))
        .collect::<Result<_, _>>()?;
    let sites = structure.sites.par_iter().enumerate();
    let turned: Vec<_> = sites
        .map(|(index, site)| linear(graph, site, index, &rotations))
        .collect::<Result<_, _>>()?;
    for (site, turned) in structure.sites.iter().zip(turned) {
        if let Some(Turned { weight, bias }) = turned {
            replace_linear(graph, site, &weight, &bias)?;
        }
    }
    for rotation in &rotations {
        rotation.write(graph, structure)?;
    }
    Ok(rotations.len())
}

/// A stream and its `Q`.
struct Rotation<'s> {
    stream: &'s Stream,
    q: Mat<f64>,
    /// γ and β of the norms behind which a Linear stands, by the Linear's site.
    affine: HashMap<usize, (Col<f64>, Row<f64>)>,
}

impl<'s> Rotation<'s> {
    fn new(
        graph: &Graph,
        structure: &'s Structure,
        stream: &'s Stream,
        seed: u64,
    ) -> Result<Self, TransformError> {
        let mut affine = HashMap::new();
        for norm in stream.norms.iter().map(|&n| &structure.norms[n]) {
            let pair = parameters_of(graph, norm, stream.channels)?;
            affine.extend(norm.sites.iter().map(|&site| (site, pair.clone())));
        }
        Ok(Rotation {
            stream,
            q: orthogonal(stream.channels, seed),
            affine,
        })
    }

    /// All but the Linears.
    fn write(&self, graph: &mut Graph, structure: &Structure) -> Result<(), TransformError> {
        for &constant in &self.stream.constants {
            self.constant(graph, constant)?;
        }
        let (ones, zeros) = (
            vec![1.0; self.stream.channels],
            vec![0.0; self.stream.channels],
        );
        for &norm in &self.stream.norms {
            apply_norm(graph, structure, norm, &ones, &zeros)?;
        }
        for &value in &self.stream.values {
            rename(graph, value);
        }
        Ok(())
    }

    /// `c·Q` along its channels; one number for all channels stays what it is, as `1·Q = 1`.
    fn constant(&self, graph: &mut Graph, constant: Constant) -> Result<(), TransformError> {
        let Constant { node, input, axis } = constant;
        let value = graph.input(node, input);
        let refuse = || {
            TransformError::new(
                graph.label(node),
                "a constant of the stream has other channels: export in float32",
            )
        };
        let dims = value
            .and_then(|v| graph.constant_dims(v))
            .ok_or_else(refuse)?;
        let Some(place) = dims.len().checked_sub(1 + axis).filter(|&p| dims[p] != 1) else {
            return Ok(());
        };
        if dims[place] != self.stream.channels {
            return Err(refuse());
        }
        let values = floats(graph, value).ok_or_else(refuse)?;
        let inner = dims[place + 1..].iter().product::<usize>().max(1);
        let mut rotated = Vec::with_capacity(values.len());
        for chunk in values.chunks_exact(self.stream.channels * inner) {
            // [inner, channels]: the channels are the chunk's rows.
            let chunk = MatRef::from_column_major_slice(chunk, inner, self.stream.channels);
            rotated.extend(columns(&(chunk * &self.q)));
        }
        graph.replace_constant(node, input, &Tensor::from_f32(&dims, &rotated));
        Ok(())
    }
}

/// New parameters of a Linear.
struct Turned {
    /// `[out, in]`
    weight: Vec<f32>,
    /// `[out]`
    bias: Vec<f32>,
}

/// The new parameters of a Linear that reads or writes rotated streams.
fn linear(
    graph: &Graph,
    site: &Site,
    index: usize,
    rotations: &[Rotation<'_>],
) -> Result<Option<Turned>, TransformError> {
    let reads = |r: &&Rotation| r.affine.contains_key(&index) || r.stream.readers.contains(&index);
    let behind = rotations.iter().find(reads);
    let before = rotations.iter().find(|r| r.stream.writers.contains(&index));
    if behind.is_none() && before.is_none() {
        return Ok(None);
    }
    let stored = Stored::read(graph, site)?;
    let weight = stored.weight();
    let mut bias = stored.bias.clone();
    let left = behind.map(|Rotation { q, affine, .. }| match affine.get(&index) {
        Some((gamma, beta)) => {
            bias += beta.as_ref() * weight;
            gamma.as_diagonal() * q
        }
        None => q.clone(),
    });
    let weight = match (left, before) {
        (Some(left), Some(Rotation { q, .. })) => left.transpose() * weight * q,
        (Some(left), None) => left.transpose() * weight,
        (None, Some(Rotation { q, .. })) => weight * q,
        (None, None) => return Ok(None),
    };
    if let Some(Rotation { q, .. }) = before {
        bias = &bias * q;
    }
    let bias = bias.iter().map(|&b| b as f32).collect();
    let weight = columns(&weight);
    Ok(Some(Turned { weight, bias }))
}

/// Column after column.
fn columns(matrix: &Mat<f64>) -> Vec<f32> {
    let columns = matrix.col_iter();
    columns
        .flat_map(|column| column.iter().map(|&v| v as f32))
        .collect()
}

/// γ and β of a norm, β zeros where it has none.
fn parameters_of(
    graph: &Graph,
    norm: &Norm,
    channels: usize,
) -> Result<(Col<f64>, Row<f64>), TransformError> {
    let read = |i| {
        floats(graph, graph.input(norm.node, i)).ok_or_else(|| {
            TransformError::new(
                &norm.name,
                "its scale or shift is no float32 constant: export in float32",
            )
        })
    };
    let shift = norm.shift.filter(|&i| graph.input(norm.node, i).is_some());
    let beta = shift.map_or_else(|| Ok(vec![0.0; channels]), read)?;
    let gamma = read(norm.scale)?;
    Ok((
        Col::from_fn(channels, |c| gamma[c]),
        Row::from_fn(channels, |c| beta[c]),
    ))
}

/// Weight and bias of a Linear or patch embedding.
struct Stored {
    values: Vec<f64>,
    inputs: usize,
    /// Whether `values` are `[out, in]` and not `[in, out]`.
    turned: bool,
    bias: Row<f64>,
}

impl Stored {
    fn read(graph: &Graph, site: &Site) -> Result<Self, TransformError> {
        let (parameters, _) = weight_dims(graph, site)?;
        let refuse = || {
            let problem = "its weight or bias is no float32 constant: export in float32";
            TransformError::new(&site.name, problem)
        };
        let bias = match parameters.bias {
            None => vec![0.0],
            Some(value) => floats(graph, Some(value)).ok_or_else(refuse)?,
        };
        // One number may stand for all.
        let bias_of = |o: usize| bias.get(o).or(bias.first()).copied().unwrap_or(0.0);
        Ok(Stored {
            values: floats(graph, Some(parameters.weight)).ok_or_else(refuse)?,
            inputs: parameters.inputs,
            turned: site.kind == SiteKind::PatchEmbed,
            bias: Row::from_fn(parameters.outputs, bias_of),
        })
    }

    /// `[in, out]`
    fn weight(&self) -> MatRef<'_, f64> {
        let outputs = self.bias.ncols();
        if self.turned {
            MatRef::from_column_major_slice(&self.values, self.inputs, outputs)
        } else {
            MatRef::from_row_major_slice(&self.values, self.inputs, outputs)
        }
    }
}

fn floats(graph: &Graph, value: Option<Outlet>) -> Option<Vec<f64>> {
    let values = graph.tensor(value?)?.to_f32().ok()?;
    Some(values.into_iter().map(f64::from).collect())
}

/// Gives a value a name that the float model does not have.
fn rename(graph: &mut Graph, value: Outlet) {
    if graph.is_captured(value) {
        return;
    }
    let name = graph.fresh(&format!("{}{ROTATED}", graph.name(value)));
    if let Some(output) = graph
        .op_mut(value.node)
        .and_then(|op| op.outputs.get_mut(value.slot))
    {
        *output = name;
    }
}
