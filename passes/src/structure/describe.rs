//! The structure for people ([`Structure`]'s `Display`) and for programs ([`StructureSummary`]).

use std::fmt;

use serde::Serialize;

use super::{Block, Declined, Norm, Role, Site, SiteKind, Structure};

/// A structure without graph ids: what `vitq inspect --json` prints.
#[derive(Clone, Debug, Serialize)]
pub struct StructureSummary {
    /// Edge of a patch in pixels, where it is square.
    pub patch: Option<usize>,
    /// Height and width of a patch in pixels.
    pub patch_size: Option<[usize; 2]>,
    /// Number of outputs of the head.
    pub classes: Option<usize>,
    /// Number of MLPs.
    pub mlps: usize,
    /// Blocks in order.
    pub blocks: Vec<BlockSummary>,
    /// Sites outside of any block.
    pub sites: Vec<SiteSummary>,
    /// LayerNormalizations in order.
    pub norms: Vec<NormSummary>,
    /// Candidates that were declined.
    pub declined: Vec<Declined>,
}

/// One block.
#[derive(Clone, Debug, Serialize)]
pub struct BlockSummary {
    /// `blocks.7`
    pub path: String,
    /// Attention heads.
    pub heads: Option<usize>,
    /// Width of the residual stream.
    pub width: Option<usize>,
    /// Width inside the MLP.
    pub hidden: Option<usize>,
    /// Its sites in order.
    pub sites: Vec<SiteSummary>,
}

/// One site.
#[derive(Clone, Debug, Serialize)]
pub struct SiteSummary {
    /// Name of the node.
    pub name: String,
    /// As a person says it.
    pub path: String,
    /// Kind of product.
    pub kind: SiteKind,
    /// What it does.
    pub role: Role,
    /// Columns of the weight; `None` for a product of activations.
    pub inputs: Option<usize>,
    /// Rows of the weight; `None` for a product of activations.
    pub outputs: Option<usize>,
    /// Name of the LayerNormalization that it reads.
    pub norm: Option<String>,
}

/// One LayerNormalization.
#[derive(Clone, Debug, Serialize)]
pub struct NormSummary {
    /// Name of the node.
    pub name: String,
    /// Names of the Linears that read it.
    pub sites: Vec<String>,
    /// Why its scale cannot be folded, if it cannot.
    pub declined: Option<String>,
}

impl Structure {
    /// The structure as plain data.
    pub fn summary(&self) -> StructureSummary {
        let sites = |indices: &[usize]| indices.iter().map(|&i| self.summary_of(i)).collect();
        StructureSummary {
            patch: self.patch.filter(|[h, w]| h == w).map(|[h, _]| h),
            patch_size: self.patch,
            classes: self.classes(),
            mlps: self.mlps,
            blocks: self
                .blocks
                .iter()
                .map(|b| BlockSummary {
                    path: b.path.clone(),
                    heads: b.heads,
                    width: b.width,
                    hidden: b.hidden,
                    sites: sites(&b.sites),
                })
                .collect(),
            sites: sites(&self.outside()),
            norms: self
                .norms
                .iter()
                .map(|n| NormSummary {
                    name: n.name.clone(),
                    sites: n
                        .sites
                        .iter()
                        .map(|&i| self.sites[i].name.clone())
                        .collect(),
                    declined: n.declined.clone(),
                })
                .collect(),
            declined: self.declined.clone(),
        }
    }

    fn summary_of(&self, i: usize) -> SiteSummary {
        let site = &self.sites[i];
        SiteSummary {
            name: site.name.clone(),
            path: site.path.clone(),
            kind: site.kind,
            role: site.role,
            inputs: site.parameters.as_ref().map(|p| p.inputs),
            outputs: site.parameters.as_ref().map(|p| p.outputs),
            norm: site.norm.map(|n| self.norms[n].name.clone()),
        }
    }

    /// Number of outputs of the head.
    pub fn classes(&self) -> Option<usize> {
        let head = self.sites.iter().rfind(|s| s.role == Role::Head)?;
        head.parameters.as_ref().map(|p| p.outputs)
    }

