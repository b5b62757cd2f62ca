//! Conv and ConvTranspose.

use candle_core::{Result, Tensor, bail};

use super::call::Call;
use super::shaping::pad_with;

/// A Conv of one or two dimensions.
pub fn conv(call: &Call<'_>) -> Result<Tensor> {
    let (x, w) = (call.float(0)?, call.float(1)?);
    not_automatic(call)?;
    if !(3..=4).contains(&x.rank()) {
        bail!("learning knows no gradient of a Conv of {:?}", x.dims())
    }
    let (stride, dilation) = (even(call, "strides", 1)?, even(call, "dilations", 1)?);
    let groups = usize::try_from(call.op.int("group").unwrap_or(1)).unwrap_or(1);
    let (x, pad) = padded(call, x, w, (stride.max(1), dilation.max(1)))?;
    let y = match x.rank() {
        // candle's gradient of its own Conv of one dimension is wrong for more than one sample (0.11.1).
        3 => {
            let (x, w) = (x.unsqueeze(3)?, w.unsqueeze(3)?);
            x.conv2d(&w, 0, stride, dilation, groups)?.squeeze(3)?
        }
        _ => x.conv2d(w, pad, stride, dilation, groups)?,
    };
    with_bias(call, y)
}

/// A ConvTranspose of two dimensions.
pub fn conv_transpose(call: &Call<'_>) -> Result<Tensor> {
    let (x, w) = (call.float(0)?, call.float(1)?);
    not_automatic(call)?;
    let groups = call.op.int("group").unwrap_or(1);
    if x.rank() != 4 || groups != 1 || call.op.ints("output_shape").is_some() {
        bail!("learning knows no gradient of a ConvTranspose with groups or an output_shape")
    }
    let (stride, dilation) = (even(call, "strides", 1)?, even(call, "dilations", 1)?);
    let (pad, more) = (even(call, "pads", 0)?, even(call, "output_padding", 0)?);
    let y = x.conv_transpose2d(w, pad, more, stride, dilation)?;
    with_bias(call, y)
}

/// The input, and what candle is to lay around it on all sides.
///
/// What no window covers is left out here: candle's gradient takes it for the same along all axes.
fn padded(
    call: &Call<'_>,
    x: &Tensor,
    w: &Tensor,
    (stride, dilation): (usize, usize),
) -> Result<(Tensor, usize)> {
    let spatial = x.rank() - 2;
    let pads = call.op.ints("pads");
    let pads = pads.map_or_else(|| vec![0; 2 * spatial], <[i64]>::to_vec);
    if pads.len() != 2 * spatial || w.rank() != x.rank() {
        bail!(
            "Conv: {pads:?} and {:?} do not fit {:?}",
            w.dims(),
            x.dims()
        )
    }
    let side = |axis: usize| {
        let (before, after) = (pads[axis], pads[axis + spatial]);
        let reach = (w.dims()[axis + 2].saturating_sub(1) * dilation + 1) as i64;
        let left = (x.dims()[axis + 2] as i64 + before + after - reach).rem_euclid(stride as i64);
        (before, after - left)
    };
    let sides: Vec<(i64, i64)> = (0..spatial).map(side).collect();
    let same = |it: &(i64, i64)| *it == (sides[0].0, sides[0].0);
    if spatial == 2 && sides.iter().all(same) {
        return Ok((x.clone(), usize::try_from(sides[0].0).unwrap_or(0)));
    }
    let mut x = x.clone();
    for (axis, &side) in sides.iter().enumerate() {
        x = pad_with(&x, axis + 2, side, 0.0)?;
    }
    Ok((x, 0))
}

fn not_automatic(call: &Call<'_>) -> Result<()> {
    match call.op.string("auto_pad") {
        None | Some("NOTSET" | "VALID") => Ok(()),
        Some(other) => bail!(
            "learning knows no gradient of a {} with auto_pad {other}",
            call.op.op_type()
        ),
    }
}

/// An attribute that is the same along all axes.
fn even(call: &Call<'_>, name: &str, none: i64) -> Result<usize> {
    let values = call.op.ints(name);
    let values = values.map_or_else(|| vec![none], <[i64]>::to_vec);
    match values.iter().all(|v| Some(v) == values.first()) {
        true => Ok(usize::try_from(values.first().copied().unwrap_or(none)).unwrap_or(0)),
        false => bail!(
            "learning knows no gradient of a {} with uneven {name}",
            call.op.op_type()
        ),
    }
}

fn with_bias(call: &Call<'_>, y: Tensor) -> Result<Tensor> {
    let mut dims = vec![1; y.rank()];
    dims[1] = y.dim(1)?;
    match call.operands.get(2).copied().flatten() {
        None => Ok(y),
        Some(_) => y.broadcast_add(&call.float(2)?.reshape(dims)?),
    }
}
