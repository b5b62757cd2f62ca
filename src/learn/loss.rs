//! How far the quantised network is from the float one.

use candle_core::{D, DType, Device, Result, Tensor};
use vitq_passes::ir::Outlet;

use super::network::{Value, Values};

/// Weight of the features, next to 1 of the outputs.
const FEATURES: f64 = 1.0;

/// Loss of a sample: its outputs' and, less heavily, its blocks'.
pub struct Loss {
    /// What is differentiated.
    pub sum: Tensor,
    /// Whether both decide alike, where the first output is a classifier's.
    pub agrees: Option<bool>,
}

/// `Σ_outputs KL(softmax(float) ‖ softmax(quantised)) + mean over blocks of ‖x̂ - x‖²/‖x‖²`; outputs that are not `[n, classes]`
/// count as blocks do.
///
/// Blocks say more of a sample than its decision does, which is what few samples need (FitNets, arXiv 1412.6550).
///
/// # Errors
/// candle's.
pub fn loss(
    (outputs, features): (&[Outlet], &[Outlet]),
    quantised: &Values,
    float: &Values,
) -> Result<Loss> {
    let both = |outlet: &Outlet| match (quantised.get(outlet), float.get(outlet)) {
        (Some(Value::Float(a)), Some(Value::Float(b))) => Some((a, b)),
        _ => None,
    };
    let mut sum = Tensor::zeros((), DType::F32, &Device::Cpu)?;
    let mut agrees = None;
    for (i, (a, b)) in outputs.iter().filter_map(both).enumerate() {
        if b.rank() == 2 && b.dim(1)? > 1 {
            sum = (sum + divergence(a, b)?)?;
            if i == 0 {
                let decided = |x: &Tensor| x.argmax(D::Minus1)?.to_vec1::<u32>();
                agrees = Some(decided(a)? == decided(b)?);
            }
        } else {
            sum = (sum + relative(a, b)?)?;
        }
    }
    for (a, b) in features.iter().filter_map(both) {
        sum = (sum + (relative(a, b)? * (FEATURES / features.len() as f64))?)?;
    }
    Ok(Loss { sum, agrees })
}

/// `‖a - b‖²/‖b‖²`
fn relative(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let size = f64::from(b.sqr()?.mean_all()?.to_scalar::<f32>()?);
    (a - b)?.sqr()?.mean_all()? / size.max(1e-12)
}

/// `KL(softmax(b) ‖ softmax(a))`, summed over rows.
fn divergence(a: &Tensor, b: &Tensor) -> Result<Tensor> {
    let (a, b) = (log_softmax(a)?, log_softmax(b)?);
    (b.exp()? * (b - a)?)?.sum_all()
}

fn log_softmax(x: &Tensor) -> Result<Tensor> {
    let shifted = x.broadcast_sub(&x.max_keepdim(D::Minus1)?.detach())?;
    let sum = shifted.exp()?.sum_keepdim(D::Minus1)?.log()?;
    shifted.broadcast_sub(&sum)
}
