//! Activations behind their quantiser: each tensor is quantised once for all sites that want it alike.

use vitq_onnx::Tensor;

use crate::ir::{Graph, Outlet};
use crate::plan::Activation;
use crate::structure::Site;
use crate::target::{Codes, Target};
use crate::transform::{TransformError, check_lengths, scale};

use super::{codebook, log, uniform};

/// A multiplier before the quantiser.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PreScale {
    /// Shape that broadcasts to the activation.
    pub dims: Vec<usize>,
    /// One value a channel.
    pub values: Vec<f32>,
}

/// The graph and the quantisers that were already written into it.
pub(super) struct Operands<'g> {
    pub graph: &'g mut Graph,
    pub target: Target,
    written: Vec<Written>,
    one: Option<Outlet>,
}

struct Written {
    source: Outlet,
    pre_scale: Option<PreScale>,
    activation: Activation,
    value: Outlet,
}

impl<'g> Operands<'g> {
    pub fn new(graph: &'g mut Graph, target: Target) -> Self {
        Operands {
            graph,
            target,
            written: Vec::new(),
            one: None,
        }
    }

    /// 1.0 as no optimiser takes for a constant: DequantizeLinear is not folded, so that what it feeds stays quantised.
    pub fn one(&mut self) -> Outlet {
        let graph = &mut *self.graph;
        *self.one.get_or_insert_with(|| {
            let code = graph.add_initializer("vitq/one/code", &Tensor::from_u8(&[], &[1]));
            let scale = graph.add_initializer("vitq/one/scale", &Tensor::from_f32(&[], &[1.0]));
            graph.insert("DequantizeLinear", "vitq/one", &[code, scale])
        })
    }

    /// Number of quantisers.
    pub fn written(&self) -> usize {
        let written = self.written.iter();
        written
            .filter(|it| it.activation != Activation::Float)
            .count()
    }

    /// The value of input `i` of the site's node behind its quantiser; new nodes are named `site/part/…`.
    pub fn quantised(
        &mut self,
        site: &Site,
        i: usize,
        part: &str,
        pre_scale: Option<PreScale>,
        activation: &Activation,
    ) -> Result<Outlet, TransformError> {
        // Read from the graph, not from the site: earlier sites may have put another value there.
        let source = self.graph.input(site.node, i);
        let source = source
            .ok_or_else(|| TransformError::new(&site.name, format!("it has no input {i}")))?;
        let equal = |w: &&Written| {
            (w.source, &w.pre_scale, &w.activation) == (source, &pre_scale, activation)
        };
        if let Some(written) = self.written.iter().find(equal) {
            return Ok(written.value);
        }
        let name = format!("{}/{part}", site.name);
        let value = match &pre_scale {
            Some(PreScale { dims, values }) if *activation == Activation::Float => {
                check_lengths(&name, &[("pre-scale", values.len())], dims.iter().product())?;
                scale::pre_scale(self.graph, &name, source, dims, values)
            }
            Some(_) => {
                let scaled =
                    self.quantised(site, i, part, pre_scale.clone(), &Activation::Float)?;
                self.write(&name, scaled, activation)?
            }
            None => self.write(&name, source, activation)?,
        };
        self.written.push(Written {
            source,
            pre_scale,
            activation: activation.clone(),
            value,
        });
        Ok(value)
    }

    fn write(
        &mut self,
        name: &str,
        source: Outlet,
        activation: &Activation,
    ) -> Result<Outlet, TransformError> {
        match activation {
            Activation::Float => Ok(source),
            Activation::Uniform {
                bits,
                scale,
                zero_point,
            } => match self.target.codes {
                Codes::Unsigned | Codes::Even => {
                    let step = (*scale, *zero_point);
                    let quantiser = self.target.quantiser;
                    uniform::emit(self.graph, name, source, *bits, step, quantiser)
                }
                Codes::Symmetric => uniform::emit_symmetric(self.graph, name, source, *scale),
            },
            Activation::Log { bits, step, shift } => {
                let quantiser = self.target.quantiser;
                log::emit(self.graph, name, source, *bits, (*step, *shift), quantiser)
            }
            Activation::Codebook { scale, segments } => {
                let quantiser = self.target.quantiser;
                codebook::emit(self.graph, name, source, (*scale, segments), quantiser)
            }
        }
    }
}
