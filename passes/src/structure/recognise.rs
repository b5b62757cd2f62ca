//! The recognisers one after the other.

use std::collections::{HashMap, HashSet};

use super::attention::{self, Attention};
use super::linear::{self, MatMul};
use super::roles::{self, Index};
use super::view::View;
use super::{Declined, Norm, Role, Site, Structure};
use super::{activation, blocks, mlp, norm, patch_embed, paths, stream, value_path};
use crate::ir::{Graph, NodeId, Op, Outlet};

/// Recognises the structure of a graph that [`crate::simplify`] went over.
///
/// Never fails: what does not match is listed in [`Structure::declined`].
pub fn recognise(graph: &Graph) -> Structure {
    let view = View::new(graph);
    let order = graph.topological().unwrap_or_default();
    let mut found = Found::default();
    found.find_attentions(&view, &order);
    found.find_sites(&view, &order);
    let index = Index::new(&found.sites);
    found.find_norms(&view, &order, &index);

    let exported: Vec<_> = found
        .sites
        .iter()
        .map(|s| paths::exported(graph, s))
        .collect();
    let mut parts = Vec::new();
    for attention in &found.attentions {
        let sites = &mut found.sites;
        parts.push(roles::around_attention(
            &view, attention, sites, &index, &exported,
        ));
    }
    let activations = activation::find_all(graph);
    let mlps: Vec<_> = activations
        .iter()
        .filter_map(|a| mlp::around(&view, a, &index))
        .collect();
    for mlp in &mlps {
        parts.push(roles::around_mlp(mlp, &mut found.sites, &exported));
    }
    roles::heads(&view, &mut found.sites, &index);

    let streams = stream::find_all(&view, &found.sites, &found.norms, &index);
    let value_paths = value_path::find_all(&view, &found.sites, &index);
    let blocks = blocks::group(&parts, &found.sites, &exported);
    name(graph, &mut found.sites, &mut found.norms);
    blocks::name_paths(&mut found.sites, &blocks, &exported);
    Structure {
        patch: found
            .sites
            .iter()
            .filter(|s| s.role == Role::PatchEmbed)
            .find_map(|s| s.parameters.as_ref()?.patch),
        declined: found.declined(graph, &order),
        sites: found.sites,
        norms: found.norms,
        streams,
        value_paths,
        blocks,
        mlps: mlps.len(),
    }
}

#[derive(Default)]
struct Found {
    attentions: Vec<Attention>,
    sites: Vec<Site>,
    norms: Vec<Norm>,
    /// Why a node is no site.
    reasons: HashMap<NodeId, String>,
}

impl Found {
    fn find_attentions(&mut self, view: &View, order: &[NodeId]) {
        for &node in order {
            let Some(op) = view.graph.op(node) else {
                continue;
            };
            if op.is("Softmax") {
                match attention::around_softmax(view, node) {
                    Ok(attention) => self.attentions.push(attention),
                    Err(reason) => {
                        self.reasons.insert(node, reason);
                    }
                }
            } else if let Some(attention) = attention::fused(view, node) {
                self.attentions.push(attention);
            }
        }
    }

    fn find_sites(&mut self, view: &View, order: &[NodeId]) {
        let mut products: HashMap<NodeId, Site> = self
            .attentions
            .iter()
            .flat_map(|a| attention::sites(view, a))
            .map(|site| (site.node, site))
            .collect();
        for &node in order {
            let Some(op) = view.graph.op(node) else {
                continue;
            };
            let candidate = op.is("MatMul") || op.is("Conv");
            let site = if candidate && view.is_fixed(node) {
                Err(FIXED.to_owned())
            } else if op.is("MatMul") {
                match linear::recognise(view, node) {
                    MatMul::Linear(site) => Ok(*site),
                    MatMul::Product => products.remove(&node).ok_or_else(|| PRODUCT.to_owned()),
                    MatMul::Declined(reason) => Err(reason),
                }
            } else if op.is("Conv") {
                patch_embed::recognise(view, node)
            } else if let Some(reason) = other(view, node, op) {
                Err(reason)
            } else {
                continue;
            };
            match site {
                Ok(site) => self.sites.push(site),
                Err(reason) => {
                    self.reasons.insert(node, reason);
                }
            }
        }
    }

