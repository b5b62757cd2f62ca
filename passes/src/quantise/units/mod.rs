//! Every operator between dequantisers and quantisers, for targets that compute the whole graph in integers.
//!
//! ```text
//! x ─ LayerNormalization(γ, β) ─ y ─ readers
//!   →  Q/DQ(x) ─ LayerNormalization(DQ(uint8 γ), DQ(int32 β)) ─ Q ─ DQ ─ readers                          (uint16)
//! Q/DQ(x) ─ Gemm(DQ(W), DQ(b)) ─ y ─ readers          a site, quantised by the plan
//!   →  Q/DQ(x) ─ Gemm(DQ(W), DQ(b)) ─ Q ─ DQ ─ readers                                                     (uint8)
//! DQ(c) ─ Reshape ─ y        →  DQ(c) ─ Reshape ─ Q ─ DQ, with the scale and zero point of c
//! DQ(uint8 c) ─ Add ─ y      →  DQ(uint8 c) ─ Q ─ DQ ─ Add ─ Q ─ DQ, as all of an Add has one type         (uint16)
//! ```
//! A value is quantised once, behind its operator, and all its readers read that. A unit has one type: uint8 where the plan
//! quantised its operands, else uint16; operators that move values have that of their input. uint8 for all of them leaves nothing of a
//! ViT-Tiny (-3 dB at the logits, where this has 15). From 8 to 16 bits no value changes
//! ([`Step::widened`]).
//!
//! Declined, with the operator and the reason: operators that no unit is formed of, values without a range in the plan (NaN or
//! infinities were seen, or more than [`WIDEST`]), biases that do not fit int32. These stay float, and what reads them quantises them first.

mod parameters;
mod rules;
mod step;

use std::collections::{HashMap, HashSet};

use vitq_onnx::DataType;

use super::uniform;
use crate::infer::{Shapes, infer};
use crate::ir::{Graph, Node, NodeId, Op, Outlet};
use crate::plan::ValuePlan;
use crate::structure::Declined;
use crate::target::Target;
use crate::transform::TransformError;

use rules::{Inputs, Outcome, Rule};
use step::{Step, Width};

/// A value that goes beyond this on either side (masks filled with the least float, say) leaves no code to the others.
pub const WIDEST: f32 = 1e6;

/// What became units.
#[derive(Default)]
pub(super) struct Units {
    /// How many there are.
    pub made: usize,
    /// Operators on floats that are none.
    pub declined: Vec<Declined>,
}

/// Names of the values of a graph with its sites quantised whose ranges [`super::apply`] needs for targets that want all quantised.
pub fn values(graph: &Graph) -> Vec<String> {
    let shapes = infer(graph);
    let float = |value: &Outlet| is_float(graph, &shapes, *value);
    let results = graph.ops().filter(|(_, op)| !is_quantiser(op));
    let results = results.flat_map(|(node, op)| results_of(node, op));
    let values = graph.inputs().chain(results).filter(float);
    values.map(|value| graph.name(value).to_owned()).collect()
}

/// Quantises every float value of which the plan has the range.
pub(super) fn emit(graph: &mut Graph, ranges: &[ValuePlan], target: &Target) -> Units {
    let shapes = infer(graph);
    let range = |it: &ValuePlan| (it.value.clone(), (it.least, it.most));
    let mut writer = Writer {
        shapes,
        ranges: ranges.iter().map(range).collect(),
        target: *target,
        coded: HashMap::new(),
        planned: HashSet::new(),
        widened: HashMap::new(),
        units: Units::default(),
        graph,
    };
    for node in writer.graph.topological().unwrap_or_default() {
        writer.visit(node);
    }
    writer.units
}

fn is_quantiser(op: &Op) -> bool {
    op.is("QuantizeLinear") || op.is("DequantizeLinear")
}

fn results_of(node: NodeId, op: &Op) -> impl Iterator<Item = Outlet> + use<> {
    let present: Vec<usize> = (0..op.outputs.len())
        .filter(|&slot| !op.outputs[slot].is_empty())
        .collect();
    present.into_iter().map(move |slot| Outlet { node, slot })
}

fn is_float(graph: &Graph, shapes: &Shapes, value: Outlet) -> bool {
    let known = shapes.dtype(value);
    known == Some(DataType::Float) && !graph.name(value).is_empty()
}

