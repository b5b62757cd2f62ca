//! An operator and its operands, as the files of this folder read them.

use candle_core::{DType, Device, Result, Tensor, bail};
use vitq_passes::ir::Op;

use super::{Integers, Value};
use crate::learn::backend::Backend;
use crate::learn::kernels::read;

/// Operands of an operator, with what is asked of them.
pub struct Call<'a> {
    /// The operator.
    pub op: &'a Op,
    /// Its operands, `None` where one is left out.
    pub operands: &'a [Option<&'a Value>],
    /// Where it is computed.
    pub backend: &'a Backend,
}

impl Call<'_> {
    /// A float operand.
    pub fn float(&self, i: usize) -> Result<&Tensor> {
        match self.operands.get(i).copied().flatten() {
            Some(Value::Float(tensor)) => Ok(tensor),
            _ => bail!("{}: operand {i} is not float", self.op.op_type()),
        }
    }

    /// An integer operand, `None` where it is left out.
    pub fn integers(&self, i: usize) -> Result<Option<&Integers>> {
        match self.operands.get(i).copied().flatten() {
            None => Ok(None),
            Some(Value::Integers(integers)) => Ok(Some(integers)),
            Some(Value::Float(_)) => bail!("{}: operand {i} is not integer", self.op.op_type()),
        }
    }

    /// A list that is an attribute in older operator sets and operand `i` in newer ones.
    pub fn list(&self, attribute: &str, i: usize) -> Result<Option<Vec<i64>>> {
        if let Some(list) = self.op.ints(attribute) {
            return Ok(Some(list.to_vec()));
        }
        Ok(self.integers(i)?.map(|it| it.values.clone()))
    }

    /// Elements of a float operand.
    pub fn floats(&self, i: usize) -> Result<Vec<f32>> {
        read(self.float(i)?, <[f32]>::to_vec)
    }

    /// γ and β of a norm; nothing for the one that is left out.
    pub fn norm(&self) -> Result<[Tensor; 2]> {
        let shift = match self.operands.get(2).copied().flatten() {
            Some(_) => self.float(2)?.flatten_all()?,
            // On the processor: CUDA has no room of no bytes.
            None => Tensor::zeros(0, DType::F32, &Device::Cpu)?,
        };
        Ok([self.float(1)?.flatten_all()?, shift])
    }

    /// Elements of a float operand that may be left out.
    pub fn optional_floats(&self, i: usize) -> Result<Option<Vec<f32>>> {
        let given = self.operands.get(i).copied().flatten().is_some();
        given.then(|| self.floats(i)).transpose()
    }

    /// The one element of a float operand.
    pub fn scalar(&self, i: usize) -> Result<f32> {
        match self.floats(i)?[..] {
            [value] => Ok(value),
            _ => bail!("{}: operand {i} is no scalar", self.op.op_type()),
        }
    }
}

/// An axis from `-rank..rank` to `0..rank`.
pub fn axis(axis: i64, rank: usize) -> Result<usize> {
    let counted = if axis < 0 { axis + rank as i64 } else { axis };
    match usize::try_from(counted) {
        Ok(axis) if axis < rank.max(1) => Ok(axis),
        _ => bail!("axis {axis} does not exist"),
    }
}
