//! What happens at sites: the float product, or the quantised one with what is learned.

use candle_core::{DType, Result, Tensor, bail};
use vitq_passes::structure::Structure;

use super::kernels::{Kernels, Total};
use super::network::{Sites, matmul};
use super::state::{Leaves, LinearLeaves, State};

/// The sites of a run.
pub struct Products<'a> {
    /// What was recognised.
    pub structure: &'a Structure,
    /// One a site, and maybe one a norm; the float network's are all fixed.
    pub states: &'a [State],
    /// Alike.
    pub leaves: &'a [Leaves],
    /// Whose operators run.
    pub kernels: Kernels,
}

impl Sites for Products<'_> {
    fn evaluate(&self, site: usize, operands: &[Tensor]) -> Result<Tensor> {
        let Some(leaves) = self.leaves.get(site) else {
            bail!("the site was not made ready")
        };
        match (&self.states[site], leaves) {
            (_, Leaves::Fixed(None)) => {
                let [a, b] = operands else {
                    bail!("a product takes two operands")
                };
                matmul(a, b)
            }
            (_, Leaves::Fixed(Some((weight, bias)))) => {
                self.product(site, &operands[0], (weight, None), bias)
            }
            (State::Linear(state), Leaves::Linear(leaves)) => {
                let LinearLeaves {
                    weight,
                    total,
                    others,
                } = leaves;
                let [bias, step, factors @ ..] = &others[..] else {
                    bail!("a Linear has a bias and a step")
                };
                let mut x = operands[0].clone();
                if let Some(factor) = &state.pre_scale {
                    x = x.broadcast_mul(factor)?;
                }
                let quantiser = &state.activation.quantiser;
                let quantised = self.kernels.fake_quantise(&x, step, quantiser)?;
                let y = self.product(site, &quantised, (weight, total.as_ref()), bias)?;
                match factors {
                    [down, up] => y + self.branch(&x, down, up)?,
                    _ => Ok(y),
                }
            }
            (State::Product(states), Leaves::Product(steps)) => {
                let both = operands.iter().zip(states.iter()).zip(steps);
                let quantised = both
                    .map(|((x, state), step)| self.kernels.fake_quantise(x, step, &state.quantiser))
                    .collect::<Result<Vec<_>>>()?;
                let [a, b] = &quantised[..] else {
                    bail!("a product takes two operands")
                };
                matmul(a, b)
            }
            _ => bail!("the plan treats the site as another kind of product"),
        }
    }

    fn affine(&self, place: usize) -> Option<&[Tensor; 2]> {
        match self.leaves.get(place)? {
            Leaves::Norm(affine) => Some(affine),
            _ => None,
        }
    }
}

impl Products<'_> {
    /// `x·Wᵀ + b` on tokens, or on the patches of an image.
    fn product(
        &self,
        site: usize,
        x: &Tensor,
        (weight, total): (&Tensor, Option<&Total>),
        bias: &Tensor,
    ) -> Result<Tensor> {
        let (out, k) = weight.dims2()?;
        let patch = self.structure.sites[site]
            .parameters
            .as_ref()
            .and_then(|p| p.patch);
        let Some([high, wide]) = patch else {
            return self.tokens(x, (weight, total), bias);
        };
        let (batch, channels, height, width) = x.dims4()?;
        let (down, along) = (height / high, width / wide);
        // A Conv leaves out what no whole patch covers.
        let x = x.narrow(2, 0, down * high)?.narrow(3, 0, along * wide)?;
        let patches = x
            .contiguous()?
            .reshape(vec![batch, channels, down, high, along, wide])?
            .permute(vec![0, 2, 4, 1, 3, 5])?
            .contiguous()?
            .reshape((batch * down * along, k))?;
        self.kernels
            .linear(&patches, weight, bias, total)?
            .reshape((batch, down * along, out))?
            .transpose(1, 2)?
            .contiguous()?
            .reshape((batch, out, down, along))
    }

    /// `x·Wᵀ + b` of each token.
    fn tokens(
        &self,
        x: &Tensor,
        (weight, total): (&Tensor, Option<&Total>),
        bias: &Tensor,
    ) -> Result<Tensor> {
        let (out, k) = weight.dims2()?;
        let mut dims = x.dims().to_vec();
        let rows = x.elem_count() / k;
        if dims.pop() != Some(k) {
            bail!(
                "its input has {:?}, its weight takes {k} values a token",
                x.dims()
            )
        }
        dims.push(out);
        let rows = x.contiguous()?.reshape((rows, k))?;
        self.kernels
            .linear(&rows, weight, bias, total)?
            .reshape(dims)
    }

    /// `B·(A·x)` of each token.
    fn branch(&self, x: &Tensor, down: &Tensor, up: &Tensor) -> Result<Tensor> {
        let nothing = |factor: &Tensor| Tensor::zeros(factor.dim(0)?, DType::F32, factor.device());
        let down = self.tokens(x, (down, None), &nothing(down)?)?;
        self.tokens(&down, (up, None), &nothing(up)?)
    }
}
