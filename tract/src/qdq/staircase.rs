//! ```text
//!     ┌ QuantizeLinear(s₁, z₁) → Max(from₁) → Min(to₁) → Add, as often as it counts ┐
//! x ──┤                                                                            Add   ⇒   x → Staircase, uint8
//!     └ QuantizeLinear(s₂, z₂) → Max(from₂) → Min(to₂) ─────────────────────────────┘
//! ```
//!
//! A codebook quantiser, as vitq writes it in standard operators: `Σ_j n_j·clamp(round(x/s_j) + z_j, from_j, to_j)`, in one pass over
//! `x` where its parts take one each. Left alone: scales that are no constant or more than one, quantisers of different values, sums
//! that do not fit into uint8.

use pulp::Arch;
use tract_core::internal::*;
use tract_core::ops::binary::{BinMiniOp, TypedBinOp};
use tract_core::ops::math::{Add, Max, Min};

use super::code_type::CodeType;
use super::quantize::{Quantize, round_within};
use crate::constant::single;

/// Elements whose sums stay in the first cache while one ramp after the other is added up.
const CHUNK: usize = 1024;

/// Nodes that are looked at for one quantiser: more than any with 255 steps in it has.
const MOST_NODES: usize = 1024;

/// Joins quantisers that are sums of clipped ones.
pub fn join(model: &mut TypedModel) -> TractResult<()> {
    for id in 0..model.nodes().len() {
        if !is_last(model, id) {
            continue;
        }
        let Some((x, op)) = Staircase::read(model, id)? else {
            continue;
        };
        let mut patch = TypedModelPatch::new("staircase");
        let x = patch.tap_model(model, x)?;
        let name = format!("{}.staircase", model.node(id).name);
        let codes = patch.wire_node(name, op, &[x])?;
        patch.shunt_outside(model, id.into(), codes[0])?;
        patch.apply(model)?;
    }
    Ok(())
}

/// Whether a node is a part of a quantiser, and no part follows.
fn is_last(model: &TypedModel, id: usize) -> bool {
    let mut readers = model.node(id).outputs.iter().flat_map(|o| &o.successors);
    is_part(model, id) && !readers.any(|reader| is_part(model, reader.node))
}

fn is_part(model: &TypedModel, id: usize) -> bool {
    let node = model.node(id);
    let joins = |op: &TypedBinOp| op.0.is::<Add>() || op.0.is::<Max>() || op.0.is::<Min>();
    node.op_as::<TypedBinOp>().is_some_and(joins)
        && node.outputs[0].fact.datum_type == DatumType::U8
}

/// `times·clamp(round(x/scale) + zero, from, to)`
#[derive(Clone, Copy, Debug, PartialEq)]
struct Ramp {
    scale: f32,
    zero: i32,
    from: i32,
    to: i32,
    times: i32,
}

/// Ramps of one value, added up.
#[derive(Clone, Debug, PartialEq)]
struct Staircase {
    ramps: Vec<Ramp>,
}

// No scale is NaN: such a quantiser is left alone.
impl Eq for Staircase {}

impl Staircase {
    /// What the quantiser that ends with a node reads, and the quantiser.
    fn read(model: &TypedModel, id: usize) -> TractResult<Option<(OutletId, Self)>> {
        let mut reader = Reader {
            model,
            nodes_left: MOST_NODES,
        };
        let Some((x, ramps)) = reader.ramps(id.into())? else {
            return Ok(None);
        };
        let most: i32 = ramps.iter().map(|ramp| ramp.times * ramp.to).sum();
        let ordered = ramps.iter().all(|r| r.from <= r.to && r.scale > 0.0);
        Ok((ordered && most <= i32::from(u8::MAX)).then_some((x, Self { ramps })))
    }

    fn write(&self, x: &[f32], codes: &mut [u8]) {
        // As in `Quantize`: the machine's widest vectors, whatever this is compiled for.
        let arch = Arch::new();
        for (x, codes) in x.chunks(CHUNK).zip(codes.chunks_mut(CHUNK)) {
            arch.dispatch(|| self.write_some(x, codes));
        }
    }

