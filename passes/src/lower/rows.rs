//! Which operators work on each row of an axis by itself, so that a few rows of the result need those rows of the inputs alone.

use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Op, Outlet};

/// The first rows of a value, which are all that is read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rows {
    /// Counted from the end (0 is the last), as sums with values of lower rank leave it what it is.
    pub axis: usize,
    /// How many.
    pub count: usize,
}

/// A graph with its shapes.
pub struct View<'g> {
    pub graph: &'g Graph,
    pub shapes: &'g Shapes,
}

impl View<'_> {
    fn rank(&self, value: Outlet) -> Option<usize> {
        self.shapes.rank(value)
    }

    /// Size of an axis, where it is a number.
    pub fn size(&self, value: Outlet, from_end: usize) -> Option<usize> {
        self.shapes.of(value)?.iter().rev().nth(from_end)?.known()
    }

    /// An axis of a value, counted from the end.
    fn counted(&self, value: Outlet, axis: i64) -> Option<usize> {
        if axis < 0 {
            return usize::try_from(-1 - axis).ok();
        }
        self.rank(value)?
            .checked_sub(1 + usize::try_from(axis).ok()?)
    }

    fn integers(&self, node: NodeId, input: usize) -> Option<Vec<i64>> {
        self.graph
            .tensor(self.graph.input(node, input)?)?
            .to_i64()
            .ok()
    }

    /// The rows of its first input that a choice of tokens reads: a Gather or Slice of constant places on one axis, counted
    /// from the front.
    pub fn chosen(&self, node: NodeId) -> Option<Rows> {
        let op = self.graph.op(node)?;
        let x = self.graph.input(node, 0)?;
        let (axis, places) = match op.op_type() {
            "Gather" => (op.int("axis").unwrap_or(0), self.integers(node, 1)?),
            "Slice" => {
                let [starts, ends, axes] = [1, 2, 3].map(|i| self.integers(node, i));
                let (&[start], &[end], &[axis]) = (&starts?[..], &ends?[..], &axes?[..]) else {
                    return None;
                };
                let steps = self.graph.input(node, 4).map(|_| self.integers(node, 4));
                if steps.is_some_and(|s| s != Some(vec![1])) || start < 0 || end <= start {
                    return None;
                }
                (axis, vec![start, end - 1])
            }
            _ => return None,
        };
        let axis = self.counted(x, axis)?;
        let places: Option<Vec<usize>> = places
            .into_iter()
            .map(|p| usize::try_from(p).ok())
            .collect();
        let count = places?.into_iter().max()? + 1;
        Some(Rows { axis, count })
    }

    /// For each input of an operator with one result the axis on which it needs the same rows that are read of the result
    /// (`None`: it needs all of the input); `None` where rows are not independent, or not known to be.
    pub fn needed(&self, node: NodeId, axis: usize) -> Option<Vec<Option<usize>>> {
        let op = self.graph.op(node)?;
        if op.outputs.len() != 1 || !op.message.domain().is_empty() {
            return None;
        }
        let inputs = self.graph.node_inputs(node);
        let first = |axis| {
            Some(
                inputs
                    .iter()
                    .enumerate()
                    .map(|(i, _)| (i == 0).then_some(axis))
                    .collect(),
            )
        };
        let x = *inputs.first()?.as_ref()?;
        match op.op_type() {
            "Identity" | "Cast" | "Relu" | "Gelu" | "Erf" | "Sigmoid" | "Tanh" | "Sqrt" | "Neg"
            | "Exp" | "Clip" => first(axis),
            "QuantizeLinear" | "DequantizeLinear" if self.is_scalar(node, 1) => first(axis),
            "LayerNormalization" | "RMSNormalization" | "Softmax" => {
                let over = self.counted(x, op.int("axis").unwrap_or(-1))?;
                (over < axis && (over == 0 || op.is("Softmax"))).then(|| first(axis))?
            }
            "Add" | "Sub" | "Mul" | "Div" | "Pow" => self.elementwise(node, axis),
            "MatMul" | "MatMulInteger" => {
                let ranks = inputs.iter().take(2).map(|v| self.rank((*v)?));
                let ranks = ranks.collect::<Option<Vec<_>>>()?;
                // A zero point for each row would be a column.
                let one_zero = inputs.get(2).is_none() || self.is_scalar(node, 2);
                (axis == 1 && one_zero && ranks.iter().all(|&r| r >= 2)).then(|| first(1))?
            }
            "Transpose" => {
                let perm = op.ints("perm")?;
                let place = perm.len().checked_sub(1 + axis)?;
                let before = usize::try_from(perm[place]).ok()?;
                first(perm.len().checked_sub(1 + before)?)
            }
            "Reshape" => self.reshaped(node, op, x, axis).and_then(first),
            _ => None,
        }
    }

    /// Whether an input is a constant of one element.
    pub fn is_scalar(&self, node: NodeId, input: usize) -> bool {
        let dims = self
            .graph
            .input(node, input)
            .and_then(|v| self.graph.constant_dims(v));
        dims.is_some_and(|d| d.iter().product::<usize>() == 1)
    }

    /// Inputs without the axis, or with one row for all, are needed whole.
    fn elementwise(&self, node: NodeId, axis: usize) -> Option<Vec<Option<usize>>> {
        let size = self.size(Outlet { node, slot: 0 }, axis)?;
        let one = |value: Option<Outlet>| {
            let value = value?;
            if axis >= self.rank(value)? {
                return Some(None);
            }
            match self.size(value, axis)? {
                1 => Some(None),
                rows if rows == size => Some(Some(axis)),
                _ => None,
            }
        };
        self.graph.node_inputs(node).into_iter().map(one).collect()
    }

    /// The axis before a Reshape to a constant shape that keeps the rows apart.
    fn reshaped(&self, node: NodeId, op: &Op, x: Outlet, axis: usize) -> Option<usize> {
        let result = Outlet { node, slot: 0 };
        let size = self.size(result, axis)?;
        let behind: usize = (0..axis)
            .map(|a| self.size(result, a))
            .product::<Option<usize>>()?;
        let (mut before, mut elements) = (0, 1);
        while elements < behind {
            elements *= self.size(x, before)?;
            before += 1;
        }
        if elements != behind || self.size(x, before)? != size {
            return None;
        }
        let shape = self.integers(node, 1)?;
        let place = shape.len().checked_sub(1 + axis)?;
        let zero = shape[place] == 0;
        // A zero copies the size at the same place from the front.
        let copies = self.rank(x)? == shape.len() - axis + before;
        (op.int("allowzero").unwrap_or(0) == 0 && (!zero || copies)).then_some(before)
    }
}