struct Writer<'g> {
    graph: &'g mut Graph,
    shapes: Shapes,
    ranges: HashMap<String, (f32, f32)>,
    target: Target,
    /// Dequantised values, with their codes.
    coded: HashMap<Outlet, Step>,
    /// Those of the plan, moved ones among them.
    planned: HashSet<Outlet>,
    /// Those of 8 bits, in 16.
    widened: HashMap<Outlet, Outlet>,
    units: Units,
}

impl Writer<'_> {
    fn visit(&mut self, node: NodeId) {
        let Node::Op(op) = self.graph.node(node) else {
            return;
        };
        let op = op.clone();
        if is_quantiser(&op) {
            self.plan(node);
            return;
        }
        let inputs = self.graph.node_inputs(node).into_iter().flatten();
        let mut values = inputs.chain(results_of(node, &op));
        if !values.any(|value| self.is_float(value)) {
            return;
        }
        let made = match rules::rule(&op) {
            Some(rule) => self.unit(node, &op, rule),
            // What reads floats and gives none (Shape) has nothing to quantise.
            None if !results_of(node, &op).any(|value| self.is_float(value)) => return,
            None => Err(self.refuse(node, "the target computes no such operator in integers")),
        };
        match made {
            Ok(()) => self.units.made += 1,
            Err(declined) => self.units.declined.push(Declined {
                node: self.graph.label(node),
                op_type: op.op_type().to_owned(),
                reason: declined.problem,
            }),
        }
    }

    /// Notes the codes of an activation that the plan quantised.
    fn plan(&mut self, node: NodeId) {
        let codes = self.graph.input(node, 0);
        let activation = codes.is_some_and(|it| self.graph.is(it.node, "QuantizeLinear"));
        let number = |i| self.graph.tensor(self.graph.input(node, i)?);
        let step = || -> Option<Step> {
            Some(Step {
                scale: number(1)?.scalar_f32().ok()?,
                zero: u16::try_from(number(2)?.scalar_i64().ok()?).ok()?,
                width: Width::Eight,
            })
        };
        if let Some(step) = step().filter(|_| activation && self.graph.is(node, "DequantizeLinear"))
        {
            let value = Outlet { node, slot: 0 };
            self.coded.insert(value, step);
            self.planned.insert(value);
        }
    }

    fn is_float(&self, value: Outlet) -> bool {
        self.coded.contains_key(&value) || is_float(self.graph, &self.shapes, value)
    }

    fn refuse(&self, node: NodeId, problem: &str) -> TransformError {
        TransformError::new(self.graph.label(node), problem)
    }

    /// Makes a unit of an operator. Where that fails it stays float: what was written up to then means the same.
    fn unit(&mut self, node: NodeId, op: &Op, rule: Rule) -> Result<(), TransformError> {
        self.require_ranges(node, op, rule)?;
        let width = self.width(node, rule);
        let inputs = self.value_inputs(node, rule);
        for &(i, value) in &inputs {
            self.input(node, op, (i, value), width)?;
        }
        let first = inputs.first().and_then(|&(i, _)| self.graph.input(node, i));
        for result in results_of(node, op) {
            let step = self.result_step(result, (rule.result, first), width);
            let behind = step.map(|step| self.code(result, step)).transpose()?;
            let moved = rule.result == Outcome::Shared;
            if first.is_some_and(|it| moved && self.planned.contains(&it)) {
                self.planned.extend(behind);
            }
        }
        Ok(())
    }

    /// Inputs that are quantised.
    fn value_inputs(&self, node: NodeId, rule: Rule) -> Vec<(usize, Outlet)> {
        let all = self.graph.node_inputs(node).into_iter().enumerate();
        let count = match rule.inputs {
            Inputs::First => 1,
            Inputs::All => usize::MAX,
        };
        let present = all.take(count).filter_map(|(i, value)| Some((i, value?)));
        present.filter(|&(_, v)| self.is_float(v)).collect()
    }

    /// Fails before anything is written where a range is unknown.
    fn require_ranges(&self, node: NodeId, op: &Op, rule: Rule) -> Result<(), TransformError> {
        let inputs = self.value_inputs(node, rule).into_iter();
        let open = inputs.map(|(_, value)| value).filter(|&value| {
            let constant = self.graph.initializer(value).is_some();
            !constant && !self.graph.is(value.node, "DequantizeLinear")
        });
        let seen = results_of(node, op).filter(|_| rule.result == Outcome::Seen);
        let mut needed = open.chain(seen);
        match needed.find(|&value| !self.ranges.contains_key(self.graph.name(value))) {
            None => Ok(()),
            Some(value) => {
                let name = self.graph.name(value);
                let problem = format!("no usable range of `{name}` was seen in calibration");
                Err(self.refuse(node, &problem))
            }
        }
    }

    /// The type of a unit.
    fn width(&self, node: NodeId, rule: Rule) -> Width {
        let inputs = self.value_inputs(node, rule);
        let eight = match rule.result {
            Outcome::Shared => inputs.iter().any(|(_, value)| {
                let step = self.coded.get(value);
                step.is_some_and(|step| step.width == Width::Eight)
            }),
            _ => inputs.iter().any(|(_, value)| self.planned.contains(value)),
        };
        if eight { Width::Eight } else { Width::Sixteen }
    }

    /// Makes input `i` a dequantised one of the unit's type.
    fn input(
        &mut self,
        node: NodeId,
        op: &Op,
        (i, value): (usize, Outlet),
        width: Width,
    ) -> Result<(), TransformError> {
        if let Some(tensor) = self.graph.tensor(value) {
            let kind = rules::constant(op, i, tensor.dims.len());
            let constant = self.constant((node, i), kind, &tensor, width)?;
            self.graph.set_input(node, i, constant);
            return Ok(());
        }
        if !self.graph.is(value.node, "DequantizeLinear") {
            self.open(value)?;
        }
        let value = self.graph.input(node, i).unwrap_or(value);
        if width == Width::Sixteen {
            let wide = self.wide(value)?;
            self.graph.set_input(node, i, wide);
        }
        Ok(())
    }

    /// Quantises a graph input, or what an operator without a unit gives.
    fn open(&mut self, value: Outlet) -> Result<(), TransformError> {
        match self.ranges.get(self.graph.name(value)) {
            Some(&range) => self
                .code(value, Step::spanning(range, Width::Sixteen))
                .map(drop),
            None => Ok(()),
        }
    }

    /// How a result is quantised, if it is a float.
    fn result_step(
        &self,
        value: Outlet,
        (outcome, first): (Outcome, Option<Outlet>),
        width: Width,
    ) -> Option<Step> {
        if !self.is_float(value) {
            return None;
        }
        match outcome {
            Outcome::Free => None,
            Outcome::Shared => self.coded.get(&first?).copied(),
            Outcome::Fixed(scale, zero) => Some(Step {
                scale,
                zero,
                width: Width::Sixteen,
            }),
            Outcome::Seen => {
                let range = self.ranges.get(self.graph.name(value));
                range.map(|&range| Step::spanning(range, width))
            }
        }
    }

    /// Writes the quantiser of a value and lets all its readers read behind it.
    fn code(&mut self, value: Outlet, step: Step) -> Result<Outlet, TransformError> {
        let behind = self.pair(value, step)?;
        let codes = self.graph.input(behind.node, 0);
        self.graph.replace_uses(value, behind);
        if let Some(codes) = codes {
            self.graph.set_input(codes.node, 0, value);
        }
        Ok(behind)
    }

    fn pair(&mut self, value: Outlet, step: Step) -> Result<Outlet, TransformError> {
        let name = self.graph.name(value).to_owned();
        let zero_point = step.zero_point();
        let behind = uniform::pair(self.graph, &name, value, step.scale, &zero_point)?;
        self.coded.insert(behind, step);
        Ok(behind)
    }

    /// A dequantised value in 16 bits.
    fn wide(&mut self, value: Outlet) -> Result<Outlet, TransformError> {
        let step = self.coded.get(&value).copied();
        let Some(step) = step.filter(|step| step.width == Width::Eight) else {
            return Ok(value);
        };
        if let Some(&wide) = self.widened.get(&value) {
            return Ok(wide);
        }
        let wide = self.pair(value, step.widened())?;
        self.widened.insert(value, wide);
        Ok(wide)
    }
}
