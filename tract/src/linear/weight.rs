use tract_core::internal::*;
use tract_core::ops::change_axes::AxisOp;

use crate::constant::{constant, is_zero};
use crate::qdq::{Dequantize, Layout};

/// More products of 8-bit codes than this could overflow a sum in i32.
const LONGEST_SUM: usize = 1 << 16;

/// A constant int8 weight without zero point, one scale for each output channel.
pub struct Weight {
    /// In the form in which the product reads it.
    pub codes: Arc<Tensor>,
    /// The axis that is summed over.
    pub k: usize,
    /// The axis of the output channels.
    pub n: usize,
    /// One for each output channel.
    pub scales: Vec<f32>,
}

impl Weight {
    /// What a DequantizeLinear gives to a product with `axes` as its second operand.
    pub fn dequantized(
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
        let weight = Self::new(codes.into_arc_tensor(), &stored.scales, axes);
        Ok(weight.filter(|weight| axis.is_none_or(|axis| axis == weight.n)))
    }

    /// Codes that a product with `axes` reads as its second operand; the scales are 1.
    pub fn stored(
        model: &TypedModel,
        outlet: OutletId,
        axes: &AxesMapping,
    ) -> TractResult<Option<Self>> {
        let codes = constant(model, outlet)?;
        let codes = codes.filter(|codes| codes.datum_type() == DatumType::I8);
        Ok(codes.and_then(|codes| Self::new(codes, &[1.0], axes)))
    }

    fn new(codes: Arc<Tensor>, scales: &[f32], axes: &AxesMapping) -> Option<Self> {
        let (k, n) = operand_axes(axes, codes.shape())?;
        let channels = codes.shape()[n];
        let scales = match scales {
            &[one] => vec![one; channels],
            all => all.to_vec(),
        };
        let sound = scales.len() == channels && channels > 0 && codes.shape()[k] <= LONGEST_SUM;
        sound.then_some(Self {
            codes,
            k,
            n,
            scales,
        })
    }

    /// Products that are summed.
    pub fn inputs(&self) -> usize {
        self.codes.shape()[self.k]
    }

    /// The code of input `k` and channel `n`.
    pub fn code(&self) -> TractResult<impl Fn(usize, usize) -> i8> {
        let codes = self.codes.try_as_plain_ram()?.as_slice::<i8>()?;
        // All other axes have one element.
        let (by_k, by_n) = if self.k < self.n {
            (self.scales.len(), 1)
        } else {
            (1, self.inputs())
        };
        Ok(move |k, n| codes[k * by_k + n * by_n])
    }

    /// The sums of the codes of each output channel.
    pub fn sums(&self) -> TractResult<Vec<i32>> {
        let code = self.code()?;
        let sum = |n| (0..self.inputs()).map(|k| i32::from(code(k, n))).sum();
        Ok((0..self.scales.len()).map(sum).collect())
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
    node.inputs
        .get(2)
        .map_or(Ok(true), |&zero| is_zero(model, zero))
}

/// Where the second operand has the axis that is summed over and that of the output channels, which
/// must be the output's last. Its other axes must have one element: it is the same for all rows.
fn operand_axes(axes: &AxesMapping, dims: &[usize]) -> Option<(usize, usize)> {
    let last = axes.rank(InOut::Out(0)).checked_sub(1)?;
    let only = |suits: &dyn Fn(&Axis) -> bool| {
        let suiting = axes.iter_all_axes().filter(|axis| suits(axis));
        let mut places = suiting.filter_map(|axis| match *axis.inputs[1] {
            [place] => Some(place),
            _ => None,
        });
        places.next().filter(|_| places.next().is_none())
    };
    let k = only(&|axis| axis.inputs[0].len() == 1 && axis.outputs[0].is_empty())?;
    let n = only(&|axis| axis.inputs[0].is_empty() && axis.outputs[0][..] == [last])?;
    let single = |(at, &dim): (usize, &usize)| dim == 1 || at == k || at == n;
    dims.iter().enumerate().all(single).then_some((k, n))
}
