//! The model as a person sees it: sites that can be quantised, norms that can be folded, blocks, and what was declined.

mod activation;
mod attention;
mod blocks;
mod channels;
mod describe;
mod gelu;
mod head;
mod linear;
mod mlp;
mod norm;
mod patch_embed;
mod paths;
mod recognise;
mod rms_norm;
mod roles;
mod stream;
#[cfg(test)]
mod tests;
mod value_path;
mod view;

use serde::Serialize;

pub use describe::{BlockSummary, NormSummary, SiteSummary, StreamSummary, StructureSummary};
pub use gelu::{Gelu, find_all as find_gelus};
pub use recognise::recognise;
pub use stream::{Constant, Stream};
pub use value_path::ValuePath;

use crate::ir::{NodeId, Outlet};

/// What kind of product a site is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SiteKind {
    /// `MatMul(x, W) (+ bias)` with constant `W`.
    Linear,
    /// A Conv on the network's input whose kernel equals its stride: a Linear on patches.
    PatchEmbed,
    /// Q·Kᵀ: the product whose result reaches a Softmax.
    QueryKey,
    /// attention·V: Softmax → MatMul.
    AttentionValue,
}

/// What a Linear does in the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Query, key and value at once.
    Qkv,
    /// Query alone.
    Query,
    /// Key alone.
    Key,
    /// Value alone.
    Value,
    /// Reads the attention's result.
    Proj,
    /// First Linear of an MLP.
    Fc1,
    /// Second Linear of an MLP: reads the activation function.
    Fc2,
    /// Its result is a graph output.
    Head,
    /// The patch embedding.
    PatchEmbed,
    /// Not a Linear: an attention product.
    Product,
    /// None of the others.
    Other,
}

/// The constant operand of a Linear or patch embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameters {
    /// MatMul: `[in, out]`; Conv: `[out, in, kh, kw]`.
    pub weight: Outlet,
    /// `[out]`
    pub bias: Option<Outlet>,
    /// Columns of `W`: `in`, or `in·kh·kw` of a Conv.
    pub inputs: usize,
    /// Rows of `W`.
    pub outputs: usize,
    /// `[kh, kw]` of a Conv.
    pub patch: Option<[usize; 2]>,
}

/// The unit of everything: a product that can be quantised.
#[derive(Clone, Debug)]
pub struct Site {
    /// Name of the product's node (unique; made up where the file has none).
    pub name: String,
    /// As a person says it: `blocks.7.mlp.fc2`.
    pub path: String,
    /// Kind of product.
    pub kind: SiteKind,
    /// What it does.
    pub role: Role,
    /// The MatMul or Conv.
    pub node: NodeId,
    /// First operand, or the only one that is no constant.
    pub activation: Outlet,
    /// Second operand of an attention product.
    pub second: Option<Outlet>,
    /// Constant operand of a Linear or patch embedding.
    pub parameters: Option<Parameters>,
    /// Result, bias included.
    pub output: Outlet,
    /// Index into [`Structure::norms`] of the LayerNormalization that it reads, directly or through a choice or mean
    /// of tokens.
    pub norm: Option<usize>,
}

/// A LayerNormalization or RMSNorm.
#[derive(Clone, Debug)]
pub struct Norm {
    /// Name of the node (unique).
    pub name: String,
    /// The LayerNormalization or RMSNormalization; of an RMSNorm in parts the Mul by its scale.
    pub node: NodeId,
    /// The node's input that is the scale.
    pub scale: usize,
    /// The node's input that is the shift, or would be if it were not left out; none of an RMSNorm, whose channels can be
    /// scaled alone.
    pub shift: Option<usize>,
    /// Linears that read it (indices into [`Structure::sites`]); of a norm that is split, those on the split side.
    pub sites: Vec<usize>,
    /// Where others than Linears read it too: the readers, each with its input, that a copy of the norm for the Linears
    /// takes over. Empty where a fold may change the norm itself.
    pub split: Vec<(NodeId, usize)>,
    /// Why its scale cannot be folded, if it cannot.
    pub declined: Option<String>,
}

/// A transformer block.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// `blocks.7`
    pub path: String,
    /// Indices into [`Structure::sites`], in order.
    pub sites: Vec<usize>,
    /// Attention heads, where the shapes tell.
    pub heads: Option<usize>,
    /// Width of the residual stream.
    pub width: Option<usize>,
    /// Width inside the MLP.
    pub hidden: Option<usize>,
}

/// A candidate that could have matched and did not.
#[derive(Clone, Debug, Serialize)]
pub struct Declined {
    /// The node as a person finds it.
    pub node: String,
    /// Its operator.
    pub op_type: String,
    /// Why, and what would mend it.
    pub reason: String,
}

/// Everything that was recognised.
#[derive(Clone, Debug, Default)]
pub struct Structure {
    /// Sites in topological order.
    pub sites: Vec<Site>,
    /// LayerNormalizations and RMSNorms in topological order.
    pub norms: Vec<Norm>,
    /// Residual streams, in the order of the first norms that read them.
    pub streams: Vec<Stream>,
    /// Ways of V through the attentions, in the order of their products.
    pub value_paths: Vec<ValuePath>,
    /// Blocks in order.
    pub blocks: Vec<Block>,
    /// Number of MLPs (Linear → activation function → Linear).
    pub mlps: usize,
    /// Height and width of a patch in pixels.
    pub patch: Option<[usize; 2]>,
    /// Candidates that were declined, norms among them, in topological order.
    pub declined: Vec<Declined>,
}
