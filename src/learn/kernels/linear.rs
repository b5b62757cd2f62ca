//! A Linear: `y = x·Wᵀ + b`; `∂x = g·W`, `∂W = gᵀ·x`, `∂b = Σ g`.

use candle_core::{CpuStorage, CustomOp3, Layout, Result, Shape, Tensor};

use super::{elements, read};
use crate::linalg::{add_gemm_nt, add_gemm_tn, gemm};
use crate::run::vector::vectorised;

/// `x [rows, in]`, `W [out, in]`, `b [out]` → `[rows, out]`.
pub struct Linear;

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
        let dw = read(gradient, |g| {
            read(x, |x| {
                let mut dw = vec![0.0; out * k];
                add_gemm_tn(&mut dw, g, x, rows, out, k);
                dw
            })
        })??;
        let db = read(gradient, |g| {
            let mut db = vec![0.0f32; out];
            vectorised(|| {
                for g in g.chunks_exact(out) {
                    db.iter_mut().zip(g).for_each(|(d, g)| *d += g);
                }
            });
            db
        })?;
        Ok((
            dx,
            Some(Tensor::from_vec(dw, (out, k), device)?),
            Some(Tensor::from_vec(db, out, device)?),
        ))
    }
}
