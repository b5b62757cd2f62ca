//! ScatterND at places that are known: what stood there goes, what is put there comes, each place once.

use candle_core::{Result, Tensor, bail};

use super::call::Call;

/// `data` with `updates` at `indices [n, axes]`.
pub fn scatter_nd(call: &Call<'_>) -> Result<Tensor> {
    let (data, updates) = (call.float(0)?, call.float(2)?);
    let Some(indices) = call.integers(1)? else {
        bail!("ScatterND without indices")
    };
    if call.op.string("reduction").is_some_and(|it| it != "none") {
        bail!("learning knows no gradient of ScatterND with a reduction")
    }
    let axes = indices.dims.last().copied().unwrap_or(0);
    let Some((leading, rest)) = data.dims().split_at_checked(axes).filter(|_| axes > 0) else {
        bail!("ScatterND: indices of {axes} axes for {:?}", data.dims())
    };
    let (rows, width) = (leading.iter().product(), rest.iter().product::<usize>());
    let mut kept = vec![1.0f32; rows];
    let mut places = Vec::new();
    for index in indices.values.chunks_exact(axes) {
        let place = row(index, leading)?;
        if std::mem::replace(&mut kept[place], 0.0) == 0.0 {
            bail!("learning knows no gradient of ScatterND that puts two values at one place")
        }
        places.push(place as u32);
    }
    let device = data.device();
    let count = places.len();
    let places = Tensor::from_vec(places, count, device)?;
    let kept = Tensor::from_vec(kept, (rows, 1), device)?;
    let updates = updates.contiguous()?.reshape((count, width))?;
    let put =
        Tensor::zeros((rows, width), data.dtype(), device)?.index_add(&places, &updates, 0)?;
    let left = data.contiguous()?.reshape((rows, width))?;
    (left.broadcast_mul(&kept)? + put)?.reshape(data.dims())
}

/// The row of an index, whose entries may count from the end.
fn row(index: &[i64], dims: &[usize]) -> Result<usize> {
    index.iter().zip(dims).try_fold(0, |row, (&at, &size)| {
        let at = if at < 0 { at + size as i64 } else { at };
        match usize::try_from(at) {
            Ok(at) if at < size => Ok(row * size + at),
            _ => bail!("ScatterND beyond the end"),
        }
    })
}
