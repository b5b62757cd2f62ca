//! Blocks: one attention and one MLP, grouped by the exporter's paths where it kept them, else by order.

use std::collections::HashSet;

use super::mlp::Mlp;
use super::paths::{is_index, pieces, under, unique};
use super::{Block, Role, Site, SiteKind};

/// An attention or MLP as a part of a block.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub is_attention: bool,
    /// Indices of its sites, ascending.
    pub sites: Vec<usize>,
    /// What the exported paths of its sites have in common.
    path: Option<String>,
    heads: Option<usize>,
}

impl Part {
    /// The projections and products of an attention; `sites` are those of the whole network.
    pub fn attention(
        members: Vec<usize>,
        heads: Option<usize>,
        exported: &[Option<String>],
    ) -> Part {
        Part {
            heads,
            ..Part::new(true, members, exported)
        }
    }

    /// The Linears of an MLP.
    pub fn mlp(mlp: &Mlp, exported: &[Option<String>]) -> Part {
        let members = mlp.fc1.iter().copied().chain([mlp.fc2]);
        Part::new(false, members.collect(), exported)
    }

    fn new(is_attention: bool, mut sites: Vec<usize>, exported: &[Option<String>]) -> Part {
        sites.sort_unstable();
        sites.dedup();
        let path = common(sites.iter().filter_map(|&i| exported[i].as_deref()));
        Part {
            is_attention,
            sites,
            path,
            heads: None,
        }
    }

    /// The path of the block that an attention stands in: its deepest numbered prefix with an MLP under it
    /// (`layers.3.0` may be the attention alone), else its deepest numbered prefix.
    fn block_path(&self, parts: &[&Part]) -> Option<String> {
        let path = self.path.as_deref().filter(|_| self.is_attention)?;
        let pieces = pieces(path);
        let numbered: Vec<String> = (1..=pieces.len())
            .rev()
            .filter(|&n| is_index(pieces[n - 1]))
            .map(|n| pieces[..n].join("."))
            .collect();
        let mlps = || {
            parts
                .iter()
                .filter(|p| !p.is_attention)
                .filter_map(|p| p.path.as_deref())
        };
        numbered
            .iter()
            .find(|prefix| mlps().any(|mlp| under(mlp, prefix)))
            .or(numbered.first())
            .cloned()
    }
}

/// The longest common prefix of paths, by pieces.
fn common<'a>(mut paths: impl Iterator<Item = &'a str>) -> Option<String> {
    let mut prefix = pieces(paths.next()?);
    for path in paths {
        let same = prefix
            .iter()
            .zip(pieces(path))
            .take_while(|(a, b)| **a == *b)
            .count();
        prefix.truncate(same);
    }
    (!prefix.is_empty()).then(|| prefix.join("."))
}

#[derive(Default)]
struct Group {
    path: Option<String>,
    sites: Vec<usize>,
    heads: Option<usize>,
    mlps: usize,
}

/// The blocks, in the order of their first site. A site that the exporter put under a block's path belongs to it,
/// whatever its role.
pub(super) fn group(parts: &[Part], sites: &[Site], exported: &[Option<String>]) -> Vec<Block> {
    let mut groups = gather(parts);
    for (i, path) in exported.iter().enumerate() {
        if groups.iter().any(|g| g.sites.contains(&i)) {
            continue;
        }
        let owner = |g: &&mut Group| matches!((path, &g.path), (Some(p), Some(b)) if under(p, b));
        // A block may stand inside of another: the innermost owns the site.
        let owners = groups.iter_mut().filter(owner);
        if let Some(group) = owners.max_by_key(|g| g.path.as_ref().map(String::len)) {
            group.sites.push(i);
        }
    }
    for group in &mut groups {
        group.sites.sort_unstable();
        group.sites.dedup();
    }
    groups.sort_by_key(|g| g.sites.first().copied());
    groups
        .into_iter()
        .enumerate()
        .map(|(i, group)| block(i, group, sites))
        .collect()
}

fn gather(parts: &[Part]) -> Vec<Group> {
    let mut parts: Vec<&Part> = parts.iter().collect();
    parts.sort_by_key(|p| p.sites.first().copied());
    let paths: Vec<Option<String>> = parts.iter().map(|p| p.block_path(&parts)).collect();
    let mut groups: Vec<Group> = Vec::new();
    for (part, own) in parts.iter().zip(&paths) {
        let path = own.clone().or_else(|| {
            let path = part.path.as_deref()?;
            paths.iter().flatten().find(|p| under(path, p)).cloned()
        });
        let place = match &path {
            Some(path) => groups.iter().position(|g| g.path.as_ref() == Some(path)),
            None if part.is_attention => None,
            None => match groups.iter().rposition(|g| g.mlps == 0) {
                Some(place) => Some(place),
                None => continue,
            },
        };
        let place = place.unwrap_or_else(|| {
            groups.push(Group {
                path,
                ..Group::default()
            });
            groups.len() - 1
        });
        groups[place].take(part);
    }
    groups
}

impl Group {
    fn take(&mut self, part: &Part) {
        self.sites.extend(&part.sites);
        self.heads = self.heads.or(part.heads);
        self.mlps += usize::from(!part.is_attention);
    }
}

fn block(index: usize, group: Group, sites: &[Site]) -> Block {
    let parameters = |roles: &[Role]| {
        let site = group
            .sites
            .iter()
            .map(|&i| &sites[i])
            .find(|s| roles.contains(&s.role))?;
        site.parameters.as_ref()
    };
    Block {
        path: group.path.unwrap_or_else(|| format!("blocks.{index}")),
        heads: group.heads,
        width: parameters(&[Role::Proj, Role::Fc2]).map(|p| p.outputs),
        hidden: parameters(&[Role::Fc1]).map(|p| p.outputs),
        sites: group.sites,
    }
}

/// Gives every site a path: the exporter's, else one made of its block and role.
pub(super) fn name_paths(sites: &mut [Site], blocks: &[Block], exported: &[Option<String>]) {
    let mut taken = HashSet::new();
    for (i, site) in sites.iter_mut().enumerate() {
        let block = blocks
            .iter()
            .find(|b| b.sites.contains(&i))
            .map(|b| b.path.as_str());
        let product = match site.kind {
            SiteKind::QueryKey => Some("qk"),
            SiteKind::AttentionValue => Some("av"),
            _ => None,
        };
        let base = match (&exported[i], product, block) {
            (Some(path), None, _) => path.clone(),
            (Some(path), Some(product), _) => format!("{path}.{product}"),
            (None, _, Some(block)) => format!("{block}.{}", usual_name(site)),
            (None, _, None) => usual_name(site).to_owned(),
        };
        site.path = unique(&mut taken, &base);
    }
}

/// What timm calls such a module.
fn usual_name(site: &Site) -> &'static str {
    match (site.role, site.kind) {
        (_, SiteKind::QueryKey) => "attn.qk",
        (_, SiteKind::AttentionValue) => "attn.av",
        (_, SiteKind::PatchEmbed) => "patch_embed",
        (Role::Qkv, _) => "attn.qkv",
        (Role::Query, _) => "attn.query",
        (Role::Key, _) => "attn.key",
        (Role::Value, _) => "attn.value",
        (Role::Proj, _) => "attn.proj",
        (Role::Fc1, _) => "mlp.fc1",
        (Role::Fc2, _) => "mlp.fc2",
        (Role::Head, _) => "head",
        _ => "linear",
    }
}
