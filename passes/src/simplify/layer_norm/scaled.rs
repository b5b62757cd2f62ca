//! ```text
//! s = Mul(Reciprocal(Sqrt(Add(variance(x), ε))), γ)
//! Add(Mul(x, s), Sub(β, Mul(mean(x), s)))             →  LayerNormalization<axis = -1, epsilon = ε>(x, γ, β)
//! ```
//! As Keras and TensorFlow write it. `Add(Mul(Neg(mean(x)), s), β)` for the difference, γ and β in either order or absent.

use super::{Found, channels, inverted, is_vector, moments, operands};
use crate::infer::Shapes;
use crate::ir::{Graph, NodeId, Outlet};

/// The normalisation whose last sum is node `id`.
pub(super) fn find(graph: &Graph, shapes: &Shapes, id: NodeId) -> Option<Found> {
    let end = Outlet { node: id, slot: 0 };
    let [first, second] = orders(operands(graph, end, "Add")?);
    let of = |(product, shift)| {
        let orders = orders(operands(graph, product, "Mul")?);
        orders
            .into_iter()
            .find_map(|(x, s)| normalised(graph, shapes, (x, s), shift, end))
    };
    of(first).or_else(|| of(second))
}

fn orders((a, b): (Outlet, Outlet)) -> [(Outlet, Outlet); 2] {
    [(a, b), (b, a)]
}

/// `x·s + shift`.
fn normalised(
    graph: &Graph,
    shapes: &Shapes,
    (x, s): (Outlet, Outlet),
    shift: Outlet,
    end: Outlet,
) -> Option<Found> {
    let channels = channels(shapes, x)?;
    let (inverse, gamma) = match operands(graph, s, "Mul").map(orders) {
        Some(orders) => orders
            .into_iter()
            .find(|&(_, gamma)| is_vector(graph, gamma, channels))
            .map(|(inverse, gamma)| (inverse, Some(gamma)))?,
        None => (s, None),
    };
    let deviation = inverted(graph, inverse)?;
    let epsilon = moments::deviation_of(graph, shapes, deviation, x)?;
    let beta = beta(graph, shapes, shift, (x, s))?;
    let fits = beta.is_none_or(|beta| is_vector(graph, beta, channels));
    fits.then_some(Found {
        x,
        epsilon,
        gamma,
        beta,
        channels,
        end,
    })
}

/// The β of `β - mean(x)·s`; `Some(None)` where there is only `-mean(x)·s`.
fn beta(
    graph: &Graph,
    shapes: &Shapes,
    shift: Outlet,
    (x, s): (Outlet, Outlet),
) -> Option<Option<Outlet>> {
    let product_of = |value: Outlet, is_mean: &dyn Fn(Outlet) -> bool| {
        let orders = operands(graph, value, "Mul").map(orders);
        let found = |(mean, scale)| scale == s && is_mean(mean);
        orders.is_some_and(|orders| orders.into_iter().any(found))
    };
    let is_mean = |value: Outlet| moments::mean_of(graph, shapes, value, x).is_some();
    let is_negative_mean = |value: Outlet| {
        graph.is(value.node, "Neg") && graph.input(value.node, 0).is_some_and(is_mean)
    };
    if product_of(shift, &is_negative_mean) {
        return Some(None);
    }
    if let Some((beta, product)) = operands(graph, shift, "Sub") {
        return product_of(product, &is_mean).then_some(Some(beta));
    }
    let orders = orders(operands(graph, shift, "Add")?);
    let found = |(product, beta)| product_of(product, &is_negative_mean).then_some(Some(beta));
    orders.into_iter().find_map(found)
}
