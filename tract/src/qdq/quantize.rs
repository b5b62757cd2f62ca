use pulp::Arch;
use tract_core::internal::*;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::attributes::{Attributes, arity};
use super::code_type::CodeType;
use super::layout::{Layout, Parameters, check, zero_points};

/// Reads a QuantizeLinear node.
pub fn parse(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let attributes = Attributes::read(node)?;
    let codes = attributes.output_dtype.map(supported).transpose()?;
    Ok((
        expand(QuantizeLinear {
            attributes,
            codes,
            arity: arity(node),
        }),
        vec![],
    ))
}

fn supported(data_type: i32) -> TractResult<CodeType> {
    CodeType::from_onnx(data_type).with_context(|| {
        format!("output_dtype {data_type} is no integer type that QuantizeLinear has here")
    })
}

/// The node before types are known.
#[derive(Clone, Debug)]
struct QuantizeLinear {
    attributes: Attributes,
    /// From `output_dtype`; else the zero point decides, else it is `UINT8`.
    codes: Option<CodeType>,
    arity: usize,
}

impl Expansion for QuantizeLinear {
    fn name(&self) -> StaticName {
        "QuantizeLinear".into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        check_input_arity(inputs, self.arity)?;
        check_output_arity(outputs, 1)?;
        solver.equals(&inputs[0].shape, &outputs[0].shape)?;
        match (self.codes, inputs.get(2)) {
            (Some(codes), _) => solver.equals(&outputs[0].datum_type, codes.container()),
            (None, Some(zero)) => solver.equals(&outputs[0].datum_type, &zero.datum_type),
            (None, None) => solver.equals(&outputs[0].datum_type, DatumType::U8),
        }
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let zero = inputs
            .get(2)
            .map(|&o| model.outlet_fact(o))
            .transpose()?
            .map(|f| f.datum_type);
        let codes = match (self.codes, zero) {
            (Some(codes), _) => codes,
            (None, None) => CodeType::U8,
            (None, Some(dt)) => CodeType::of(dt).with_context(|| {
                format!("{prefix}: a zero point of type {dt:?} is not supported")
            })?,
        };
        ensure!(
            zero.is_none_or(|dt| dt == codes.container()),
            "{prefix}: the zero point is {zero:?}, but output_dtype says {codes:?}"
        );
        model.wire_node(
            prefix,
            Quantize {
                attributes: self.attributes.clone(),
                codes,
                range: codes.range(),
            },
            inputs,
        )
    }
}

/// `saturate(round_half_even(x / scale) + zero_point)`.
///
/// Opaque to tract's optimiser on purpose: it takes for elementwise what is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quantize {
    attributes: Attributes,
    codes: CodeType,
    /// Within that of the codes.
    range: (i32, i32),
}

impl Quantize {
    /// With one scale and zero point, and codes from 0 to `top`.
    pub fn per_tensor(codes: CodeType, top: i32) -> Self {
        Self {
            attributes: Attributes::default(),
            codes,
            range: (0, top),
        }
    }

    /// The codes' type, and the least and the most of them.
    pub fn codes(&self) -> (CodeType, (i32, i32)) {
        (self.codes, self.range)
    }
}

impl Op for Quantize {
    fn name(&self) -> StaticName {
        "OnnxQuantizeLinear".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Quantize {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (x, scale) = (inputs[0].cast_to::<f32>()?, inputs[1].cast_to::<f32>()?);
        let layout = Layout::of(x.shape(), scale.shape(), &self.attributes)?;
        let quantiser = Quantiser {
            layout,
            dims: x.shape(),
            zero_points: zero_points(inputs.get(2), scale.len())?,
            scales: scale.try_as_plain_ram()?.as_slice()?,
            range: self.range,
        };
        let mut codes = Tensor::zero_dt(self.codes.container(), x.shape())?;
        let x = x.try_as_plain_ram()?.as_slice::<f32>()?;
        let mut plain = codes.try_as_plain_ram_mut()?;
        match self.codes.container() {
            DatumType::U8 => quantiser.write::<u8>(x, plain.as_slice_mut()?),
            DatumType::I8 => quantiser.write::<i8>(x, plain.as_slice_mut()?),
            DatumType::U16 => quantiser.write::<u16>(x, plain.as_slice_mut()?),
            _ => quantiser.write::<i16>(x, plain.as_slice_mut()?),
        }
        Ok(tvec!(codes.into_tvalue()))
    }
}

impl TypedOp for Quantize {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        check(inputs, &self.attributes)?;
        Ok(tvec!(self.codes.container().fact(inputs[0].shape.clone())))
    }

