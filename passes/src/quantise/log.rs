//! Logarithmic quantiser of a Softmax output with standard operators: the codes of `x` are uniform codes of `ln x`, and
//! LogSoftmax gives `ln x` exactly. A step of ½ octave is log√2 (RepQ-ViT, arXiv 2212.08254, §3.4), a free one AdaLog's
//! base (arXiv 2407.12951).
//!
//! ```text
//! Softmax → reader
//!   →  LogSoftmax → QuantizeLinear(uint8, step·ln2, n + shift) → [Min(n)] → DequantizeLinear → Exp → ThresholdedRelu → reader
//!
//! k = round(-log2(x)/step), at least shift      x̂ = 2^(-k·step), and 0 where k ≥ n + shift      (n + shift = min(2^b + shift, 255), δ = 2^(-shift·step))
//! ```
//! The code is `n + shift - k`; 0 means "zero", which Exp cannot give: ThresholdedRelu sends everything below the least
//! level there. `Min` is only needed where `shift > 0`: no `ln x` lies above 0. Where values are clipped before they are quantised it
//! stands before QuantizeLinear, and `Greater → Where` in place of ThresholdedRelu.
//! Other readers of the Softmax keep it. (A quantiser right behind Softmax would be fused into a QLinearSoftmax by
//! ONNX Runtime where its input is quantised too, which is wrong for nearly uniform attention; LogSoftmax is not.)
//! At 8 bits the last codes make way for the one that means zero. Declined: anything but a Softmax.

use vitq_onnx::Tensor;

use crate::ir::{Graph, Op, Outlet};
use crate::target::Quantiser;
use crate::transform::TransformError;

use super::uniform;

/// Writes the chain beside the Softmax that gives `value` and returns `x̂`.
pub(super) fn emit(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    bits: u32,
    (step, shift): (f32, u8),
    quantiser: Quantiser,
) -> Result<Outlet, TransformError> {
    let zero_point = zero_code(bits, shift)
        .ok_or_else(|| TransformError::new(name, format!("logarithmic codes of {bits} bits shifted by {shift} do not fit into uint8: use 2 to 8 bits and a smaller shift")))?;
    let scale = step * std::f32::consts::LN_2;
    let codes_step = uniform::step(graph, name, scale, zero_point)?;
    let clipped = quantiser == Quantiser::Clipped;
    let mut logarithm = log_softmax(graph, name, value)?;
    if shift > 0 && clipped {
        logarithm = uniform::no_more_than(graph, name, logarithm, -f32::from(shift) * scale);
    }
    let mut codes = uniform::quantise(graph, name, logarithm, codes_step);
    if shift > 0 && !clipped {
        codes = uniform::at_most(graph, name, codes, zero_point - shift);
    }
    let logarithm = uniform::dequantise(graph, name, codes, codes_step);
    let levels = graph.insert("Exp", &format!("{name}/Exp"), &[logarithm]);
    // Half a code above the code that means zero.
    let threshold = (-(f32::from(zero_point) - 0.5) * step).exp2();
    Ok(if clipped {
        chosen(graph, name, levels, threshold)
    } else {
        let cut = Op::new("ThresholdedRelu", &format!("{name}/ThresholdedRelu"))
            .with_float("alpha", threshold);
        graph.insert_op(cut, &[levels])
    })
}

/// `ThresholdedRelu` in operators that more runtimes have.
fn chosen(graph: &mut Graph, name: &str, levels: Outlet, threshold: f32) -> Outlet {
    let mut number = |what: &str, value: f32| {
        graph.add_initializer(&format!("{name}/{what}"), &Tensor::from_f32(&[], &[value]))
    };
    let (threshold, zero) = (number("threshold", threshold), number("zero", 0.0));
    let above = graph.insert("Greater", &format!("{name}/Greater"), &[levels, threshold]);
    graph.insert("Where", &format!("{name}/Where"), &[above, levels, zero])
}

/// The code that means zero, if there are at least as many others as half of `2^bits`.
fn zero_code(bits: u32, shift: u8) -> Option<u8> {
    let count = 1_u32
        .checked_shl(bits)
        .filter(|_| (2..=8).contains(&bits))?;
    let zero = (count + u32::from(shift)).min(255);
    let enough = zero - u32::from(shift) >= count / 2;
    u8::try_from(zero).ok().filter(|_| enough)
}

fn log_softmax(graph: &mut Graph, name: &str, softmax: Outlet) -> Result<Outlet, TransformError> {
    let op = graph.op(softmax.node).filter(|op| op.is("Softmax"));
    let (Some(op), Some(input)) = (op, graph.input(softmax.node, 0)) else {
        let problem = format!(
            "logarithmic codes need a Softmax right before the product, but {:?} stands there: use a uniform quantiser",
            graph.label(softmax.node)
        );
        return Err(TransformError::new(name, problem));
    };
    let axis = op.int("axis").unwrap_or(-1);
    Ok(graph.insert_op(
        Op::new("LogSoftmax", &format!("{name}/LogSoftmax")).with_int("axis", axis),
        &[input],
    ))
}
