//! Normalisations of images: by numbers of the training's, or by those of the image itself.

use candle_core::{Result, Tensor};

use super::call::Call;

/// `(x - mean)/√(variance + ε)·scale + shift`, all of them `[channels]`.
pub fn batch(call: &Call<'_>) -> Result<Tensor> {
    let x = call.float(0)?;
    let variance = (call.float(4)? + epsilon(call))?;
    let scale = (call.float(1)? / variance.sqrt()?)?;
    let shift = (call.float(2)? - (call.float(3)? * &scale)?)?;
    channelwise(x, &scale, &shift)
}

/// The same by mean and variance of each channel of an image.
pub fn instance(call: &Call<'_>) -> Result<Tensor> {
    let x = call.float(0)?;
    let spatial: Vec<usize> = (2..x.rank()).collect();
    let centred = x.broadcast_sub(&x.mean_keepdim(spatial.clone())?)?;
    let variance = centred.sqr()?.mean_keepdim(spatial)?;
    let deviation = (variance + epsilon(call))?.sqrt()?;
    let normal = centred.broadcast_div(&deviation)?;
    channelwise(&normal, call.float(1)?, call.float(2)?)
}

fn epsilon(call: &Call<'_>) -> f64 {
    f64::from(call.op.float("epsilon").unwrap_or(1e-5))
}

/// `x·scale + shift` along the second axis.
fn channelwise(x: &Tensor, scale: &Tensor, shift: &Tensor) -> Result<Tensor> {
    let mut dims = vec![1; x.rank()];
    dims[1] = x.dim(1)?;
    x.broadcast_mul(&scale.reshape(dims.clone())?)?
        .broadcast_add(&shift.reshape(dims)?)
}
