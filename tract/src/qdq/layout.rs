use std::ops::Range;

use tract_core::internal::*;

use super::attributes::Attributes;

/// Which element of a tensor takes which scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    /// One scale for all.
    PerTensor,
    /// One scale for each index along the axis.
    PerAxis(usize),
    /// Scales in the form of the tensor, but along `axis` one for each `block` elements.
    Blocked {
        /// The axis that is cut in blocks.
        axis: usize,
        /// Elements in a block; the last may have fewer.
        block: usize,
    },
}

/// Indices into the flat scales and zero points.
pub enum Parameters {
    /// The same for a whole run of elements.
    One(usize),
    /// The first of as many as the run has elements.
    Each(usize),
}

impl Layout {
    /// Finds the layout of a tensor of `dims` whose scales have `scale_dims`.
    pub fn of(dims: &[usize], scale_dims: &[usize], attributes: &Attributes) -> TractResult<Self> {
        let block = attributes.block_size;
        if block == 0 && matches!(scale_dims, [] | [1]) {
            return Ok(Self::PerTensor);
        }
        let axis = normalise(attributes.axis, dims.len())?;
        let mut expected = if block == 0 {
            vec![dims[axis]]
        } else {
            dims.to_vec()
        };
        if block > 0 {
            expected[axis] = dims[axis].div_ceil(block);
        }
        ensure!(
            scale_dims == expected,
            "a tensor of dims {dims:?} with axis {axis} and block_size {block} needs scales of \
             dims {expected:?}, but they are {scale_dims:?}"
        );
        Ok(if block == 0 {
            Self::PerAxis(axis)
        } else {
            Self::Blocked { axis, block }
        })
    }

    /// Calls `visit` for consecutive runs of the flat elements of a tensor of `dims`.
    pub fn visit(self, dims: &[usize], mut visit: impl FnMut(Range<usize>, Parameters)) {
        match self {
            Self::PerTensor => visit(0..dims.iter().product(), Parameters::One(0)),
            Self::PerAxis(axis) => {
                let (outer, len, inner) = around(dims, axis);
                if inner == 1 {
                    (0..outer).for_each(|o| visit(run(o, len), Parameters::Each(0)));
                } else {
                    (0..outer * len)
                        .for_each(|row| visit(run(row, inner), Parameters::One(row % len)));
                }
            }
            Self::Blocked { axis, block } => {
                let (outer, len, inner) = around(dims, axis);
                let blocks = len.div_ceil(block);
                for (o, a) in (0..outer).flat_map(|o| (0..len).map(move |a| (o, a))) {
                    let first = (o * blocks + a / block) * inner;
                    visit(run(o * len + a, inner), Parameters::Each(first));
                }
            }
        }
    }
}

fn run(index: usize, len: usize) -> Range<usize> {
    index * len..(index + 1) * len
}

/// Elements before, along and after an axis.
fn around(dims: &[usize], axis: usize) -> (usize, usize, usize) {
    (
        dims[..axis].iter().product(),
        dims[axis],
        dims[axis + 1..].iter().product(),
    )
}

fn normalise(axis: i64, rank: usize) -> TractResult<usize> {
    let positive = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(positive)
        .ok()
        .filter(|&axis| axis < rank)
        .with_context(|| format!("axis {axis} is outside a tensor of rank {rank}"))
}

/// Layout and zero points agree with what the facts say, as far as shapes are known.
pub fn check(inputs: &[&TypedFact], attributes: &Attributes) -> TractResult<()> {
    if let (Some(dims), Some(scales)) =
        (inputs[0].shape.as_concrete(), inputs[1].shape.as_concrete())
    {
        Layout::of(dims, scales, attributes)?;
    }
    Ok(())
}

/// The zero points, as many as there are scales; zeros where the node has none.
pub fn zero_points(tensor: Option<&TValue>, count: usize) -> TractResult<Vec<i32>> {
    let Some(tensor) = tensor else {
        return Ok(vec![0; count]);
    };
    let zero_points = tensor.cast_to::<i32>()?;
    let zero_points = zero_points.try_as_plain_ram()?.as_slice::<i32>()?;
    ensure!(
        zero_points.len() == count,
        "{} zero points for {count} scales",
        zero_points.len()
    );
    Ok(zero_points.to_vec())
}
