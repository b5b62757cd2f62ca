//! Where the networks are differentiated: on the processor, or on a GPU.

use super::kernels::Kernels;
use super::{LearnError, message};

/// What learning computes on. Calibration, rounding and Adam's steps stay on the processor.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Device {
    /// The processor, all of its cores.
    #[default]
    Cpu,
    /// The first NVIDIA GPU; in a build with the feature `cuda`.
    Cuda,
}

impl Device {
    /// Whether it is there.
    ///
    /// # Errors
    /// It is not, or the build does not know it; the message says what to do.
    pub fn require(self) -> Result<(), LearnError> {
        Backend::of(self).map(drop)
    }
}

/// A device that is ready, and whose operators run on it.
#[derive(Clone, Debug)]
pub struct Backend {
    /// candle's.
    pub device: candle_core::Device,
    /// Of what has a gradient of its own.
    pub kernels: Kernels,
}

impl Backend {
    /// The processor with our own kernels.
    pub fn cpu() -> Self {
        Self {
            device: candle_core::Device::Cpu,
            kernels: Kernels::Own,
        }
    }

    /// # Errors
    /// There is no such device, or the build knows none.
    pub fn of(device: Device) -> Result<Self, LearnError> {
        match device {
            Device::Cpu => Ok(Self::cpu()),
            Device::Cuda if !cfg!(feature = "cuda") => Err(LearnError::Device(
                "this build knows no GPU: build it with --features cuda, or leave --device out".into(),
            )),
            // One stream for all threads: samples are differentiated side by side, and what one thread uploads another one reads. On each thread's
            // own stream, candle's usual choice, nothing orders the two.
            Device::Cuda => candle_core::Device::new_cuda_with_stream(0)
                .map(|device| Self {
                    device,
                    kernels: Kernels::Composed,
                })
                .map_err(|e| {
                    let why = message(&e);
                    LearnError::Device(format!(
                        "no GPU can be used ({why}): see whether nvidia-smi lists one, or leave --device out"
                    ))
                }),
        }
    }
}

/// Where values lie: none at all stay on the processor, as CUDA has no room of no bytes.
pub fn home<'d>(values: &[f32], device: &'d candle_core::Device) -> &'d candle_core::Device {
    match values.is_empty() {
        true => &candle_core::Device::Cpu,
        false => device,
    }
}