    as_op!();
}

struct Quantiser<'a> {
    layout: Layout,
    dims: &'a [usize],
    scales: &'a [f32],
    zero_points: Vec<i32>,
    range: (i32, i32),
}

impl Quantiser<'_> {
    fn write<T: Code>(&self, x: &[f32], codes: &mut [T]) {
        // The machine's widest vectors, whatever this is compiled for: tract's kernels leave the
        // upper halves of the AVX registers in use, and baseline (SSE) loops after them are 6 × slower.
        let arch = Arch::new();
        self.layout.visit(self.dims, |run, parameters| {
            let (x, codes) = (&x[run.clone()], &mut codes[run]);
            match parameters {
                Parameters::One(i) => {
                    let (scale, zero) = (self.scales[i], self.zero_points[i]);
                    arch.dispatch(|| self.by_one(x, scale, zero, codes));
                }
                Parameters::Each(first) => {
                    let (scales, zeros) = (&self.scales[first..], &self.zero_points[first..]);
                    arch.dispatch(|| self.by_each(x, scales, zeros, codes));
                }
            }
        });
    }

    #[inline(always)]
    fn by_one<T: Code>(&self, x: &[f32], scale: f32, zero: i32, codes: &mut [T]) {
        let (low, high) = self.bounds(zero);
        for (code, x) in codes.iter_mut().zip(x) {
            *code = T::truncate(round_within(x / scale, low, high).wrapping_add(zero));
        }
    }

    #[inline(always)]
    fn by_each<T: Code>(&self, x: &[f32], scales: &[f32], zeros: &[i32], codes: &mut [T]) {
        for (((code, x), scale), &zero) in codes.iter_mut().zip(x).zip(scales).zip(zeros) {
            let (low, high) = self.bounds(zero);
            *code = T::truncate(round_within(x / scale, low, high).wrapping_add(zero));
        }
    }

    /// The range before the zero point is added.
    #[inline(always)]
    fn bounds(&self, zero: i32) -> (f32, f32) {
        ((self.range.0 - zero) as f32, (self.range.1 - zero) as f32)
    }
}

/// Adding this to a float of magnitude below 2²² leaves its nearest integer, ties to even, in the low
/// bits. Unlike `round_ties_even` that vectorises with every extension.
pub const ROUNDER: f32 = 12_582_912.0; // 1.5 · 2²³

/// Rounds half to even and saturates. Not a number gives `low`, as in ONNX Runtime on x86-64.
///
/// `low` and `high` are integers below 2¹⁷, so saturating first changes no rounding and keeps the sum in
/// the range of [`ROUNDER`].
#[inline(always)]
pub fn round_within(quotient: f32, low: f32, high: f32) -> i32 {
    // Not f32::max: this form is one instruction and turns NaN into `low`.
    let at_least = if quotient > low { quotient } else { low };
    let within = if at_least < high { at_least } else { high };
    // Wrapping, since a check for overflow (there is none) keeps the loop from vectorising.
    ((within + ROUNDER).to_bits() as i32).wrapping_sub(ROUNDER.to_bits() as i32)
}

/// An integer that holds codes; the value given is in its range already.
trait Code: Copy {
    fn truncate(value: i32) -> Self;
}

macro_rules! code {
    ($($type:ty),*) => {$(
        impl Code for $type {
            #[inline(always)]
            fn truncate(value: i32) -> Self {
                value as Self
            }
        }
    )*};
}

code!(u8, i8, u16, i16);
