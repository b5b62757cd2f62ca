//! The residual stream in rotated channels (QuaRot, arXiv 2404.00456; SpinQuant, arXiv 2405.16406): channels that stand out are
//! spread over all, so that weights and norms' results round better. Costs nothing at run time.
//!
//! ```text
//! Linear(W₁, b₁) ─ Add ─ LayerNormalization(γ, β) ─ Linear(W₂, b₂)
//!   →  Linear(W₁·Q, b₁·Q) ─ Add ─ LayerNormalization(1, 0) ─ Linear(Qᵀ·diag(γ)·W₂, b₂ + β·W₂)
//! ```
//! Weights are `[in, out]`, values rows. `Q` is orthogonal with `Q·1 = 1`, so that a rotated row has the mean and the variance
//! of the row before and LayerNormalization stays what it is; the papers' `Q` needs norms without a mean. Constants of the
//! stream (class token, positions) become `c·Q`.
//! Every value of the stream changes, so its name gets the ending `/rotated`.
//! Declined: streams that [`Stream::declined`] speaks of.

mod basis;

use std::collections::BTreeSet;

use ndarray::{Array1, Array2, ArrayView2, Axis};
use vitq_onnx::Tensor;

use super::{TransformError, apply_norm, replace_linear, weight_dims};
use crate::ir::{Graph, Outlet};
use crate::structure::{Constant, Site, SiteKind, Stream, Structure};

pub use basis::orthogonal;

/// What the names of rotated values end with.
pub const ROTATED: &str = "/rotated";

/// Rotates every stream that can be, and returns how many. `structure` was recognised on this very graph; it has to be
/// recognised again. On an error the graph is left half rewritten: rotate a copy.
pub fn rotate(
    graph: &mut Graph,
    structure: &Structure,
    seed: u64,
) -> Result<usize, TransformError> {
    let mut rotated = 0;
    for stream in structure.streams.iter().filter(|s| s.declined.is_none()) {
        Rotation::new(graph, structure, stream, seed)?.write(graph)?;
        rotated += 1;
    }
    Ok(rotated)
}

/// A stream and its `Q`.
struct Rotation<'s> {
    structure: &'s Structure,
    stream: &'s Stream,
    q: Array2<f64>,
    /// γ and β of the stream's norms.
    affine: Vec<(Array1<f64>, Array1<f64>)>,
}

impl<'s> Rotation<'s> {
    fn new(
        graph: &Graph,
        structure: &'s Structure,
        stream: &'s Stream,
        seed: u64,
    ) -> Result<Self, TransformError> {
        let affine = |&n: &usize| {
            let norm = &structure.norms[n];
            let zeros = || Ok(Array1::zeros(stream.channels));
            let read = |i| floats(graph, graph.input(norm.node, i)).map(Array1::from);
            let missing = || TransformError::new(&norm.name, "its scale or shift is no constant");
            let beta = match graph.input(norm.node, 2) {
                Some(_) => read(2).ok_or_else(missing),
                None => zeros(),
            };
            Ok((read(1).ok_or_else(missing)?, beta?))
        };
        Ok(Rotation {
            structure,
            stream,
            q: orthogonal(stream.channels, seed),
            affine: stream.norms.iter().map(affine).collect::<Result<_, _>>()?,
        })
    }

    fn write(&self, graph: &mut Graph) -> Result<(), TransformError> {
        for &constant in &self.stream.constants {
            self.constant(graph, constant)?;
        }
        for site in self.sites() {
            self.linear(graph, site)?;
        }
        let (ones, zeros) = (
            vec![1.0; self.stream.channels],
            vec![0.0; self.stream.channels],
        );
        for &norm in &self.stream.norms {
            apply_norm(graph, self.structure, norm, &ones, &zeros)?;
        }
        for &value in &self.stream.values {
            rename(graph, value);
        }
        Ok(())
    }

    /// All sites that read or write the stream.
    fn sites(&self) -> BTreeSet<usize> {
        let norms = self.stream.norms.iter();
        let behind = norms.flat_map(|&n| &self.structure.norms[n].sites);
        let direct = self.stream.readers.iter().chain(&self.stream.writers);
        behind.chain(direct).copied().collect()
    }

    fn linear(&self, graph: &mut Graph, index: usize) -> Result<(), TransformError> {
        let site = &self.structure.sites[index];
        let (mut weight, mut bias) = parameters(graph, site)?;
        let norm = self
            .stream
            .norms
            .iter()
            .position(|&n| self.structure.norms[n].sites.contains(&index));
        if let Some((gamma, beta)) = norm.map(|n| &self.affine[n]) {
            bias += &beta.dot(&weight);
            weight *= &gamma.view().insert_axis(Axis(1));
        }
        if norm.is_some() || self.stream.readers.contains(&index) {
            weight = self.q.t().dot(&weight);
        }
        if self.stream.writers.contains(&index) {
            weight = weight.dot(&self.q);
            bias = bias.dot(&self.q);
        }
        let weight: Vec<f32> = weight.t().iter().map(|&w| w as f32).collect();
        let bias: Vec<f32> = bias.iter().map(|&b| b as f32).collect();
        replace_linear(graph, site, &weight, &bias)
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
            let chunk = ArrayView2::from_shape((self.stream.channels, inner), chunk);
            let chunk = chunk.map_err(|_| refuse())?;
            rotated.extend(self.q.t().dot(&chunk).iter().map(|&v| v as f32));
        }
        graph.replace_constant(node, input, &Tensor::from_f32(&dims, &rotated));
        Ok(())
    }
}

/// Weight `[in, out]` and bias `[out]`.
fn parameters(graph: &Graph, site: &Site) -> Result<(Array2<f64>, Array1<f64>), TransformError> {
    let (parameters, _) = weight_dims(graph, site)?;
    let refuse = || {
        TransformError::new(
            &site.name,
            "its weight or bias is no float32 constant: export in float32",
        )
    };
    let (inputs, outputs) = (parameters.inputs, parameters.outputs);
    let stored = floats(graph, Some(parameters.weight)).ok_or_else(refuse)?;
    let weight = if site.kind == SiteKind::PatchEmbed {
        Array2::from_shape_vec((outputs, inputs), stored).map(Array2::reversed_axes)
    } else {
        Array2::from_shape_vec((inputs, outputs), stored)
    };
    let bias = match parameters.bias {
        None => Array1::zeros(outputs),
        Some(value) => {
            let values = floats(graph, Some(value)).ok_or_else(refuse)?;
            let values = Array1::from(values);
            values.broadcast(outputs).ok_or_else(refuse)?.to_owned()
        }
    };
    Ok((weight.map_err(|_| refuse())?, bias))
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
