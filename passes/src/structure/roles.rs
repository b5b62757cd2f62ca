//! What each Linear does: found from the attention or MLP that it stands in.

use std::collections::HashMap;

use super::attention::{self, Attention};
use super::blocks::Part;
use super::head;
use super::mlp::Mlp;
use super::view::{View, layout, projection};
use super::{Role, Site, SiteKind};
use crate::ir::{NodeId, Outlet};

/// Ways to find a site.
pub(super) struct Index {
    /// Node of a site → its index.
    pub by_node: HashMap<NodeId, usize>,
    /// Node of a Linear → its index.
    pub linears: HashMap<NodeId, usize>,
    /// Result of a Linear, bias included → its index.
    pub results: HashMap<Outlet, usize>,
}

impl Index {
    pub fn new(sites: &[Site]) -> Self {
        let linears = || {
            sites
                .iter()
                .enumerate()
                .filter(|(_, s)| s.kind == SiteKind::Linear)
        };
        Index {
            by_node: sites.iter().enumerate().map(|(i, s)| (s.node, i)).collect(),
            linears: linears().map(|(i, s)| (s.node, i)).collect(),
            results: linears().map(|(i, s)| (s.output, i)).collect(),
        }
    }
}

/// Gives the Linears around an attention their roles.
pub(super) fn around_attention(
    view: &View,
    attention: &Attention,
    sites: &mut [Site],
    index: &Index,
    exported: &[Option<String>],
) -> Part {
    let source = |value| source(view, value, index);
    let [q, k, v] = [
        source(attention.query),
        source(attention.key),
        source(attention.value),
    ];
    let fused = q.is_some() && q == k && k == v;
    let roles = if fused {
        [(q, Role::Qkv), (None, Role::Other), (None, Role::Other)]
    } else {
        // One Linear for two of the three has no role of its own.
        let alone = |own, role, others: [Option<usize>; 2]| {
            (
                own,
                if others.contains(&own) {
                    Role::Other
                } else {
                    role
                },
            )
        };
        [
            alone(q, Role::Query, [k, v]),
            alone(k, Role::Key, [q, v]),
            alone(v, Role::Value, [q, k]),
        ]
    };
    let width = q.and_then(|q| {
        let outputs = sites[q].parameters.as_ref()?.outputs;
        Some(if fused { outputs / 3 } else { outputs })
    });
    let reads = |node: NodeId, slot| slot == 0 && index.linears.contains_key(&node);
    let proj = view.ahead(attention.output, reads, layout);
    let proj = proj
        .first()
        .and_then(|(node, _)| index.linears.get(node))
        .copied();
    let mut members = Vec::new();
    for (site, role) in roles.into_iter().chain([(proj, Role::Proj)]) {
        if let Some(site) = site {
            members.push(site);
            assign(&mut sites[site], role);
        }
    }
    members.extend(
        attention
            .products
            .iter()
            .flatten()
            .filter_map(|n| index.by_node.get(n)),
    );
    Part::attention(members, attention::heads(view, attention, width), exported)
}

/// Gives the Linears of an MLP their roles.
pub(super) fn around_mlp(mlp: &Mlp, sites: &mut [Site], exported: &[Option<String>]) -> Part {
    for &fc1 in &mlp.fc1 {
        assign(&mut sites[fc1], Role::Fc1);
    }
    assign(&mut sites[mlp.fc2], Role::Fc2);
    Part::mlp(mlp, exported)
}

/// Finds the heads among the Linears that have no other role. One that ends an MLP is a head if an output is its result alone: a
/// classifier may be an MLP.
pub(super) fn heads(view: &View, sites: &mut [Site], index: &Index) {
    for output in head::heads(view, &index.results) {
        let alone = output.len() == 1;
        for i in output {
            let role = &mut sites[i].role;
            if *role == Role::Other || *role == Role::Fc2 && alone {
                *role = Role::Head;
            }
        }
    }
}

fn assign(site: &mut Site, role: Role) {
    if site.role == Role::Other {
        site.role = role;
    }
}

/// The one Linear that an attention's operand comes from.
fn source(view: &View, operand: Outlet, index: &Index) -> Option<usize> {
    let found = view.behind(
        operand,
        |value| index.results.contains_key(&value),
        projection,
    );
    match Vec::from_iter(&found)[..] {
        [one] => index.results.get(one).copied(),
        _ => None,
    }
}