    fn find_norms(&mut self, view: &View, order: &[NodeId], index: &Index) {
        for &node in order {
            let Some(norm) = norm::recognise(view, node, &index.linears) else {
                continue;
            };
            if let Some(reason) = &norm.declined {
                self.reasons.insert(node, reason.clone());
            }
            self.norms.push(norm);
        }
        norm::link(&mut self.sites, &self.norms);
    }

    fn declined(&self, graph: &Graph, order: &[NodeId]) -> Vec<Declined> {
        let declined = |node: &NodeId| {
            Some(Declined {
                node: graph.label(*node),
                op_type: graph.op(*node)?.op_type().to_owned(),
                reason: self.reasons.get(node)?.clone(),
            })
        };
        order.iter().filter_map(declined).collect()
    }
}

const FIXED: &str = "its result is the same for every image, so there is nothing to calibrate; compute it once: \
     export with a fixed batch and fold constants (onnxsim)";
const PRODUCT: &str =
    "a product of two activations that is neither Q·Kᵀ nor attention·V; it stays float";

/// Why an operator that computes a product, but none of the usual ones, is no site.
fn other(view: &View, node: NodeId, op: &Op) -> Option<String> {
    if op.is("Gemm") {
        return Some(gemm(view, node, op));
    }
    let fused = "holds several products in one operator";
    let mend = match (op.message.domain(), op.op_type()) {
        ("", "Attention") => "export with an opset below 23 to have them apart",
        ("", "Einsum") => "write it as a MatMul in the model's code",
        ("com.microsoft", "QAttention" | "QGemm" | "MatMulNBits" | "DynamicQuantizeMatMul")
        | ("", "QLinearMatMul" | "QLinearConv" | "MatMulInteger" | "ConvInteger") => {
            return Some("it is quantised already: give the float model".into());
        }
        (
            "com.microsoft",
            "Attention"
            | "FusedConv"
            | "FusedGemm"
            | "FusedMatMul"
            | "MultiHeadAttention"
            | "SkipLayerNormalization"
            | "EmbedLayerNormalization"
            | "BiasGelu"
            | "PackedAttention",
        ) => "give the model as it was exported, before ONNX Runtime's optimiser fused it",
        _ => return None,
    };
    Some(format!("{fused}; {mend}"))
}

fn gemm(view: &View, node: NodeId, op: &Op) -> String {
    let constant = |i| {
        view.graph
            .input(node, i)
            .is_some_and(|v| view.is_constant(v))
    };
    if constant(0) {
        "the constant is the first operand; only x·W with a constant W is a Linear".into()
    } else if !constant(1) {
        "its weight is not constant".into()
    } else if op.int("transA").unwrap_or(0) != 0 {
        "its input is transposed (transA)".into()
    } else {
        "it was not rewritten as MatMul and Add: its bias is no constant row, or its weight no \
         float matrix"
            .into()
    }
}

/// Gives sites and norms the names of their nodes, made up where the file has none.
fn name(graph: &Graph, sites: &mut [Site], norms: &mut [Norm]) {
    let mut taken = HashSet::new();
    let named = sites.iter_mut().map(|s| (s.node, &mut s.name));
    for (node, name) in named.chain(norms.iter_mut().map(|n| (n.node, &mut n.name))) {
        let Some(op) = graph.op(node) else { continue };
        let base = match op.message.name() {
            "" => format!("{}_{}", op.op_type(), graph.name(Outlet { node, slot: 0 })),
            given => given.to_owned(),
        };
        *name = paths::unique(&mut taken, &base);
    }
}
