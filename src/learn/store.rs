//! Values between two blocks, of all samples. Those of many samples wait in temporary files, so that memory does not grow with
//! their number.

use std::collections::HashMap;
use std::sync::Arc;

use candle_core::Tensor;
use rayon::prelude::*;
use tract_onnx::prelude::Tensor as Plain;
use vitq_passes::ir::Outlet;

use super::LearnError;
use super::backend::Backend;
use super::kernels::read;
use super::network::{Value, Values};
use crate::walk::spill::{OnDisk, Spill};

/// Samples whose values stay in memory.
const IN_MEMORY: usize = 64;

/// The values of each sample that are still to be read.
pub struct Store {
    samples: Vec<HashMap<Outlet, Held>>,
    spill: Option<Arc<Spill>>,
    backend: Backend,
}

enum Held {
    Memory(Value),
    Disk(OnDisk),
}

impl Store {
    /// Those of `count` samples, which are read where `backend` computes.
    ///
    /// # Errors
    /// Those of `of`, or a temporary file cannot be written.
    pub fn new(
        count: usize,
        backend: &Backend,
        of: impl Fn(usize) -> Result<Values, LearnError> + Sync,
    ) -> Result<Self, LearnError> {
        let spill = (count > IN_MEMORY).then(Spill::new).transpose()?;
        let samples = (0..count)
            .into_par_iter()
            .map(|sample| held(of(sample)?, sample, spill.as_ref()))
            .collect::<Result<_, LearnError>>()?;
        Ok(Store {
            samples,
            spill,
            backend: backend.clone(),
        })
    }

    /// Those of `wanted` that a sample has.
    ///
    /// # Errors
    /// A temporary file cannot be read.
    pub fn read(&self, sample: usize, wanted: &[Outlet]) -> Result<Values, LearnError> {
        let held = &self.samples[sample];
        let known = wanted.iter().filter_map(|it| Some((*it, held.get(it)?)));
        known
            .map(|(outlet, held)| Ok((outlet, held.value(&self.backend)?)))
            .collect()
    }

    /// Replaces the values of each sample by what is made of them.
    ///
    /// # Errors
    /// Those of `of`, or a temporary file fails.
    pub fn advance(
        &mut self,
        of: impl Fn(Values) -> Result<Values, LearnError> + Sync,
    ) -> Result<(), LearnError> {
        let (spill, backend) = (self.spill.as_ref(), &self.backend);
        let samples = self.samples.par_iter_mut().enumerate();
        samples.try_for_each(|(i, sample)| {
            let values = sample
                .iter()
                .map(|(outlet, held)| Ok((*outlet, held.value(backend)?)))
                .collect::<Result<Values, LearnError>>()?;
            *sample = held(of(values)?, i, spill)?;
            Ok(())
        })
    }
}

impl Held {
    fn value(&self, backend: &Backend) -> Result<Value, LearnError> {
        let on_disk = match self {
            Held::Memory(value) => return Ok(value.clone()),
            Held::Disk(on_disk) => on_disk.read()?,
        };
        let values = crate::walk::floats(&on_disk).unwrap_or_default().to_vec();
        let tensor = Tensor::from_vec(values, on_disk.shape(), &backend.device);
        tensor.map(Value::Float).map_err(|e| LearnError::step(&e))
    }
}

fn held(
    values: Values,
    sample: usize,
    spill: Option<&Arc<Spill>>,
) -> Result<HashMap<Outlet, Held>, LearnError> {
    let spill = spill.filter(|_| sample >= IN_MEMORY);
    let held = values.into_iter().map(|(outlet, value)| {
        let on_disk = match (&value, spill) {
            (Value::Float(tensor), Some(spill)) => spill.put(&plain(tensor)?)?,
            _ => None,
        };
        Ok((outlet, on_disk.map_or(Held::Memory(value), Held::Disk)))
    });
    held.collect()
}

fn plain(tensor: &Tensor) -> Result<Plain, LearnError> {
    let plain = read(tensor, |values| Plain::from_shape(tensor.dims(), values));
    let plain = plain.map_err(|e| LearnError::step(&e))?;
    plain.map_err(|e| LearnError::Step(format!("{e:#}")))
}

#[cfg(test)]
mod tests {
    use candle_core::Device;
    use vitq_passes::ir::Graph;

    use super::*;

    #[test]
    fn what_waits_in_files_is_what_was_put_there() {
        let graph = Graph::parse(
            "<ir_version: 8, opset_import: [\"\" : 17]> g (float[4] x) => (float[4] y) { y = Neg(x) }",
        )
        .unwrap();
        let outlet = graph.find("x").unwrap();
        let value = |sample: usize, factor: f32| {
            let values: Vec<f32> = (0..2048).map(|i| (i + sample) as f32 * factor).collect();
            Tensor::from_vec(values, (2, 1024), &Device::Cpu).unwrap()
        };
        let count = IN_MEMORY + 2;
        let put = |sample| Ok(Values::from([(outlet, Value::Float(value(sample, 1.0)))]));
        let mut store = Store::new(count, &Backend::cpu(), put).unwrap();
        let double = |values: Values| {
            let twice = |value| match value {
                Value::Float(tensor) => Value::Float((tensor * 2.0).unwrap()),
                integers => integers,
            };
            Ok(values.into_iter().map(|(o, v)| (o, twice(v))).collect())
        };
        store.advance(double).unwrap();
        for sample in [0, IN_MEMORY, count - 1] {
            let values = store.read(sample, &[outlet]).unwrap();
            let Some(Value::Float(tensor)) = values.get(&outlet) else {
                panic!("no value of sample {sample}")
            };
            let expected = value(sample, 2.0);
            assert_eq!(tensor.dims(), expected.dims());
            assert_eq!(
                tensor.to_vec2::<f32>().unwrap(),
                expected.to_vec2::<f32>().unwrap()
            );
        }
        assert!(matches!(store.samples[count - 1][&outlet], Held::Disk(_)));
    }
}
