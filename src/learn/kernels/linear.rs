//! A Linear: `y = x·Wᵀ + b`; `∂x = g·W`, `∂W = gᵀ·x`, `∂b = Σ g`.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{elements, read};
use crate::linalg::{add_gemm_nt, add_gemm_tn, gemm};
use crate::run::vector::vectorised;

/// Sum of a weight's gradients over samples that are differentiated one after the other. Each adds its own where it is made, as one
/// that candle hands on would be written, added to nothing, copied and added up: a tenth of a step.
#[derive(Clone, Debug, Default)]
pub struct Total(Arc<Mutex<Sum>>);

#[derive(Debug, Default)]
struct Sum {
    values: Vec<f32>,
    /// What candle gave, where it lies.
    tensor: Option<Tensor>,
}

impl Total {
    /// Adds `gᵀ·x`: `g [rows, out]`, `x [rows, in]`.
    fn add(&self, g: &[f32], x: &[f32], (rows, out, k): (usize, usize, usize)) {
        let sum = &mut self.sum().values;
        sum.resize(out * k, 0.0);
        add_gemm_tn(sum, g, x, rows, out, k);
    }

    /// Adds a gradient that candle found; of all or none.
    pub fn add_tensor(&self, gradient: &Tensor) -> Result<()> {
        let sum = &mut self.sum().tensor;
        *sum = Some(match sum.take() {
            Some(sum) => (sum + gradient)?,
            None => gradient.clone(),
        });
        Ok(())
    }

    /// The sum, which begins anew; empty where there was nothing to add.
    pub fn take(&self) -> Result<Vec<f32>> {
        let Sum { values, tensor } = std::mem::take(&mut *self.sum());
        match tensor {
            Some(tensor) => read(&tensor, <[f32]>::to_vec),
            None => Ok(values),
        }
    }

    fn sum(&self) -> MutexGuard<'_, Sum> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `x [rows, in]`, `W [out, in]`, `b [out]` → `[rows, out]`.
#[derive(Default)]
pub struct Linear {
    /// Where the weight's gradient goes, if not to candle.
    pub total: Option<Total>,
}

impl CustomOp3 for Linear {
    fn name(&self) -> &'static str {
        "linear"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        x_layout: &Layout,
        w: &CpuStorage,
        w_layout: &Layout,
        b: &CpuStorage,
        b_layout: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        let (rows, k) = x_layout.shape().dims2()?;
        let (out, _) = w_layout.shape().dims2()?;
        let bias = elements(b, b_layout)?;
        let mut y = bias.repeat(rows);
        let (x, w) = (elements(x, x_layout)?, elements(w, w_layout)?);
        add_gemm_nt(&mut y, x, w, rows, k, out);
        Ok((CpuStorage::F32(y), (rows, out).into()))
    }

    fn bwd(
        &self,
        x: &Tensor,
        w: &Tensor,
        b: &Tensor,
        _: &Tensor,
        gradient: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let ((rows, k), out) = (x.dims2()?, b.dims1()?);
        let device = x.device();
        let dx = x
            .track_op()
            .then(|| read(gradient, |g| read(w, |w| gemm(g, w, rows, out, k))))
            .transpose()?
            .transpose()?
            .map(|dx| Tensor::from_vec(dx, (rows, k), device))
            .transpose()?;
        let own = Total::default();
        let total = self.total.as_ref().unwrap_or(&own);
        if self.total.is_some() || w.track_op() {
            read(gradient, |g| read(x, |x| total.add(g, x, (rows, out, k))))??;
        }
        let dw = Some(own.take()?).filter(|dw| !dw.is_empty());
        let dw = dw
            .map(|dw| Tensor::from_vec(dw, (out, k), device))
            .transpose()?;
        let db = read(gradient, |g| {
            let mut db = vec![0.0f32; out];
            vectorised(|| {
                for g in g.chunks_exact(out) {
                    db.iter_mut().zip(g).for_each(|(d, g)| *d += g);
                }
            });
            db
        })?;
        Ok((dx, dw, Some(Tensor::from_vec(db, out, device)?)))
    }
}
