//! Operators with a gradient of their own, one a file: what candle would compute in many passes over memory, or rounds.
//!
//! They run on one core; a step runs samples side by side. On a GPU the same operators are put together of candle's.

mod composed;
mod exponential;
mod gelu;
mod layer_norm;
mod linear;
mod quantiser;
mod softmax;

use candle_core::{CpuStorage, Device, Layout, Result, Shape, Storage, Tensor, bail};
use vitq_passes::plan::Activation;

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

/// Whose operators run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kernels {
    /// Those of this folder, on the processor.
    Own,
    /// The same of candle's operators, on any device.
    Composed,
}

impl Kernels {
    /// GELU by the error function.
    pub fn gelu(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Kernels::Own => x.contiguous()?.apply_op1(Gelu),
            Kernels::Composed => x.gelu_erf(),
        }
    }

    /// Softmax over the last axis.
    pub fn softmax(self, x: &Tensor) -> Result<Tensor> {
        match self {
            Kernels::Own => x.contiguous()?.apply_op1(Softmax),
            Kernels::Composed => composed::softmax(x),
        }
    }

    /// As [`LayerNorm`].
    pub fn layer_norm(
        self,
        x: &Tensor,
        [scale, shift]: &[Tensor; 2],
        norm: LayerNorm,
    ) -> Result<Tensor> {
        match self {
            Kernels::Own => x.contiguous()?.apply_op3(scale, shift, norm),
            Kernels::Composed => composed::layer_norm(x, scale, shift, &norm),
        }
    }

    /// As [`Linear`]; `total` takes the weight's gradient, here or (by [`Total::add_tensor`]) from candle.
    pub fn linear(
        self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        total: Option<&Total>,
    ) -> Result<Tensor> {
        match self {
            Kernels::Own => {
                let total = total.cloned();
                x.contiguous()?.apply_op3(w, b, Linear { total })
            }
            Kernels::Composed => composed::linear(x, w, b),
        }
    }

    /// As [`FakeQuantise`].
    pub fn fake_quantise(
        self,
        x: &Tensor,
        numbers: &Tensor,
        quantiser: &Activation,
    ) -> Result<Tensor> {
        match self {
            Kernels::Own => {
                let quantiser = quantiser.clone();
                x.contiguous()?
                    .apply_op2(numbers, FakeQuantise { quantiser })
            }
            Kernels::Composed => composed::fake_quantise(x, numbers, quantiser),
        }
    }

    /// Whether candle finds the gradients of weights.
    pub fn leaves_weights_to_candle(self) -> bool {
        self == Kernels::Composed
    }
}

/// Reads a tensor, without copying it if it is contiguous and on the processor.
pub fn read<R>(tensor: &Tensor, read: impl FnOnce(&[f32]) -> R) -> Result<R> {
    let tensor = tensor.to_device(&Device::Cpu)?.contiguous()?;
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
