//! Quantised Linear and patch embedding.
//!
//! ```text
//! Add(MatMul(x, W), b)
//!   →  Add(MatMul(Q/DQ(x), DQ(int8 W [in, out], axis 1)), DQ(int32 b, scale s_x·s_w[c], axis 0))
//! Conv(x, W, b)
//!   →  Conv(Q/DQ(x), DQ(int8 W [out, in, kh, kw], axis 0), DQ(int32 b, scale s_x·s_w[c], axis 0))
//! ```
//! with `x → Mul(pre_scale)` first where the plan says so, and the low-rank branch behind. No quantiser on the result.
//! The bias is int32: with a float one and static shapes ONNX Runtime builds a float Gemm of QDQ that dequantises its weights at
//! every run. Targets that take it get the Linear's product as an integer operator ([`super::integer`]), with the float bias that
//! the int32 one stands for. One file for both operators: they differ in the weight's layout alone.
//! A float activation leaves its Linear a product of floats, and the bias float too:
//! ```text
//! Add(MatMul(x, W), b)   →   Add(MatMul(x, DQ(int8 W [in, out], axis 1)), b)
//! ```
//! Declined: log√2 codes on a Linear's input (no scale that an int32 bias could share), a low-rank branch behind a Conv, a scale for
//! each block of a weight's inputs beside a quantised input (an integer product takes one a channel) or in a Conv (its inputs are three axes).

use crate::plan::{Activation, LinearPlan};
use crate::structure::{Site, SiteKind};
use crate::target::{BiasForm, LinearForm, Scales};
use crate::transform::{TransformError, check_lengths, set_bias, weight_dims};

use super::operand::{Operands, PreScale};
use super::report::{Form, SiteReport};
use super::{bias, integer, low_rank, uniform, weight};

pub(super) fn emit(
    operands: &mut Operands<'_>,
    site: &Site,
    plan: &LinearPlan,
) -> Result<SiteReport, TransformError> {
    let (parameters, dims) = weight_dims(operands.graph, site)?;
    let (inputs, outputs) = (parameters.inputs, parameters.outputs);
    weight::check(&site.name, &plan.weight, inputs, outputs)?;
    check_lengths(&site.name, &[("bias", plan.bias.len())], outputs)?;
    check_blocks(site, plan)?;
    let step = input_scale(site, &plan.activation)?;
    let fitted = step
        .map(|step| bias::fit(&site.name, &plan.weight, step, &plan.bias))
        .transpose()?;
    let pre_scale = plan
        .pre_scale
        .as_ref()
        .map(|values| channels_of(site, &dims, values));
    let float = plan.low_rank.as_ref().map(|branch| {
        let float = operands.quantised(site, 0, "input", pre_scale.clone(), &Activation::Float)?;
        Ok((branch, float))
    });
    let float = float.transpose()?;
    let input = operands.quantised(site, 0, "input", pre_scale, &plan.activation)?;
    let target = operands.target;
    let scales = match target.linear {
        LinearForm::Integer(scales) if site.kind == SiteKind::Linear && fitted.is_some() => {
            Some(scales)
        }
        _ => None,
    };
    let one = (scales == Some(Scales::Computed)).then(|| operands.one());
    let graph = &mut *operands.graph;
    let weight = fitted.as_ref().map_or(&plan.weight, |it| &it.weight);
    let axis = usize::from(site.kind != SiteKind::PatchEmbed);
    let kernel = weight::emit(graph, &site.name, weight, (&dims, axis), &target)?;
    let bias = match (&fitted, target.bias) {
        (Some(fitted), BiasForm::Int32) if scales.is_none() => {
            bias::emit(graph, &site.name, fitted)
        }
        _ => bias::emit_float(graph, &site.name, &plan.bias),
    };
    let result = match &fitted {
        Some(fitted) if scales.is_some() => {
            let scales = integer::scales(graph, site, fitted, one);
            integer::emit(graph, site, (input, kernel), (fitted, scales), bias)?
        }
        _ => {
            graph.set_input(site.node, 0, input);
            graph.set_input(site.node, 1, kernel);
            set_bias(graph, site, bias)?
        }
    };
    if let Some((branch, float)) = float {
        low_rank::emit(
            graph,
            site,
            (float, result),
            (branch, &target),
            (inputs, outputs),
        )?;
    }
    Ok(SiteReport {
        site: site.name.clone(),
        form: Form::Linear,
        raised_scales: fitted.map_or(0, |it| it.raised),
    })
}

/// Refuses a weight with a scale a block where it cannot be written.
fn check_blocks(site: &Site, plan: &LinearPlan) -> Result<(), TransformError> {
    let problem = match (plan.weight.block, site.kind) {
        (None, _) => return Ok(()),
        (Some(_), SiteKind::Linear) if plan.activation == Activation::Float => return Ok(()),
        (Some(_), SiteKind::Linear) => {
            "a weight with a scale a block stands beside float activations alone: give the input no quantiser, or make the plan again"
        }
        (Some(_), _) => {
            "the kernel of a Conv takes a scale a channel, and the plan has one a block: make the plan again"
        }
    };
    Err(TransformError::new(&site.name, problem))
}

/// Step of the quantised input, which the bias shares; `None` of a float one.
fn input_scale(site: &Site, activation: &Activation) -> Result<Option<f32>, TransformError> {
    let step = match activation {
        Activation::Float => return Ok(None),
        Activation::Uniform { scale, .. } | Activation::Codebook { scale, .. } => *scale,
        Activation::Log { .. } => {
            let problem = "logarithmic codes are for the attention probabilities alone: give the Linear a uniform or codebook quantiser";
            return Err(TransformError::new(&site.name, problem));
        }
    };
    uniform::check_scale(&format!("{}/input", site.name), step)?;
    Ok(Some(step))
}

/// The multiplier in the shape of the input's channels: the last axis of a Linear's input, axis 1 of an image.
fn channels_of(site: &Site, weight_dims: &[usize], values: &[f32]) -> PreScale {
    let dims = match (site.kind, weight_dims) {
        (SiteKind::PatchEmbed, [_, channels, ..]) => vec![*channels, 1, 1],
        _ => weight_dims[..1].to_vec(),
    };
    PreScale {
        dims,
        values: values.to_vec(),
    }
}
