use tract_core::internal::*;
use tract_core::tract_linalg::multithread::par_chunks_mut;

use super::read::Linear;
use super::vnni::{Channel, Panels};

/// Codes → f32, a whole Linear along the last axis. Codes of int8 are taken 128 higher, as uint8.
#[derive(Clone, Debug)]
pub struct TiledLinear(Arc<Panels>);

impl PartialEq for TiledLinear {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for TiledLinear {}

impl TiledLinear {
    /// The whole of a Linear that sums the last axis.
    pub fn new(linear: &Linear) -> TractResult<Self> {
        let zero_point = linear.activation.zero_point_signed() + 128;
        let sums = linear.weight.sums()?;
        let channels = linear.scales.iter().zip(&linear.bias).zip(sums);
        let channels: Vec<_> = channels
            .map(|((&scale, &bias), sum)| Channel {
                offset: zero_point * sum,
                scale,
                bias,
            })
            .collect();
        let panels = Panels::new(linear.weight.inputs(), &channels, linear.weight.code()?);
        Ok(Self(Arc::new(panels)))
    }

    /// On the threads that tract was given, if any.
    fn multiply(&self, codes: &[u8], values: &mut [f32]) -> TractResult<()> {
        let (inputs, channels) = (self.0.inputs(), self.0.channels());
        let elements = values.len();
        par_chunks_mut(values, channels, elements, |first, values| {
            let codes = &codes[first * inputs..][..values.len() / channels * inputs];
            self.0.multiply(codes, values);
            Ok(())
        })
    }

    /// The dims, or symbols for them, of what is made of inputs of `dims`.
    fn output<D: Clone + From<usize>>(&self, dims: &[D]) -> TVec<D> {
        let mut output: TVec<D> = dims.into();
        if let Some(last) = output.last_mut() {
            *last = self.0.channels().into();
        }
        output
    }
}

impl Op for TiledLinear {
    fn name(&self) -> StaticName {
        "TiledLinear".into()
    }

    op_as_typed_op!();
}

impl EvalOp for TiledLinear {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let codes = args_1!(inputs);
        ensure!(codes.shape().last() == Some(&self.0.inputs()));
        let mut values = Tensor::zero::<f32>(&self.output::<usize>(codes.shape()))?;
        let mut plain = values.try_as_plain_ram_mut()?;
        let (signed, codes) = (
            codes.datum_type() == DatumType::I8,
            codes.try_as_plain_ram()?,
        );
        if signed {
            let codes = codes.as_slice::<i8>()?.iter();
            let raised: Vec<u8> = codes.map(|&code| code.cast_unsigned() ^ 0x80).collect();
            self.multiply(&raised, plain.as_slice_mut()?)?;
        } else {
            self.multiply(codes.as_slice()?, plain.as_slice_mut()?)?;
        }
        Ok(tvec!(values.into_tvalue()))
    }
}

impl TypedOp for TiledLinear {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        ensure!(inputs.len() == 1 && matches!(inputs[0].datum_type, DatumType::U8 | DatumType::I8));
        let dims = self.output::<TDim>(&inputs[0].shape.to_tvec());
        Ok(tvec!(f32::fact(dims)))
    }

    as_op!();
}
