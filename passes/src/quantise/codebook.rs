//! Codebook quantiser of an activation: levels on the uint8 grid, evenly spaced within each of a few segments.
//!
//! ```text
//! x → reader   →   x → QuantizeLinear(uint8, step_j·scale) → Clip(from_j, to_j) → step_j times ─┐   (j = 1, 2, …)
//!                                                                                              Add → DequantizeLinear(scale) → reader
//!
//! x̂ = scale·(from_1 + Σ_j (clamp(step_j·round(x/(step_j·scale)), from_j, to_j) - from_j))
//! ```
//! Every segment is a ramp that stands still outside of its own levels, so their sum is a staircase, and the product behind it
//! stays an integer one. Segments of one step share their QuantizeLinear where the sum still fits into uint8.
//! A table would do for any levels (Cast → Gather), but ONNX Runtime 1.31 takes 2.8 ns an element for it, and 0.4 ns for two
//! ramps: with tables W4A4 is slower than float. Codes are added up to their multiple: tract 0.23 takes an integer constant
//! that multiplies for a mask and does not come to an end over it.
//! Where values are clipped before they are quantised, the same in floats:
//! ```text
//! x → Clip(scale·from_j, scale·to_j) → QuantizeLinear(step_j·scale) → DequantizeLinear ─┐
//!                                                                                      Add → QuantizeLinear(scale) → DequantizeLinear(scale) → reader
//! ```
//! Declined: segments that do not follow each other, lie below zero, or whose sum does not fit into uint8.

use vitq_onnx::Tensor;

use crate::ir::{Graph, Outlet};
use crate::plan::Segment;
use crate::target::Quantiser;
use crate::transform::TransformError;

use super::uniform;

/// Writes the quantiser behind `value` and returns `x̂`.
pub(super) fn emit(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    (scale, segments): (f32, &[Segment]),
    quantiser: Quantiser,
) -> Result<Outlet, TransformError> {
    check(name, segments)?;
    let ramps = ramps(segments).ok_or_else(|| {
        TransformError::new(
            name,
            "the codebook's levels reach too far for uint8: use fewer segments or a larger scale"
                .to_owned(),
        )
    })?;
    uniform::check_scale(name, scale)?;
    if quantiser == Quantiser::Clipped {
        return in_floats(graph, name, value, (scale, segments), &ramps);
    }
    let mut codes: Vec<(u8, u8, Outlet)> = Vec::new();
    let mut sum = None;
    for (i, ramp) in ramps.iter().enumerate() {
        let quantised = codes
            .iter()
            .find(|(step, zero, _)| (*step, *zero) == (ramp.step, ramp.zero_point));
        let quantised = match quantised {
            Some((.., codes)) => *codes,
            None => {
                let new = quantise(graph, &format!("{name}/{i}"), value, scale, ramp)?;
                codes.push((ramp.step, ramp.zero_point, new));
                new
            }
        };
        let part = clipped(graph, &format!("{name}/{i}"), quantised, ramp);
        sum = Some(match sum {
            None => part,
            Some(sum) => graph.insert("Add", &format!("{name}/{i}/Add"), &[sum, part]),
        });
    }
    // What the ramps add up to at the first level stands for that level.
    let lowest: i32 = ramps.iter().map(Ramp::least).sum();
    let first = segments.first().map_or(0, |s| i32::from(s.from));
    let zero = u8::try_from(lowest - first).unwrap_or(u8::MAX); // ramps() gave none that reach further
    let (scale, zero) = uniform::step(graph, name, scale, zero)?;
    let codes = sum.unwrap_or(value); // check() refuses codebooks without segments
    Ok(graph.insert(
        "DequantizeLinear",
        &format!("{name}/DequantizeLinear"),
        &[codes, scale, zero],
    ))
}

/// The ramps added up as floats, multiples of `scale`, and quantised once more.
fn in_floats(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    (scale, segments): (f32, &[Segment]),
    ramps: &[Ramp],
) -> Result<Outlet, TransformError> {
    let mut sum = None;
    for (i, (segment, ramp)) in segments.iter().zip(ramps).enumerate() {
        let name = format!("{name}/{i}");
        let mut bound = |what: &str, level: i16| {
            let bound = Tensor::from_f32(&[], &[f32::from(level) * scale]);
            graph.add_initializer(&format!("{name}/{what}"), &bound)
        };
        let bounds = [bound("from", segment.from), bound("to", segment.to)];
        let clip = [value, bounds[0], bounds[1]];
        let clipped = graph.insert("Clip", &format!("{name}/Clip"), &clip);
        let step = uniform::step(graph, &name, scale * f32::from(ramp.step), ramp.zero_point)?;
        let codes = uniform::quantise(graph, &name, clipped, step);
        let part = uniform::dequantise(graph, &name, codes, step);
        sum = Some(match sum {
            None => part,
            Some(sum) => graph.insert("Add", &format!("{name}/Add"), &[sum, part]),
        });
    }
    // What they add up to at the first level, which is no code below zero, stands for that level.
    let least: i32 = segments.iter().map(|s| i32::from(s.from)).sum();
    let first = segments.first().map_or(0, |s| i32::from(s.from));
    // ramps() gave none that reach further.
    let code = |level: i32| u8::try_from(level).unwrap_or(u8::MAX);
    let zero = (-least).max(0);
    let written = uniform::step(graph, name, scale, code(zero))?;
    let codes = uniform::quantise(graph, name, sum.unwrap_or(value), written);
    let read = uniform::step(
        graph,
        &format!("{name}/level"),
        scale,
        code(least - first + zero),
    )?;
    Ok(uniform::dequantise(graph, name, codes, read))
}

