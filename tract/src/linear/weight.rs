use tract_core::internal::*;
use tract_core::ops::change_axes::AxisOp;

use crate::constant::constant;
use crate::qdq::{Dequantize, Layout};

/// More products of 8-bit codes than this could overflow a sum in i32.
const LONGEST_SUM: usize = 1 << 16;

/// A constant int8 weight without zero point, one scale for each output channel.
pub struct Weight {
    /// In the form in which the product reads it.
    pub codes: Arc<Tensor>,
    /// One for each output channel.
    pub scales: Vec<f32>,
    /// Of the codes of each output channel.
    pub sums: Vec<i32>,
}

impl Weight {
    /// Reads the second operand of a product with `axes`.
    pub fn of(
        model: &TypedModel,
        outlet: OutletId,
        axes: &AxesMapping,
    ) -> TractResult<Option<Self>> {
        let Some((node, moves)) = dequantize_behind(model, outlet) else {
            return Ok(None);
        };
        let Some(stored) = Stored::read(model, node)? else {
            return Ok(None);
        };
        let mut codes = stored.codes.into_tensor();
        let mut axis = stored.axis;
        for op in moves.iter().rev() {
            op.change_tensor(&mut codes, false)?;
            axis = match axis {
                Some(axis) => match op.transform_axis(axis) {
                    Some(axis) => Some(axis),
                    None => return Ok(None),
                },
                None => None,
            };
        }
        let Some((k, n)) = operand_axes(axes, codes.shape()) else {
            return Ok(None);
        };
        let channels = codes.shape()[n];
        if axis.is_some_and(|axis| axis != n) || channels == 0 || codes.shape()[k] > LONGEST_SUM {
            return Ok(None);
        }
        let scales = match stored.scales.as_slice() {
            &[one] => vec![one; channels],
            all => all.to_vec(),
        };
        let sums = sums(&codes, n < k, channels)?;
        Ok(Some(Self {
            codes: codes.into_arc_tensor(),
            scales,
            sums,
        }))
    }
}

/// The node that dequantises what an outlet gives, and the changes of axes between, the last first.
fn dequantize_behind(
    model: &TypedModel,
    mut outlet: OutletId,
) -> Option<(&TypedNode, Vec<&AxisOp>)> {
    let mut moves = vec![];
    loop {
        let node = model.node(outlet.node);
        if node.op_is::<Dequantize>() {
            return Some((node, moves));
        }
        moves.push(node.op_as::<AxisOp>()?);
        outlet = *node.inputs.first()?;
    }
}

struct Stored {
    codes: Arc<Tensor>,
    scales: Vec<f32>,
    /// That of the scales, if there is one for each index.
    axis: Option<usize>,
}

impl Stored {
    fn read(model: &TypedModel, node: &TypedNode) -> TractResult<Option<Self>> {
        let (Some(dequantize), Some(codes), Some(scales)) = (
            node.op_as::<Dequantize>(),
            constant(model, node.inputs[0])?,
            constant(model, node.inputs[1])?,
        ) else {
            return Ok(None);
        };
        let axis = match Layout::of(codes.shape(), scales.shape(), dequantize.attributes())? {
            Layout::PerTensor => None,
            Layout::PerAxis(axis) => Some(axis),
            Layout::Blocked { .. } => return Ok(None),
        };
        let floats = (scales.datum_type(), node.outputs[0].fact.datum_type);
        if codes.datum_type() != DatumType::I8
            || floats != (DatumType::F32, DatumType::F32)
            || !is_symmetric(model, node)?
        {
            return Ok(None);
        }
        let scales = scales.try_as_plain_ram()?.as_slice::<f32>()?.to_vec();
        Ok(Some(Self {
            codes,
            scales,
            axis,
        }))
    }
}

fn is_symmetric(model: &TypedModel, node: &TypedNode) -> TractResult<bool> {
    let Some(&zero_points) = node.inputs.get(2) else {
        return Ok(true);
    };
    let Some(zero_points) = constant(model, zero_points)? else {
        return Ok(false);
    };
    let zero_points = zero_points.cast_to::<i32>()?;
    let mut zero_points = zero_points.try_as_plain_ram()?.as_slice::<i32>()?.iter();
    Ok(zero_points.all(|&zero| zero == 0))
}

/// Where the second operand has the axis that is summed over and that of the output channels, which
/// must be the output's last. Its other axes must have one element: it is the same for all rows.
fn operand_axes(axes: &AxesMapping, dims: &[usize]) -> Option<(usize, usize)> {
    let last = axes.rank(InOut::Out(0)).checked_sub(1)?;
    let position = |summed: bool| {
        let mut found = axes
            .iter_all_axes()
            .filter_map(|axis| match &*axis.inputs[1] {
                &[at] if summed => {
                    (axis.outputs[0].is_empty() && axis.inputs[0].len() == 1).then_some(at)
                }
                &[at] => (axis.outputs[0][..] == [last] && axis.inputs[0].is_empty()).then_some(at),
                _ => None,
            });
        found.next().filter(|_| found.next().is_none())
    };
    let (k, n) = (position(true)?, position(false)?);
    let single = |(at, &dim): (usize, &usize)| dim == 1 || at == k || at == n;
    dims.iter().enumerate().all(single).then_some((k, n))
}

/// Sums codes of dims `[k, channels]`, or `[channels, k]`, over `k`.
fn sums(codes: &Tensor, channels_first: bool, channels: usize) -> TractResult<Vec<i32>> {
    let codes = codes.try_as_plain_ram()?.as_slice::<i8>()?;
    let mut sums = vec![0; channels];
    if channels_first {
        let rows = codes.chunks(codes.len().div_ceil(channels).max(1));
        for (sum, row) in sums.iter_mut().zip(rows) {
            *sum = row.iter().map(|&code| i32::from(code)).sum();
        }
    } else {
        for row in codes.chunks_exact(channels) {
            sums.iter_mut()
                .zip(row)
                .for_each(|(sum, &code)| *sum += i32::from(code));
        }
    }
    Ok(sums)
}
