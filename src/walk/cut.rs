//! The float graph, cut at its sites.

use vitq_passes::ir::{Graph, Op};
use vitq_passes::structure::{Site, SiteKind, Structure};

/// Name of the operator that stands for a site.
pub const OP_TYPE: &str = "VitqSite";

/// The graph with each site replaced by one opaque operator.
pub fn cut(graph: &Graph, structure: &Structure) -> Graph {
    let mut graph = graph.clone();
    for (index, site) in structure.sites.iter().enumerate() {
        let mut op = Op::new(OP_TYPE, &format!("{}/{OP_TYPE}", site.name))
            .with_ints("site", &[index as i64]);
        op = op.with_ints("shape", &shape(&graph, site));
        let inputs: Vec<_> = [Some(site.activation), site.second]
            .into_iter()
            .flatten()
            .collect();
        let value = graph.insert_op(op, &inputs);
        graph.replace_uses(site.output, value);
    }
    graph.remove_dead();
    graph
}

/// What tract infers the result's shape from.
fn shape(graph: &Graph, site: &Site) -> Vec<i64> {
    let Some(parameters) = &site.parameters else {
        return Vec::new();
    };
    let out = parameters.outputs as i64;
    match (site.kind, graph.constant_dims(parameters.weight).as_deref()) {
        (SiteKind::PatchEmbed, Some(&[_, _, h, w])) => vec![out, h as i64, w as i64],
        _ => vec![out],
    }
}
