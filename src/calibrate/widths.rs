//! Widths chosen site by site, in place of one pair for all.

use std::collections::BTreeMap;
use std::fmt;

/// What becomes of a site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Width {
    /// It stays float.
    Float,
    /// Bits of weights and of activations, 2 to 8 each.
    Bits(u32, u32),
}

/// Widths by node name. Sites without one follow the settings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Widths(BTreeMap<String, Width>);

impl Widths {
    /// The width of a site, where it has one of its own.
    pub fn get(&self, site: &str) -> Option<Width> {
        self.0.get(site).copied()
    }

    /// The narrowest weights and the narrowest activations of all; 8 where there are none.
    pub fn narrowest(&self) -> (u32, u32) {
        let all = self.0.values().filter_map(|width| match width {
            Width::Float => None,
            Width::Bits(weights, activations) => Some((*weights, *activations)),
        });
        all.fold((8, 8), |(w, a), (weights, activations)| {
            (w.min(weights), a.min(activations))
        })
    }
}

impl FromIterator<(String, Width)> for Widths {
    fn from_iter<I: IntoIterator<Item = (String, Width)>>(widths: I) -> Self {
        Self(widths.into_iter().collect())
    }
}

impl fmt::Display for Width {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Width::Float => write!(f, "float"),
            Width::Bits(weights, activations) => write!(f, "w{weights}a{activations}"),
        }
    }
}
