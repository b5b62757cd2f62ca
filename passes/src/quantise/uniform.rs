//! Uniform quantiser of an activation.
//!
//! ```text
//! x → reader   →   x → QuantizeLinear(uint8) → [Min(2^b - 1)] → DequantizeLinear → reader
//!
//! q = clamp(round(x/scale) + zero_point, 0, 2^b - 1)        x̂ = (q - zero_point)·scale
//!
//! x → Min((2^b - 1 - zero_point)·scale) → QuantizeLinear(uint8) → DequantizeLinear → reader                       (Quantiser::Clipped)
//!
//! x → Div(scale) → Clip → Add(1.5·2²³) → Sub(1.5·2²³ - zero_point) → Cast(uint8) → …        (Quantiser::Arithmetic)
//! ```
//! Widths below 8 stay in uint8: ONNX Runtime runs that on its integer kernels and dequantises real 4-bit activations to float.
//! QuantizeLinear saturates below by itself, `Min` does it above. Targets with symmetric codes get int8 with zero point 0 for the
//! zero point 128 of 8 bits. Declined: scales that are not positive, zero points outside of the codes.

use vitq_onnx::{DataType, Tensor};

use crate::ir::{Graph, Op, Outlet};
use crate::target::Quantiser;
use crate::transform::TransformError;

/// Writes the quantiser behind `value` and returns `x̂`.
pub(super) fn emit(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    bits: u32,
    (scale, zero_point): (f32, u8),
    quantiser: Quantiser,
) -> Result<Outlet, TransformError> {
    if !(2..=8).contains(&bits) {
        return Err(TransformError::new(
            name,
            format!("{bits} bits: an activation can have 2 to 8"),
        ));
    }
    let top = u8::MAX >> (8 - bits);
    if zero_point > top {
        let problem = format!("the zero point {zero_point} is no code of {bits} bits (0 to {top})");
        return Err(TransformError::new(name, problem));
    }
    let step = step(graph, name, scale, zero_point)?;
    let codes = match quantiser {
        Quantiser::Arithmetic => arithmetic(graph, name, value, step.0, (zero_point, top)),
        _ if bits == 8 => quantise(graph, name, value, step),
        Quantiser::Operator => {
            let codes = quantise(graph, name, value, step);
            at_most(graph, name, codes, top)
        }
        Quantiser::Clipped => {
            let highest = (f32::from(top) - f32::from(zero_point)) * scale;
            let clipped = no_more_than(graph, name, value, highest);
            quantise(graph, name, clipped, step)
        }
    };
    Ok(dequantise(graph, name, codes, step))
}

/// The codes 0 to `top` in arithmetic of floats: adding 1.5·2²³ leaves no fraction bits and rounds ties to even.
fn arithmetic(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    scale: Outlet,
    (zero_point, top): (u8, u8),
) -> Outlet {
    /// Even, so that it does not turn ties around.
    const SHIFT: f32 = 12_582_912.0;
    let (zero, top) = (f32::from(zero_point), f32::from(top));
    let mut number = |what: &str, value: f32| {
        graph.add_initializer(&format!("{name}/{what}"), &Tensor::from_f32(&[], &[value]))
    };
    let (least, most) = (number("least", -zero), number("most", top - zero));
    let (shift, back) = (number("shift", SHIFT), number("back", SHIFT - zero));
    let mut part = |operator: &str, inputs: &[Outlet]| {
        graph.insert(operator, &format!("{name}/{operator}"), inputs)
    };
    let levels = part("Div", &[value, scale]);
    let clipped = part("Clip", &[levels, least, most]);
    let shifted = part("Add", &[clipped, shift]);
    let rounded = part("Sub", &[shifted, back]);
    let cast = Op::new("Cast", &format!("{name}/Cast")).with_int("to", DataType::Uint8 as i64);
    graph.insert_op(cast, &[rounded])
}

