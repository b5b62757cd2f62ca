//! Activation functions of MLPs: GELU, SiLU, ReLU and their kin.
//!
//! ```text
//! gelu        see [`super::gelu`]
//! silu        x·sigmoid(x)                     Elfwing et al. 2017, also called Swish
//! hard swish  x·hardsigmoid(x)                 Howard et al. 2019
//! op          Relu, LeakyRelu, HardSwish, Swish, Elu, Celu, Selu, Mish, PRelu
//! ```

use super::gelu;
use crate::ir::{Graph, NodeId, Outlet};
use crate::pattern::{either, op, var};

/// An activation function in the graph.
#[derive(Clone, Copy, Debug)]
pub(super) struct Activation {
    /// What it is applied to.
    pub input: Outlet,
    /// Its result.
    pub output: Outlet,
}

/// Every activation function of the graph: GELUs first, then the others in the order of their operators.
pub(super) fn find_all(graph: &Graph) -> Vec<Activation> {
    let gelus = gelu::find_all(graph).into_iter().map(|g| Activation {
        input: g.input,
        output: g.output,
    });
    let gated = either([
        var("x") * op("Sigmoid", [var("x")]),
        var("x") * op("HardSigmoid", [var("x")]),
    ]);
    let others = graph.ops().filter_map(|(node, _)| {
        let output = Outlet { node, slot: 0 };
        let input = if is_activation(graph, node) {
            graph.input(node, 0)
        } else if graph.is(node, "Mul") {
            gated.find(graph, output)?.get("x")
        } else {
            None
        };
        Some(Activation {
            input: input?,
            output,
        })
    });
    gelus.chain(others).collect()
}

fn is_activation(graph: &Graph, node: NodeId) -> bool {
    const OPS: [&str; 9] = [
        "Celu",
        "Elu",
        "HardSwish",
        "LeakyRelu",
        "Mish",
        "PRelu",
        "Relu",
        "Selu",
        "Swish",
    ];
    OPS.iter().any(|op_type| graph.is(node, op_type))
}
