//! What an error at each token behind a block costs at the network's outputs.
//!
//! A head that reads one token of 197 sees nothing of the others behind the last block, and behind the first one it sees all of them a
//! little (ViT-Tiny: a tenth of what errors cost there is the class token's, two thirds behind the middle). With the outputs `y` and a value `x` behind a block, a small error `δ` changes them by `‖J·δ‖²/‖y‖²`, whose diagonal is what
//! BRECQ (arXiv 2102.05426 eq. 10) takes the squares of gradients for. Here it is the mean over random signs `u` of `(Jᵀu)²/‖y‖²`, so that it needs
//! no labels and no classes; and it is summed over a token's channels, as one draw of signs says little of each of them.

use candle_core::{D, Result, Tensor};
use vitq_passes::ir::Outlet;

use super::draw::Random;
use super::kernels::read;
use super::loss::spread;
use super::network::{Value, Values};

/// Share that all tokens have alike, as one draw says little of each token either.
const EVEN: f64 = 0.25;

/// A value behind a block of the float network.
pub struct Feature {
    /// Where it stands.
    pub outlet: Outlet,
    /// `[…, tokens, channels]`
    pub value: Tensor,
    /// What was added to it: nothing, but it can be differentiated by.
    pub noise: Tensor,
}

/// Of each feature the share `[…, tokens, 1]` of the whole that each token's error has, where all tokens have errors of the same size next
/// to their spread. They sum to 1.
///
/// # Errors
/// candle's.
pub fn importance(
    outputs: &[&Tensor],
    features: &[Feature],
    random: &mut Random,
) -> Result<Values> {
    let parts = outputs.iter().map(|y| projected(y, random));
    let Some(sum) = parts.reduce(|sum, part| sum? + part?) else {
        return Ok(Values::new());
    };
    let gradients = sum?.backward()?;
    let shares = features.iter().map(|feature| {
        let share = match gradients.get(&feature.noise) {
            Some(gradient) => {
                let square = gradient.sqr()?.mean_keepdim(D::Minus1)?;
                shares(&(square * spread(&feature.value)?)?)?
            }
            // No output depends on it.
            None => shares(&spread(&feature.value)?.zeros_like()?)?,
        };
        Ok((feature.outlet, Value::Float(share)))
    });
    shares.collect()
}

/// `Σ ±y/‖y‖`
fn projected(y: &Tensor, random: &mut Random) -> Result<Tensor> {
    let mut sign = |_| {
        if random.bits() >> 63 == 0 {
            1.0f32
        } else {
            -1.0
        }
    };
    let signs: Vec<f32> = (0..y.elem_count()).map(&mut sign).collect();
    let signs = Tensor::from_vec(signs, y.dims(), y.device())?;
    let size = f64::from(y.sqr()?.sum_all()?.to_scalar::<f32>()?).sqrt();
    (y * signs)?.sum_all()? / size.max(1e-12)
}

/// Parts of their sum, and [`EVEN`].
fn shares(parts: &Tensor) -> Result<Tensor> {
    let sum: f64 = read(parts, |all| all.iter().copied().map(f64::from).sum())?;
    let count = parts.elem_count() as f64;
    match sum.is_finite() && sum > 0.0 {
        true => (parts * ((1.0 - EVEN) / sum))? + EVEN / count,
        false => parts.zeros_like()? + 1.0 / count,
    }
}

#[cfg(test)]
mod tests {
    use candle_core::{Device, Var};
    use vitq_passes::ir::Graph;

    use super::*;

    /// A feature of three tokens that are spread alike, and the output that `of` makes of it.
    fn shares_where(of: impl Fn(&Tensor) -> Result<Tensor>) -> Vec<f32> {
        let text = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[4] x) => (float[4] y) { y = Neg(x) }";
        let graph = Graph::parse(text).unwrap();
        let outlet = graph.find("x").unwrap();
        let value = Tensor::new(&[[[1.0f32, 3.0], [7.0, 5.0], [-1.0, 1.0]]], &Device::Cpu).unwrap();
        let noise = Var::zeros((1, 3, 2), candle_core::DType::F32, &Device::Cpu).unwrap();
        let noise = noise.as_tensor().clone();
        let output = of(&(&value + &noise).unwrap()).unwrap();
        let features = [Feature {
            outlet,
            value,
            noise,
        }];
        let shares = importance(&[&output], &features, &mut Random::new(&[0])).unwrap();
        let Some(Value::Float(shares)) = shares.get(&outlet) else {
            panic!("no shares")
        };
        shares.flatten_all().unwrap().to_vec1().unwrap()
    }

    #[test]
    fn tokens_count_by_what_outputs_make_of_them() {
        let shares = shares_where(|x| (x.narrow(1, 0, 1)? * 2.0)? + x.narrow(1, 1, 1)?);
        for (share, part) in shares.iter().zip([0.8, 0.2, 0.0]) {
            let expected = (1.0 - EVEN) * part + EVEN / 3.0;
            assert!((f64::from(*share) - expected).abs() < 1e-6, "{shares:?}");
        }
    }

    #[test]
    fn where_no_output_depends_on_them_all_tokens_count_alike() {
        let shares = shares_where(|x| x.zeros_like());
        assert!(
            shares.iter().all(|it| (it - 1.0 / 3.0).abs() < 1e-6),
            "{shares:?}"
        );
    }
}
