//! AveragePool and MaxPool: sums and maxima of the windows' parts, each a strided slice of the whole image.

use candle_core::{Result, Tensor, bail};

use super::call::Call;
use super::shaping::{cut, pad_with};

/// One spatial axis of a pool.
struct Axis {
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    after: usize,
    /// Windows along it.
    count: usize,
}

impl Axis {
    /// Its length with what the last window needs beyond it.
    fn needed(&self) -> usize {
        (self.count - 1) * self.stride + (self.kernel - 1) * self.dilation + 1
    }
}

/// The mean of each window.
pub fn average_pool(call: &Call<'_>) -> Result<Tensor> {
    let x = call.float(0)?;
    let axes = axes(call, x)?;
    let sum = |x: &Tensor, axes: &[Axis]| {
        let parts = parts(x, axes, 0.0)?;
        let mut parts = parts.into_iter();
        let first = parts.next();
        let first = first.ok_or_else(|| candle_core::Error::msg("a window of nothing"))?;
        parts.try_fold(first, |sum, part| sum + part)
    };
    let mut dims = vec![1, 1];
    dims.extend(&x.dims()[2..]);
    let mut ones = Tensor::ones(dims, x.dtype(), x.device())?;
    // What is laid around counts as given values do.
    let padded = call.op.int("count_include_pad") == Some(1);
    for (i, axis) in axes.iter().enumerate().filter(|_| padded) {
        ones = pad_with(&ones, i + 2, (axis.before as i64, axis.after as i64), 1.0)?;
    }
    let counted: Vec<Axis> = axes
        .iter()
        .map(|axis| Axis {
            before: if padded { 0 } else { axis.before },
            ..*axis
        })
        .collect();
    sum(x, &axes)?.broadcast_div(&sum(&ones, &counted)?)
}

/// The largest value of each window.
pub fn max_pool(call: &Call<'_>) -> Result<Tensor> {
    let x = call.float(0)?;
    let parts = parts(x, &axes(call, x)?, f32::MIN)?;
    let largest = parts.into_iter().map(Ok).reduce(|a, b| a?.maximum(&b?));
    largest.unwrap_or_else(|| bail!("a window of nothing"))
}

fn axes(call: &Call<'_>, x: &Tensor) -> Result<Vec<Axis>> {
    let op = call.op;
    if op.string("auto_pad").is_some_and(|it| it != "NOTSET") {
        bail!(
            "learning knows no gradient of {} with auto_pad",
            op.op_type()
        )
    }
    let Some(kernel) = op.ints("kernel_shape") else {
        bail!("{} without kernel_shape", op.op_type())
    };
    let spatial = kernel.len();
    if spatial + 2 != x.rank() {
        bail!("kernel_shape {kernel:?} does not fit {:?}", x.dims())
    }
    let list = |name: &str, usual: i64, count: usize| {
        let values = op.ints(name).map(<[i64]>::to_vec);
        let values = values.unwrap_or_else(|| vec![usual; count]);
        let sizes = values.iter().map(|&v| usize::try_from(v).ok());
        match sizes.collect::<Option<Vec<usize>>>() {
            Some(sizes) if sizes.len() == count => Ok(sizes),
            _ => bail!("{name} {values:?} does not fit"),
        }
    };
    let kernel = list("kernel_shape", 1, spatial)?;
    let (strides, dilations) = (list("strides", 1, spatial)?, list("dilations", 1, spatial)?);
    let pads = list("pads", 0, 2 * spatial)?;
    let up = op.int("ceil_mode") == Some(1);
    let axis = |i: usize| {
        let (kernel, stride, dilation) = (kernel[i], strides[i].max(1), dilations[i]);
        let (before, after) = (pads[i], pads[i + spatial]);
        let reach = kernel
            .saturating_sub(1)
            .saturating_mul(dilation)
            .saturating_add(1);
        let Some(room) = (x.dims()[i + 2] + before + after).checked_sub(reach) else {
            bail!("its kernel is larger than its input {:?}", x.dims())
        };
        let mut count = room / stride + 1;
        if up {
            count = room.div_ceil(stride) + 1;
            // A window begins inside of the image or before it.
            if (count - 1) * stride >= x.dims()[i + 2] + before {
                count -= 1;
            }
        }
        Ok(Axis {
            kernel: kernel.max(1),
            stride,
            dilation,
            before,
            after,
            count,
        })
    };
    (0..spatial).map(axis).collect()
}

/// For each place in a window the values that all windows have there.
fn parts(x: &Tensor, axes: &[Axis], fill: f32) -> Result<Vec<Tensor>> {
    let mut parts = vec![x.clone()];
    for (i, axis) in axes.iter().enumerate() {
        let at = i + 2;
        let mut next = Vec::new();
        for part in parts {
            let after = axis.needed().saturating_sub(part.dim(at)? + axis.before);
            let padded = pad_with(&part, at, (axis.before as i64, after as i64), fill)?;
            for place in 0..axis.kernel {
                let start = (place * axis.dilation) as i64;
                let end = start + ((axis.count - 1) * axis.stride + 1) as i64;
                next.push(cut(&padded, at, (start, end, axis.stride as i64))?);
            }
        }
        parts = next;
    }
    Ok(parts)
}
