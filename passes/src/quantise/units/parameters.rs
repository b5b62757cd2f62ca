//! Constants that an operator reads, as codes.

use vitq_onnx::Tensor;

use super::rules::Constant;
use super::step::{Step, Width};
use super::{WIDEST, Writer};
use crate::ir::{NodeId, Outlet};
use crate::plan::Weight;
use crate::quantise::{bias, uniform, weight};
use crate::transform::{TransformError, transposed};

impl Writer<'_> {
    /// Writes the constant at input `i` of an operator and returns its float value.
    pub(super) fn constant(
        &mut self,
        (node, i): (NodeId, usize),
        kind: Constant,
        tensor: &Tensor,
        width: Width,
    ) -> Result<Outlet, TransformError> {
        let values = tensor
            .to_f32()
            .map_err(|e| self.refuse(node, &e.to_string()))?;
        if !values.iter().all(|v| v.abs() <= WIDEST) {
            return Err(self.refuse(
                node,
                &format!("its constant input {i} is not finite, or beyond {WIDEST:e}"),
            ));
        }
        let name = format!("{}/{i}", self.graph.label(node));
        match kind {
            Constant::Value => self.value(&name, &tensor.dims, &values, width),
            Constant::Scale => self.value(&name, &tensor.dims, &values, Width::Eight),
            Constant::Weight(axis) => self.weight(&name, &tensor.dims, &values, axis),
            Constant::Bias => self.bias(node, &name, &values),
        }
    }

    /// One scale for the whole tensor.
    fn value(
        &mut self,
        name: &str,
        dims: &[usize],
        values: &[f32],
        width: Width,
    ) -> Result<Outlet, TransformError> {
        let least = values.iter().copied().fold(0.0, f32::min);
        let most = values.iter().copied().fold(0.0, f32::max);
        let step = Step::spanning((least, most), width);
        let codes = step.codes(dims, values);
        let value = uniform::constant(self.graph, name, &codes, step.scale, &step.zero_point())?;
        self.coded.insert(value, step);
        Ok(value)
    }

    /// A weight of an operator that the plan leaves float: int8, a scale per channel, rounded to nearest.
    fn weight(
        &mut self,
        name: &str,
        dims: &[usize],
        values: &[f32],
        axis: usize,
    ) -> Result<Outlet, TransformError> {
        let out = dims.get(axis).copied().unwrap_or(1);
        let rows = match axis {
            0 => values.to_vec(),
            _ => transposed(values, out),
        };
        weight::emit(
            self.graph,
            name,
            &nearest(&rows, out),
            (dims, axis),
            &self.target,
        )
    }

    /// int32 on the grid of what it is added to.
    fn bias(&mut self, node: NodeId, name: &str, values: &[f32]) -> Result<Outlet, TransformError> {
        let scales = self.product_scales(node);
        let usable = |s: &Vec<f32>| s.len() == 1 || s.len() == values.len();
        let scales = scales
            .filter(usable)
            .ok_or_else(|| self.refuse(node, "the grid of its bias is not known"))?;
        let each = scales.iter().cycle();
        let code = |(b, s): (&f32, &f32)| (f64::from(*b) / f64::from(*s)).round_ties_even();
        let codes: Vec<f64> = values.iter().zip(each).map(code).collect();
        if !codes
            .iter()
            .all(|code| code.abs() < f64::from(i32::MAX / 2))
        {
            return Err(self.refuse(node, "its bias does not fit int32"));
        }
        let codes: Vec<i32> = codes.iter().map(|&code| code as i32).collect();
        Ok(bias::emit_codes(self.graph, name, &codes, &scales))
    }

    /// `s_x·s_w`, one a channel where the weight has those.
    fn product_scales(&self, node: NodeId) -> Option<Vec<f32>> {
        let input = self.coded.get(&self.graph.input(node, 0)?)?.scale;
        let weight = self.graph.input(node, 1)?;
        let scales = self.graph.input(weight.node, 1)?;
        let scales = self.graph.tensor(scales)?.to_f32().ok()?;
        let scales: Vec<f32> = scales.iter().map(|scale| input * scale).collect();
        scales.iter().all(|s| s.is_normal()).then_some(scales)
    }
}

fn nearest(rows: &[f32], out: usize) -> Weight {
    let columns = (rows.len() / out.max(1)).max(1);
    let mut weight = Weight {
        bits: 8,
        out,
        codes: Vec::with_capacity(rows.len()),
        block: None,
        scale: Vec::with_capacity(out),
        zero_point: Vec::new(),
        table: None,
    };
    for row in rows.chunks_exact(columns) {
        let largest = row.iter().fold(0.0, |most: f32, w| most.max(w.abs()));
        let scale = if largest > 127.0 * f32::MIN_POSITIVE {
            largest / 127.0
        } else {
            1.0
        };
        weight
            .codes
            .extend(row.iter().map(|w| (w / scale).round_ties_even() as i8));
        weight.scale.push(scale);
    }
    weight
}
