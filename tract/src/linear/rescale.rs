use pulp::Arch;
use tract_core::internal::*;

/// `(x - offset) · scale + bias`, i32 → f32, each a constant for every index along the last axis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rescale {
    scales: Arc<Tensor>,
    offsets: Arc<Tensor>,
    bias: Arc<Tensor>,
}

impl Rescale {
    pub fn new(scales: Vec<f32>, offsets: Vec<i32>, bias: Vec<f32>) -> TractResult<Self> {
        ensure!(!scales.is_empty() && scales.len() == offsets.len() && scales.len() == bias.len());
        Ok(Self {
            scales: Tensor::from_shape(&[scales.len()], &scales)?.into_arc_tensor(),
            offsets: Tensor::from_shape(&[offsets.len()], &offsets)?.into_arc_tensor(),
            bias: Tensor::from_shape(&[bias.len()], &bias)?.into_arc_tensor(),
        })
    }
}

impl Op for Rescale {
    fn name(&self) -> StaticName {
        "Rescale".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Rescale {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let x = args_1!(inputs);
        let channels = self.scales.len();
        ensure!(x.shape().last() == Some(&channels));
        let mut values = Tensor::zero::<f32>(x.shape())?;
        let mut plain = values.try_as_plain_ram_mut()?;
        let rows = plain.as_slice_mut::<f32>()?.chunks_exact_mut(channels);
        let sums = x
            .try_as_plain_ram()?
            .as_slice::<i32>()?
            .chunks_exact(channels);
        let scales = self.scales.try_as_plain_ram()?.as_slice::<f32>()?;
        let offsets = self.offsets.try_as_plain_ram()?.as_slice::<i32>()?;
        let bias = self.bias.try_as_plain_ram()?.as_slice::<f32>()?;
        Arch::new().dispatch(|| {
            for (row, sums) in rows.zip(sums) {
                rescale(sums, offsets, scales, bias, row);
            }
        });
        Ok(tvec!(values.into_tvalue()))
    }
}

#[inline(always)]
fn rescale(sums: &[i32], offsets: &[i32], scales: &[f32], bias: &[f32], values: &mut [f32]) {
    let parameters = offsets.iter().zip(scales).zip(bias);
    for ((value, sum), ((offset, scale), bias)) in values.iter_mut().zip(sums).zip(parameters) {
        *value = sum.wrapping_sub(*offset) as f32 * scale + bias;
    }
}

impl TypedOp for Rescale {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1 && inputs[0].datum_type == DatumType::I32);
        Ok(tvec!(f32::fact(inputs[0].shape.clone())))
    }

    as_op!();
}