    /// Sites of no block.
    fn outside(&self) -> Vec<usize> {
        let inside = |i: &usize| self.blocks.iter().any(|b| b.sites.contains(i));
        (0..self.sites.len()).filter(|i| !inside(i)).collect()
    }

    fn count(&self, kind: SiteKind) -> usize {
        self.sites.iter().filter(|s| s.kind == kind).count()
    }

    /// `ViT: patch 16, width 192, 12 blocks, 3 heads, MLP 768, 1000 classes`
    fn headline(&self) -> String {
        let over = |of: fn(&Block) -> Option<usize>| range(self.blocks.iter().filter_map(of));
        let parts = [
            self.patch.map(|[h, w]| match h == w {
                true => format!("patch {h}"),
                false => format!("patch {h}×{w}"),
            }),
            over(|b| b.width).map(|w| format!("width {w}")),
            Some(counted(self.blocks.len(), "block")),
            over(|b| b.heads).map(|h| format!("{h} heads")),
            over(|b| b.hidden).map(|h| format!("MLP {h}")),
            self.classes().map(|c| format!("{c} classes")),
        ];
        let parts: Vec<String> = parts.into_iter().flatten().collect();
        format!("ViT: {}", parts.join(", "))
    }
}

impl fmt::Display for Structure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.headline())?;
        let folds = self.norms.iter().filter(|n| n.declined.is_none()).count();
        writeln!(
            f,
            "{}, {} Q·Kᵀ, {} attention·V, {}; {}, {folds} of them fold into Linears",
            counted(self.count(SiteKind::Linear), "Linear"),
            self.count(SiteKind::QueryKey),
            self.count(SiteKind::AttentionValue),
            counted(self.mlps, "MLP"),
            counted(self.norms.len(), "LayerNormalization"),
        )?;
        let outside = self.outside();
        let first = self.blocks.iter().filter_map(|b| b.sites.first()).min();
        let (before, after): (Vec<usize>, Vec<usize>) = outside
            .into_iter()
            .partition(|i| first.is_none_or(|first| i < first));
        self.write_sites(f, &before)?;
        for block in &self.blocks {
            let sites: Vec<String> = block
                .sites
                .iter()
                .map(|&i| short(&self.sites[i], &block.path, &self.norms))
                .collect();
            writeln!(f, "  {}: {}", block.path, sites.join(", "))?;
        }
        self.write_sites(f, &after)?;
        if !self.declined.is_empty() {
            writeln!(f, "declined:")?;
        }
        for Declined {
            node,
            op_type,
            reason,
        } in &self.declined
        {
            writeln!(f, "  {node} ({op_type}): {reason}")?;
        }
        Ok(())
    }
}

impl Structure {
    fn write_sites(&self, f: &mut fmt::Formatter<'_>, sites: &[usize]) -> fmt::Result {
        for &i in sites {
            writeln!(f, "  {}", short(&self.sites[i], "", &self.norms))?;
        }
        Ok(())
    }
}

/// `attn.qkv 192×576 (norm)`; the path without the block's.
fn short(site: &Site, block: &str, norms: &[Norm]) -> String {
    let path = site
        .path
        .strip_prefix(block)
        .unwrap_or(&site.path)
        .trim_start_matches('.');
    let size = site
        .parameters
        .as_ref()
        .map(|p| format!(" {}×{}", p.inputs, p.outputs));
    let folds = site.norm.is_some_and(|n| norms[n].declined.is_none());
    format!(
        "{path}{}{}",
        size.unwrap_or_default(),
        if folds { " (norm folds)" } else { "" }
    )
}

/// `12 blocks`, `1 block`
fn counted(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// `192`, or `96..768` where the blocks differ.
fn range(values: impl Iterator<Item = usize> + Clone) -> Option<String> {
    let (low, high) = (values.clone().min()?, values.max()?);
    Some(if low == high {
        low.to_string()
    } else {
        format!("{low}..{high}")
    })
}
