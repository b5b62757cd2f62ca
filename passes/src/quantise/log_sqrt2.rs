//! log√2 quantiser of a Softmax output (RepQ-ViT, arXiv 2212.08254, §3.4) with standard operators: the log√2 codes of `x`
//! are uniform codes of `ln x`, and LogSoftmax gives `ln x` exactly.
//!
//! ```text
//! Softmax → reader
//!   →  LogSoftmax → QuantizeLinear(uint8, ln2/2, n + shift) → [Min(n)] → DequantizeLinear → Exp → ThresholdedRelu → reader
//!
//! k = round(-2·log2 x), at least shift        x̂ = 2^(-k/2), and 0 where k ≥ n + shift        (n = 2^b, δ = 2^(-shift/2))
//! ```
//! The code is `n + shift - k`; 0 means "zero", which Exp cannot give: ThresholdedRelu sends everything below the least
//! level there. `Min` is only needed where `shift > 0`: no `ln x` lies above 0.
//! Other readers of the Softmax keep it. (A quantiser right behind Softmax would be fused into a QLinearSoftmax by
//! ONNX Runtime where its input is quantised too, which is wrong for nearly uniform attention; LogSoftmax is not.)
//! Declined: anything but a Softmax, and 8 bits, which need 257 codes.

use crate::ir::{Graph, Op, Outlet};
use crate::transform::TransformError;

use super::uniform;

/// Writes the chain beside the Softmax that gives `value` and returns `x̂`.
pub(super) fn emit(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    bits: u32,
    shift: u8,
) -> Result<Outlet, TransformError> {
    let (n, zero_point) = codes(bits, shift)
        .ok_or_else(|| TransformError::new(name, format!("log√2 codes of {bits} bits shifted by {shift} do not fit into uint8: use 2 to 7 bits, or a uniform quantiser")))?;
    let logarithm = log_softmax(graph, name, value)?;
    let (scale, zero) = uniform::step(graph, name, std::f32::consts::LN_2 / 2.0, zero_point)?;
    let mut codes = graph.insert(
        "QuantizeLinear",
        &format!("{name}/QuantizeLinear"),
        &[logarithm, scale, zero],
    );
    if shift > 0 {
        codes = uniform::at_most(graph, name, codes, n);
    }
    let logarithm = graph.insert(
        "DequantizeLinear",
        &format!("{name}/DequantizeLinear"),
        &[codes, scale, zero],
    );
    let levels = graph.insert("Exp", &format!("{name}/Exp"), &[logarithm]);
    // Half a code above the code that means zero.
    let threshold = (-(f32::from(zero_point) - 0.5) / 2.0).exp2();
    let cut = Op::new("ThresholdedRelu", &format!("{name}/ThresholdedRelu"))
        .with_float("alpha", threshold);
    Ok(graph.insert_op(cut, &[levels]))
}

/// `(2^bits, 2^bits + shift)`, if every code fits into uint8.
fn codes(bits: u32, shift: u8) -> Option<(u8, u8)> {
    let n = 1_u8.checked_shl(bits).filter(|_| (2..=7).contains(&bits))?;
    Some((n, n.checked_add(shift)?))
}

fn log_softmax(graph: &mut Graph, name: &str, softmax: Outlet) -> Result<Outlet, TransformError> {
    let op = graph.op(softmax.node).filter(|op| op.is("Softmax"));
    let (Some(op), Some(input)) = (op, graph.input(softmax.node, 0)) else {
        let problem = format!(
            "log√2 codes need a Softmax right before the product, but {:?} stands there: use a uniform quantiser",
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
