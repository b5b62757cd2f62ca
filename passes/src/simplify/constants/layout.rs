//! Moving the elements of a constant about, whatever their type (of whole bytes).

use vitq_onnx::Tensor;

/// Bytes of an element; `None` for packed types.
fn width(tensor: &Tensor) -> Option<usize> {
    tensor.dtype.bits().filter(|b| b % 8 == 0).map(|b| b / 8)
}

/// Steps between neighbours along each axis, in elements.
pub(super) fn strides(dims: &[usize]) -> Vec<isize> {
    let mut step = 1;
    let mut strides = vec![0; dims.len()];
    for (stride, &dim) in strides.iter_mut().zip(dims).rev() {
        *stride = step;
        step *= dim as isize;
    }
    strides
}

/// The elements at `offset + Σ index·stride` in row-major order of `dims`.
pub(super) fn view(
    tensor: &Tensor,
    offset: isize,
    strides: &[isize],
    dims: &[usize],
) -> Option<Tensor> {
    let width = width(tensor)?;
    let count = dims.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    let mut data = Vec::with_capacity(count.checked_mul(width)?);
    let mut index = vec![0; dims.len()];
    let mut at = offset;
    for _ in 0..count {
        let start = usize::try_from(at).ok()?.checked_mul(width)?;
        data.extend_from_slice(tensor.data.get(start..start + width)?);
        for axis in (0..dims.len()).rev() {
            index[axis] += 1;
            at += strides[axis];
            if index[axis] < dims[axis] {
                break;
            }
            at -= strides[axis] * dims[axis] as isize;
            index[axis] = 0;
        }
    }
    Some(Tensor {
        dtype: tensor.dtype,
        dims: dims.to_vec(),
        data: data.into(),
    })
}

/// The tensor repeated along axes of size one and new leading axes.
pub(super) fn expand(tensor: &Tensor, dims: &[usize]) -> Option<Tensor> {
    let missing = dims.len().checked_sub(tensor.dims.len())?;
    let mut steps = vec![0; missing];
    for ((&dim, &wanted), step) in tensor
        .dims
        .iter()
        .zip(&dims[missing..])
        .zip(strides(&tensor.dims))
    {
        match dim {
            1 => steps.push(0),
            _ if dim == wanted => steps.push(step),
            _ => return None,
        }
    }
    view(tensor, 0, &steps, dims)
}

/// Rows along `axis` picked by index.
pub(super) fn gather(tensor: &Tensor, axis: usize, picks: &Tensor) -> Option<Tensor> {
    let width = width(tensor)?;
    let size = *tensor.dims.get(axis)?;
    let inner = tensor.dims[axis + 1..]
        .iter()
        .product::<usize>()
        .checked_mul(width)?;
    let outer: usize = tensor.dims[..axis].iter().product();
    let mut data = Vec::new();
    let picked = picks.to_i64().ok()?;
    for o in 0..outer {
        for &pick in &picked {
            let row = o * size + crate::simplify::axes::normal(pick, size)?;
            data.extend_from_slice(tensor.data.get(row * inner..(row + 1) * inner)?);
        }
    }
    let dims = [&tensor.dims[..axis], &picks.dims, &tensor.dims[axis + 1..]].concat();
    Some(Tensor {
        dtype: tensor.dtype,
        dims,
        data: data.into(),
    })
}

/// The tensors one after another along `axis`.
pub(super) fn concat(tensors: &[Tensor], axis: usize) -> Option<Tensor> {
    let first = tensors.first()?;
    let width = width(first)?;
    let mut dims = first.dims.clone();
    *dims.get_mut(axis)? = 0;
    for tensor in tensors {
        let same = |a: usize| a == axis || tensor.dims.get(a) == first.dims.get(a);
        if tensor.dtype != first.dtype
            || tensor.dims.len() != dims.len()
            || !(0..dims.len()).all(same)
        {
            return None;
        }
        dims[axis] = dims[axis].checked_add(tensor.dims[axis])?;
    }
    let outer: usize = dims[..axis].iter().product();
    let mut data = Vec::new();
    for o in 0..outer {
        for tensor in tensors {
            let rows = tensor.dims[axis..]
                .iter()
                .product::<usize>()
                .checked_mul(width)?;
            data.extend_from_slice(tensor.data.get(o * rows..(o + 1) * rows)?);
        }
    }
    Some(Tensor {
        dtype: first.dtype,
        dims,
        data: data.into(),
    })
}
