//! Operators with a gradient of their own, one a file: what candle would compute in many passes over memory, or rounds.
//!
//! They run on one core; a step runs samples side by side.

mod exponential;
mod gelu;
mod layer_norm;
mod linear;
mod quantiser;
mod softmax;

use candle_core::{CpuStorage, Layout, Result, Shape, Storage, Tensor, bail};

pub use gelu::Gelu;
pub use layer_norm::LayerNorm;
pub use linear::{Linear, Total};
pub use quantiser::{FakeQuantise, learned, step};
pub use softmax::Softmax;

/// The elements of a contiguous operand.
fn elements<'a>(storage: &'a CpuStorage, layout: &Layout) -> Result<&'a [f32]> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        bail!("an operand is not contiguous")
    };
    Ok(&storage.as_slice::<f32>()?[start..end])
}

/// Reads a tensor without copying it, if it is contiguous.
pub fn read<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.contiguous()?;
    let (storage, layout) = tensor.storage_and_layout();
    match &*storage {
        Storage::Cpu(storage) => Ok(read(elements(storage, layout)?)),
        _ => bail!("a tensor is not on the CPU"),
    }
}

/// A result with the shape of an operand.
fn like(values: Vec<f32>, layout: &Layout) -> (CpuStorage, Shape) {
    (CpuStorage::F32(values), layout.shape().clone())
}

/// A tensor with the shape of another one.
fn tensor_like(values: Vec<f32>, other: &Tensor) -> Result<Tensor> {
    Tensor::from_vec(values, other.shape(), other.device())
}

/// Size of the last axis.
fn row(layout: &Layout) -> usize {
    layout.dims().last().copied().unwrap_or(1).max(1)
}
