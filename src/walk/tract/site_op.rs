//! A site as one opaque operator: tract knows its shape, the walk computes its value.

use tract_onnx::pb::NodeProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_hir::internal::{
    Expansion, InferenceOp, InferenceResult, Solver, TensorProxy, expand,
};

use crate::walk::cut::OP_TYPE;

/// How the output's shape follows from the inputs'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Shape {
    /// `[…, in] → […, out]`
    Linear { out: usize },
    /// `[n, c, h, w] → [n, out, h/p, w/p]`
    Patches { out: usize, patch: (usize, usize) },
    /// `[…, m, k] · […, k, n] → […, m, n]`
    Product,
}

/// The operator.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SiteOp {
    /// Index into the structure's sites.
    pub site: usize,
    /// Shape rule.
    pub shape: Shape,
}

impl SiteOp {
    fn output_shape(&self, inputs: &[&[TDim]]) -> TractResult<TVec<TDim>> {
        let mut shape: TVec<TDim> = inputs[0].into();
        let rank = shape.len();
        match self.shape {
            Shape::Linear { out } => {
                ensure!(rank > 0, "a Linear needs an axis of channels");
                shape[rank - 1] = out.to_dim();
            }
            Shape::Patches { out, patch } => {
                ensure!(rank == 4, "a patch embedding needs [n, c, h, w]");
                shape[1] = out.to_dim();
                shape[2] = shape[2].clone() / patch.0;
                shape[3] = shape[3].clone() / patch.1;
            }
            Shape::Product => {
                let right = inputs[1];
                ensure!(
                    rank >= 2 && right.len() == rank,
                    "operands of an attention product must have one rank"
                );
                shape[rank - 1] = right[rank - 1].clone();
            }
        }
        Ok(shape)
    }
}

impl Op for SiteOp {
    fn name(&self) -> StaticName {
        OP_TYPE.into()
    }
    op_as_typed_op!();
}

impl EvalOp for SiteOp {
    not_out_of_plan!();
}

impl TypedOp for SiteOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let shapes: Vec<TVec<TDim>> = inputs.iter().map(|f| f.shape.to_tvec()).collect();
        let shapes: Vec<&[TDim]> = shapes.iter().map(|s| &s[..]).collect();
        Ok(tvec!(f32::fact(self.output_shape(&shapes)?)))
    }
    as_op!();
}

impl Expansion for SiteOp {
    fn name(&self) -> StaticName {
        OP_TYPE.into()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        s.equals(&outputs[0].datum_type, f32::datum_type())?;
        match inputs {
            [left, right] => s.given_2(&left.shape, &right.shape, move |s, left, right| {
                s.equals(&outputs[0].shape, self.output_shape(&[&left, &right])?)
            }),
            _ => s.given(&inputs[0].shape, move |s, shape| {
                s.equals(&outputs[0].shape, self.output_shape(&[&shape])?)
            }),
        }
    }

    fn wire(
        &self,
        prefix: &str,
        target: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        target.wire_node(prefix, self.clone(), inputs)
    }
}

/// Reads the operator back from its node.
pub fn parse(
    _: &tract_onnx::model::ParsingContext,
    node: &NodeProto,
) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let ints = |name: &str| -> Vec<usize> {
        node.attribute
            .iter()
            .find(|a| a.name == name)
            .map_or_else(Vec::new, |a| a.ints.iter().map(|&i| i as usize).collect())
    };
    let shape = match ints("shape")[..] {
        [out] => Shape::Linear { out },
        [out, h, w] => Shape::Patches { out, patch: (h, w) },
        _ => Shape::Product,
    };
    let site = *ints("site").first().context("a site's index")?;
    Ok((expand(SiteOp { site, shape }), vec![]))
}
