//! The bias on the accumulator's grid: int32 codes with the scale `s_x·s_w[c]`.
//!
//! ```text
//! b[c]  →  DequantizeLinear(round(b[c] / (s_x·s_w[c])), scale s_x·s_w[c], axis 0)
//! ```
//! Where a weight row is so small (a dead channel) that its bias would overflow int32 on that grid, the row's scale is raised
//! as little as needed and its codes are rounded again. What that costs is below one part in 2^16 of the bias: next to
//! it, such a row adds nearly nothing.

use vitq_onnx::Tensor;

use crate::ir::{Graph, Op, Outlet};
use crate::plan::Weight;
use crate::transform::TransformError;

/// A weight whose scales leave room for the bias, and the bias.
pub(super) struct Fitted {
    pub weight: Weight,
    /// `[out]`
    pub codes: Vec<i32>,
    /// `[out]`, `s_x·s_w[c]`
    pub scale: Vec<f32>,
    /// Channels whose scale was raised.
    pub raised: usize,
}

/// Puts `bias` `[out]` on the grid of `input_scale·weight.scale`.
pub(super) fn fit(
    site: &str,
    weight: &Weight,
    input_scale: f32,
    bias: &[f32],
) -> Result<Fitted, TransformError> {
    if let Some(c) = bias.iter().position(|b| !b.is_finite()) {
        return Err(TransformError::new(
            site,
            format!("the bias of output channel {c} is {}", bias[c]),
        ));
    }
    let inputs = weight.codes.len() / weight.out.max(1);
    let limit = largest_code(inputs);
    let mut fitted = Fitted {
        weight: weight.clone(),
        codes: Vec::new(),
        scale: Vec::new(),
        raised: 0,
    };
    for (channel, &b) in bias.iter().enumerate() {
        let least = least_scale(b, input_scale, limit);
        if f64::from(weight.scale[channel]) < least {
            raise(&mut fitted.weight, channel, inputs, least);
            fitted.raised += 1;
        }
        let scale = input_scale * fitted.weight.scale[channel];
        if !(scale.is_normal() && scale > 0.0) {
            let problem = format!(
                "the scale of output channel {channel}'s bias would be {scale}: keep the site float"
            );
            return Err(TransformError::new(site, problem));
        }
        fitted.scale.push(scale);
        fitted.codes.push(code(b, scale));
    }
    Ok(fitted)
}

/// Writes the bias and returns its float value.
pub(super) fn emit(graph: &mut Graph, site: &str, fitted: &Fitted) -> Outlet {
    emit_codes(graph, &format!("{site}/bias"), &fitted.codes, &fitted.scale)
}

/// Writes codes with one scale, or a scale each, and returns their float value.
pub(super) fn emit_codes(graph: &mut Graph, name: &str, codes: &[i32], scale: &[f32]) -> Outlet {
    let one = scale.len() != codes.len();
    let dims: &[usize] = if one { &[] } else { &[scale.len()] };
    let codes = Tensor::from_i32(&[codes.len()], codes);
    let codes = graph.add_initializer(&format!("{name}/codes"), &codes);
    let scale = graph.add_initializer(&format!("{name}/scale"), &Tensor::from_f32(dims, scale));
    let mut op = Op::new("DequantizeLinear", &format!("{name}/DequantizeLinear"));
    if !one {
        op = op.with_int("axis", 0);
    }
    graph.insert_op(op, &[codes, scale])
}

/// Writes the bias as it is.
pub(super) fn emit_float(graph: &mut Graph, site: &str, bias: &[f32]) -> Outlet {
    let tensor = Tensor::from_f32(&[bias.len()], bias);
    graph.add_initializer(&format!("{site}/bias"), &tensor)
}

/// Runtimes add the bias to the int32 accumulator of `inputs` products: leave room for the largest of those sums.
fn largest_code(inputs: usize) -> f64 {
    let products = inputs.min(1 << 14) as f64 * 255.0 * 255.0;
    f64::from(i32::MAX) - products
}

/// Least weight scale with which the bias stays within `limit` and `s_x·s_w` is a normal float32.
fn least_scale(bias: f32, input_scale: f32, limit: f64) -> f64 {
    let step = (f64::from(bias).abs() / limit).max(f64::from(f32::MIN_POSITIVE));
    step / f64::from(input_scale)
}

fn code(bias: f32, scale: f32) -> i32 {
    (f64::from(bias) / f64::from(scale)).round_ties_even() as i32
}

/// Gives the row a scale of at least `least` and rounds its codes to the nearest of the coarser grid.
fn raise(weight: &mut Weight, channel: usize, inputs: usize, least: f64) {
    // Above `least` by more than the two float32 roundings that follow.
    let scale = (least * (1.0 + 1e-6)) as f32;
    let shrink = f64::from(weight.scale[channel]) / f64::from(scale);
    let zero = weight
        .zero_point
        .get(channel)
        .copied()
        .map_or(0.0, f64::from);
    let table = weight.table.as_deref();
    for code in &mut weight.codes[channel * inputs..][..inputs] {
        *code = nearest((f64::from(*code) - zero) * shrink + zero, table);
    }
    weight.scale[channel] = scale;
}

/// Nearest code to `value`, out of `levels` where there is a codebook.
fn nearest(value: f64, levels: Option<&[i8]>) -> i8 {
    let distance = |level: i8| (f64::from(level) - value).abs();
    let levels = levels.map(|l| l.iter().copied());
    match levels.and_then(|l| l.min_by(|&a, &b| distance(a).total_cmp(&distance(b)))) {
        Some(level) => level,
        None => value.round_ties_even().clamp(-128.0, 127.0) as i8,
    }
}
