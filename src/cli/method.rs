//! How the numbers are found: solved for, or learned block by block behind that.

use clap::ValueEnum;
use vitq::learn::{BlockOptions, Device};

/// What learns behind calibration.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// How the numbers are found. closed-form: solved for, in seconds. The other two go on from there, block by block on the
    /// unlabelled images of --calib (nine of ten, at most 1024; the more the better), each block to give what the float model's
    /// gives: reconstruct lets weights, scales, biases and steps learn; aiqvit leaves the rounded weights as they are, and lets
    /// low-rank branches beside them learn (ranks as of --rank auto), biases, steps, and the interval that attention weights are
    /// focused on where no codebook or logarithmic code suits them better (as with --codes uniform --without logarithm), from easy
    /// images to hard ones (--without low-rank, focusing, curriculum leave one of these out). Blocks that come no nearer on images
    /// held out stay as they are. `vitq train` learns from end to end, behind blocks or without
    #[arg(
        long,
        value_enum,
        value_name = "METHOD",
        default_value = "closed-form",
        conflicts_with = "budget"
    )]
    pub method: Method,
    /// Steps of each block, where blocks learn
    #[arg(long, value_name = "N", default_value_t = BlockOptions::default().steps)]
    pub block_steps: usize,
    /// Where blocks, and `vitq train`, learn: the processor, or the first NVIDIA GPU (in a build with --features cuda, which wants CUDA's
    /// compiler). Calibration before and verification behind run on the processor
    #[arg(long, value_enum, value_name = "DEVICE", default_value = "cpu")]
    pub device: DeviceName,
}

/// Where it learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceName {
    Cpu,
    Cuda,
}

impl From<DeviceName> for Device {
    fn from(name: DeviceName) -> Self {
        match name {
            DeviceName::Cpu => Device::Cpu,
            DeviceName::Cuda => Device::Cuda,
        }
    }
}

/// How the numbers are found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Method {
    /// Solved for.
    ClosedForm,
    /// Everything learns.
    Reconstruct,
    /// What AIQViT lets learn.
    Aiqvit,
}