    #[inline(always)]
    fn write_some(&self, x: &[f32], codes: &mut [u8]) {
        let mut sums = [0i32; CHUNK];
        for ramp in &self.ramps {
            let (low, high) = ((ramp.from - ramp.zero) as f32, (ramp.to - ramp.zero) as f32);
            for (sum, x) in sums.iter_mut().zip(x) {
                let code = round_within(x / ramp.scale, low, high).wrapping_add(ramp.zero);
                *sum = sum.wrapping_add(code.wrapping_mul(ramp.times));
            }
        }
        for (code, sum) in codes.iter_mut().zip(sums) {
            *code = sum as u8;
        }
    }
}

struct Reader<'m> {
    model: &'m TypedModel,
    nodes_left: usize,
}

impl Reader<'_> {
    /// The ramps that a value is the sum of, and what they read.
    fn ramps(&mut self, outlet: OutletId) -> TractResult<Option<(OutletId, Vec<Ramp>)>> {
        let Some(left) = self.nodes_left.checked_sub(1) else {
            return Ok(None);
        };
        self.nodes_left = left;
        let node = self.model.node(outlet.node);
        if node.op_is::<Quantize>() {
            return self.ramp(outlet.node);
        }
        if self.is::<Add>(outlet.node) {
            return self.sum(node.inputs[0], node.inputs[1]);
        }
        let (raises, lowers) = (self.is::<Max>(outlet.node), self.is::<Min>(outlet.node));
        if !(raises || lowers) {
            return Ok(None);
        }
        let Some(bound) = single::<i32>(self.model, node.inputs[1])? else {
            return Ok(None);
        };
        let clipped = self.ramps(node.inputs[0])?;
        Ok(clipped.and_then(|(x, mut ramps)| {
            // A sum is clipped in no such form.
            let [ramp] = &mut ramps[..] else { return None };
            if ramp.times != 1 {
                return None;
            }
            if raises {
                (ramp.from, ramp.to) = (ramp.from.max(bound), ramp.to.max(bound));
            } else {
                (ramp.from, ramp.to) = (ramp.from.min(bound), ramp.to.min(bound));
            }
            Some((x, ramps))
        }))
    }

    fn ramp(&self, id: usize) -> TractResult<Option<(OutletId, Vec<Ramp>)>> {
        let node = self.model.node(id);
        let Some((CodeType::U8, (from, to))) = node.op_as::<Quantize>().map(Quantize::codes) else {
            return Ok(None);
        };
        let Some(scale) = single::<f32>(self.model, node.inputs[1])? else {
            return Ok(None);
        };
        let zero = match node.inputs.get(2) {
            Some(&zero) => single::<i32>(self.model, zero)?,
            None => Some(0),
        };
        let ramp = zero.map(|zero| Ramp {
            scale,
            zero,
            from,
            to,
            times: 1,
        });
        Ok(ramp.map(|ramp| (node.inputs[0], vec![ramp])))
    }

    fn sum(&mut self, a: OutletId, b: OutletId) -> TractResult<Option<(OutletId, Vec<Ramp>)>> {
        let (Some((x, mut ramps)), Some((y, others))) = (self.ramps(a)?, self.ramps(b)?) else {
            return Ok(None);
        };
        for other in others {
            let same = |ramp: &&mut Ramp| {
                let times = ramp.times;
                **ramp == Ramp { times, ..other }
            };
            match ramps.iter_mut().find(same) {
                Some(ramp) => ramp.times += other.times,
                None => ramps.push(other),
            }
        }
        Ok((x == y).then_some((x, ramps)))
    }

    fn is<O: BinMiniOp>(&self, id: usize) -> bool {
        let op = self.model.node(id).op_as::<TypedBinOp>();
        is_part(self.model, id) && op.is_some_and(|op| op.0.is::<O>())
    }
}

impl Op for Staircase {
    fn name(&self) -> StaticName {
        "Staircase".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![format!("{} ramps", self.ramps.len())])
    }

    op_as_typed_op!();
}

impl EvalOp for Staircase {
    op_out_of_plan!();

    fn eval(&self, _: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        let x = inputs[0].cast_to::<f32>()?;
        let mut codes = Tensor::zero_dt(DatumType::U8, x.shape())?;
        self.write(
            x.try_as_plain_ram()?.as_slice()?,
            codes.try_as_plain_ram_mut()?.as_slice_mut()?,
        );
        Ok(tvec!(codes.into_tvalue()))
    }
}

impl TypedOp for Staircase {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        Ok(tvec!(DatumType::U8.fact(inputs[0].shape.clone())))
    }

    as_op!();
}