/// Whether a codebook's segments can be written as uint8 codes.
pub fn fits(segments: &[Segment]) -> bool {
    ramps(segments).is_some()
}

/// The largest code that stands for a level, if the segments can be written.
pub(super) fn highest_code(segments: &[Segment]) -> Option<u32> {
    let ramps = ramps(segments)?;
    Some(ramps.iter().map(Ramp::most).sum())
}

/// A segment in codes of its own QuantizeLinear.
struct Ramp {
    step: u8,
    zero_point: u8,
    from: u8,
    to: u8,
}

impl Ramp {
    /// The least that it adds.
    fn least(&self) -> i32 {
        i32::from(self.step) * i32::from(self.from)
    }

    /// The most that it adds.
    fn most(&self) -> u32 {
        u32::from(self.step) * u32::from(self.to)
    }
}

/// Zero points that keep the sum within uint8: one for all segments of a step if that fits, one each if not.
fn ramps(segments: &[Segment]) -> Option<Vec<Ramp>> {
    [true, false].into_iter().find_map(|shared| {
        let ramps: Vec<Ramp> = segments
            .iter()
            .map(|s| {
                let alike = segments.iter().filter(|t| shared && t.step == s.step);
                let lowest = alike.map(|t| t.from).chain([s.from]).min()?;
                let step = i16::from(s.step);
                let zero_point = -lowest.min(0) / step;
                Some(Ramp {
                    step: s.step,
                    zero_point: u8::try_from(zero_point).ok()?,
                    from: u8::try_from(s.from / step + zero_point).ok()?,
                    to: u8::try_from(s.to / step + zero_point).ok()?,
                })
            })
            .collect::<Option<_>>()?;
        let most: u32 = ramps.iter().map(Ramp::most).sum();
        (most <= 255).then_some(ramps)
    })
}

fn check(name: &str, segments: &[Segment]) -> Result<(), TransformError> {
    let whole = |s: &Segment| {
        let step = i16::from(s.step);
        step > 0 && s.from < s.to && s.from % step == 0 && s.to % step == 0
    };
    // All levels may lie above zero: attention weights may have an interval of their own.
    let reaches_zero = segments.last().is_some_and(|last| last.to >= 0);
    let joined = segments.windows(2).all(|s| s[0].to == s[1].from);
    if reaches_zero && joined && segments.iter().all(whole) {
        return Ok(());
    }
    let problem = "the codebook's segments have to follow each other, not lie below zero, and end on multiples of their steps: make the plan again";
    Err(TransformError::new(name, problem.to_owned()))
}

fn quantise(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    scale: f32,
    ramp: &Ramp,
) -> Result<Outlet, TransformError> {
    let (scale, zero) = uniform::step(graph, name, scale * f32::from(ramp.step), ramp.zero_point)?;
    Ok(graph.insert(
        "QuantizeLinear",
        &format!("{name}/QuantizeLinear"),
        &[value, scale, zero],
    ))
}

/// `step·Clip(codes, from, to)`
fn clipped(graph: &mut Graph, name: &str, codes: Outlet, ramp: &Ramp) -> Outlet {
    let mut constant = |what: &str, value: u8| {
        graph.add_initializer(&format!("{name}/{what}"), &Tensor::from_u8(&[], &[value]))
    };
    let (from, to) = (constant("from", ramp.from), constant("to", ramp.to));
    let clipped = graph.insert("Clip", &format!("{name}/Clip"), &[codes, from, to]);
    // From the highest bit of the step down: doubled, and once more where the bit is set.
    let mut times = 1;
    let mut part = clipped;
    let mut add = |part: &mut Outlet, other: Outlet, times: u8| {
        *part = graph.insert("Add", &format!("{name}/times_{times}"), &[*part, other]);
    };
    for bit in (0..ramp.step.ilog2()).rev() {
        times *= 2;
        let same = part;
        add(&mut part, same, times);
        if ramp.step >> bit & 1 == 1 {
            times += 1;
            add(&mut part, clipped, times);
        }
    }
    part
}