/// As [`emit`], 8 bits around zero: int8 codes.
pub(super) fn emit_symmetric(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    scale: f32,
) -> Result<Outlet, TransformError> {
    pair(graph, name, value, scale, &Tensor::from_i8(&[], &[0]))
}

/// QuantizeLinear and DequantizeLinear with codes of the zero point's type.
pub(super) fn pair(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    scale: f32,
    zero_point: &Tensor,
) -> Result<Outlet, TransformError> {
    let step = initialisers(graph, name, scale, zero_point)?;
    let codes = quantise(graph, name, value, step);
    Ok(dequantise(graph, name, codes, step))
}

/// The value of constant codes.
pub(super) fn constant(
    graph: &mut Graph,
    name: &str,
    codes: &Tensor,
    scale: f32,
    zero_point: &Tensor,
) -> Result<Outlet, TransformError> {
    let step = initialisers(graph, name, scale, zero_point)?;
    let codes = graph.add_initializer(&format!("{name}/codes"), codes);
    Ok(dequantise(graph, name, codes, step))
}

/// Step and zero point of the codes `0..=top` that span `[lo, hi]`, zero among them.
pub fn affine(lo: f32, hi: f32, top: f32) -> (f32, f32) {
    let (lo, hi) = (lo.min(0.0), hi.max(0.0));
    // A constant zero tensor still needs a step; any will do.
    let scale = if hi - lo > f32::MIN_POSITIVE * top {
        (hi - lo) / top
    } else {
        1.0
    };
    (scale, (-lo / scale).round_ties_even().clamp(0.0, top))
}

pub(super) fn quantise(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    (scale, zero): Step,
) -> Outlet {
    let label = format!("{name}/QuantizeLinear");
    graph.insert("QuantizeLinear", &label, &[value, scale, zero])
}

pub(super) fn dequantise(
    graph: &mut Graph,
    name: &str,
    codes: Outlet,
    (scale, zero): Step,
) -> Outlet {
    let label = format!("{name}/DequantizeLinear");
    graph.insert("DequantizeLinear", &label, &[codes, scale, zero])
}

/// Scale and zero point.
pub(super) type Step = (Outlet, Outlet);

/// Scale and zero point as initialisers.
pub(super) fn step(
    graph: &mut Graph,
    name: &str,
    scale: f32,
    zero_point: u8,
) -> Result<Step, TransformError> {
    initialisers(graph, name, scale, &Tensor::from_u8(&[], &[zero_point]))
}

fn initialisers(
    graph: &mut Graph,
    name: &str,
    scale: f32,
    zero_point: &Tensor,
) -> Result<Step, TransformError> {
    check_scale(name, scale)?;
    let scale = graph.add_initializer(&format!("{name}/scale"), &Tensor::from_f32(&[], &[scale]));
    let zero = graph.add_initializer(&format!("{name}/zero_point"), zero_point);
    Ok((scale, zero))
}

/// Refuses a scale that no quantiser can have.
pub(super) fn check_scale(name: &str, scale: f32) -> Result<(), TransformError> {
    if scale.is_normal() && scale > 0.0 {
        return Ok(());
    }
    let problem = format!("the scale is {scale}: it must be positive and finite");
    Err(TransformError::new(name, problem))
}

/// `Min(value, highest)`
pub(super) fn no_more_than(graph: &mut Graph, name: &str, value: Outlet, highest: f32) -> Outlet {
    let highest = Tensor::from_f32(&[], &[highest]);
    let highest = graph.add_initializer(&format!("{name}/highest"), &highest);
    graph.insert("Min", &format!("{name}/Min"), &[value, highest])
}

/// `Min(codes, top)`
pub(super) fn at_most(graph: &mut Graph, name: &str, codes: Outlet, top: u8) -> Outlet {
    let top = graph.add_initializer(&format!("{name}/top_code"), &Tensor::from_u8(&[], &[top]));
    graph.insert("Min", &format!("{name}/Min"), &[codes, top])
}
