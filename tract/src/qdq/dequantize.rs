use pulp::Arch;
use tract_core::internal::*;
use tract_core::ops::konst::Const;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_hir::internal::*;

use super::attributes::{Attributes, arity};
use super::layout::{Layout, Parameters, check, zero_points};
use crate::constant::constant;

/// Reads a DequantizeLinear node.
pub fn parse(
    _: &ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let attributes = Attributes::read(node)?;
    let output = match attributes.output_dtype {
        None => None,
        Some(1) => Some(DatumType::F32),
        Some(10) => Some(DatumType::F16),
        Some(other) => bail!("output_dtype {other} of DequantizeLinear is not supported in tract"),
    };
    Ok((
        expand(DequantizeLinear {
            attributes,
            output,
            arity: arity(node),
        }),
        vec![],
    ))
}

/// The node before types are known.
#[derive(Clone, Debug)]
struct DequantizeLinear {
    attributes: Attributes,
    /// From `output_dtype`; else it is the type of the scale.
    output: Option<DatumType>,
    arity: usize,
}

impl Expansion for DequantizeLinear {
    fn name(&self) -> StaticName {
        "DequantizeLinear".into()
    }

    /// Otherwise type inference would make floats of the weights, which [`fuse`](crate::fuse) looks for.
    fn runs_out_of_plan(&self) -> bool {
        false
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
        match self.output {
            Some(datum_type) => solver.equals(&outputs[0].datum_type, datum_type),
            None => solver.equals(&outputs[0].datum_type, &inputs[1].datum_type),
        }
    }

    fn wire(
        &self,
        prefix: &str,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        let scale = model.outlet_fact(inputs[1])?.datum_type;
        let output = self.output.unwrap_or(scale);
        ensure!(
            matches!(output, DatumType::F32 | DatumType::F16),
            "{prefix}: a scale of type {output:?} is not supported"
        );
        model.wire_node(
            prefix,
            Dequantize {
                attributes: self.attributes.clone(),
                output,
            },
            inputs,
        )
    }
}

/// `(x - zero_point) · scale`, opaque to tract's optimiser on purpose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dequantize {
    attributes: Attributes,
    output: DatumType,
}

impl Dequantize {
    /// What the node's attributes said.
    pub fn attributes(&self) -> &Attributes {
        &self.attributes
    }

    /// Gives `FLOAT`.
    pub fn gives_f32(&self) -> bool {
        self.output == DatumType::F32
    }
}

impl Op for Dequantize {
    fn name(&self) -> StaticName {
        "OnnxDequantizeLinear".into()
    }

    op_as_typed_op!();
}

impl EvalOp for Dequantize {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let (x, scale) = (&inputs[0], inputs[1].cast_to::<f32>()?);
        let dequantiser = Dequantiser {
            layout: Layout::of(x.shape(), scale.shape(), &self.attributes)?,
            dims: x.shape(),
            zero_points: zero_points(inputs.get(2), scale.len())?,
            scales: scale.try_as_plain_ram()?.as_slice()?,
        };
        let mut values = Tensor::zero::<f32>(x.shape())?;
        let mut plain = values.try_as_plain_ram_mut()?;
        let (plain_x, y) = (x.try_as_plain_ram()?, plain.as_slice_mut::<f32>()?);
        match x.datum_type() {
            DatumType::U8 => dequantiser.write(plain_x.as_slice::<u8>()?, y),
            DatumType::I8 => dequantiser.write(plain_x.as_slice::<i8>()?, y),
            DatumType::U16 => dequantiser.write(plain_x.as_slice::<u16>()?, y),
            DatumType::I16 => dequantiser.write(plain_x.as_slice::<i16>()?, y),
            DatumType::I32 => dequantiser.write(plain_x.as_slice::<i32>()?, y),
            other => bail!("DequantizeLinear of {other:?} is not supported in tract"),
        }
        Ok(tvec!(
            values.cast_to_dt(self.output)?.into_owned().into_tvalue()
        ))
    }
}

impl TypedOp for Dequantize {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        check(inputs, &self.attributes)?;
        Ok(tvec!(self.output.fact(inputs[0].shape.clone())))
    }

    /// A dequantised weight becomes a constant. tract does that only for tensors up to 4 MB, and
    /// would dequantise a larger one again in every run.
    fn declutter(
        &self,
        model: &TypedModel,
        node: &TypedNode,
    ) -> TractResult<Option<TypedModelPatch>> {
        let Some(value) = constant(model, node.id.into())? else {
            return Ok(None);
        };
        let mut patch = TypedModelPatch::default();
        let wire = patch.wire_node(&node.name, Const::new(value)?, &[])?[0];
        patch.shunt_outside(model, node.id.into(), wire)?;
        Ok(Some(patch))
    }

    as_op!();
}

struct Dequantiser<'a> {
    layout: Layout,
    dims: &'a [usize],
    scales: &'a [f32],
    zero_points: Vec<i32>,
}

impl Dequantiser<'_> {
    fn write<T: Copy + Into<i32>>(&self, codes: &[T], values: &mut [f32]) {
        // The machine's widest vectors, whatever this is compiled for: tract's kernels leave the
        // upper halves of the AVX registers in use, and baseline (SSE) loops after them are 6 × slower.
        let arch = Arch::new();
        self.layout.visit(self.dims, |run, parameters| {
            let (codes, values) = (&codes[run.clone()], &mut values[run]);
            match parameters {
                Parameters::One(i) => {
                    let (scale, zero) = (self.scales[i], self.zero_points[i]);
                    arch.dispatch(|| by_one(codes, scale, zero, values));
                }
                Parameters::Each(first) => {
                    let (scales, zeros) = (&self.scales[first..], &self.zero_points[first..]);
                    arch.dispatch(|| by_each(codes, scales, zeros, values));
                }
            }
        });
    }
}

#[inline(always)]
fn by_one<T: Copy + Into<i32>>(codes: &[T], scale: f32, zero: i32, values: &mut [f32]) {
    for (value, &code) in values.iter_mut().zip(codes) {
        *value = code.into().wrapping_sub(zero) as f32 * scale;
    }
}

#[inline(always)]
fn by_each<T: Copy + Into<i32>>(codes: &[T], scales: &[f32], zeros: &[i32], values: &mut [f32]) {
    for (((value, &code), scale), &zero) in values.iter_mut().zip(codes).zip(scales).zip(zeros) {
        *value = code.into().wrapping_sub(zero) as f32 * scale;
    }
}
