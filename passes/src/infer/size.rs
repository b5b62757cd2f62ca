//! Sizes: numbers, symbols, products of both.

use std::fmt::{Display, Formatter, Result};

/// One dimension.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Dim {
    /// A number.
    Known(usize),
    /// The same unknown number wherever the symbol stands: `batch`, or a product such as `197*batch`.
    Symbol(String),
    /// Any number.
    Unknown,
}

/// One element of an integer vector.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Entry {
    /// A number.
    Known(i64),
    /// The size that the symbol stands for (see [`Dim::Symbol`]); never negative.
    Symbol(String),
    /// Any number.
    Unknown,
}

impl Dim {
    /// The number, if it is one.
    pub fn known(&self) -> Option<usize> {
        match self {
            Dim::Known(size) => Some(*size),
            _ => None,
        }
    }

    /// Whether both are surely the same number.
    pub fn same(&self, other: &Dim) -> bool {
        self == other && *self != Dim::Unknown
    }
}

impl Display for Dim {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Dim::Known(size) => write!(f, "{size}"),
            Dim::Symbol(symbol) => f.write_str(symbol),
            Dim::Unknown => f.write_str("?"),
        }
    }
}

impl Entry {
    /// The number, if it is one.
    pub fn known(&self) -> Option<i64> {
        match self {
            Entry::Known(value) => Some(*value),
            _ => None,
        }
    }

    /// As a dimension; a negative number is none.
    pub fn to_dim(&self) -> Dim {
        match self {
            Entry::Known(value) => usize::try_from(*value).map_or(Dim::Unknown, Dim::Known),
            Entry::Symbol(symbol) => Dim::Symbol(symbol.clone()),
            Entry::Unknown => Dim::Unknown,
        }
    }
}

impl From<&Dim> for Entry {
    fn from(dim: &Dim) -> Self {
        match dim {
            Dim::Known(size) => i64::try_from(*size).map_or(Entry::Unknown, Entry::Known),
            Dim::Symbol(symbol) => Entry::Symbol(symbol.clone()),
            Dim::Unknown => Entry::Unknown,
        }
    }
}

/// A product of sizes: a number times symbols, sorted.
struct Product {
    factor: usize,
    symbols: Vec<String>,
}

impl Product {
    fn of<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Option<Product> {
        let mut product = Product {
            factor: 1,
            symbols: Vec::new(),
        };
        for dim in dims {
            match dim {
                Dim::Known(size) => product.factor = product.factor.checked_mul(*size)?,
                Dim::Symbol(text) => {
                    for part in text.split('*') {
                        match part.parse::<usize>() {
                            Ok(size) => product.factor = product.factor.checked_mul(size)?,
                            Err(_) => product.symbols.push(part.to_owned()),
                        }
                    }
                }
                Dim::Unknown => return None,
            }
        }
        product.symbols.sort();
        Some(product)
    }

    fn to_dim(&self) -> Dim {
        match (self.factor, self.symbols.join("*")) {
            (factor, symbols) if symbols.is_empty() || factor == 0 => Dim::Known(factor),
            (1, symbols) => Dim::Symbol(symbols),
            (factor, symbols) => Dim::Symbol(format!("{factor}*{symbols}")),
        }
    }
}

/// The product of sizes.
pub(super) fn product<'a>(dims: impl IntoIterator<Item = &'a Dim>) -> Dim {
    Product::of(dims).map_or(Dim::Unknown, |p| p.to_dim())
}

/// The product of `all` divided by that of `rest`, where it is a size.
pub(super) fn quotient(all: &[Dim], rest: &[Dim]) -> Dim {
    let divide = || {
        let (mut all, rest) = (Product::of(all)?, Product::of(rest)?);
        for symbol in &rest.symbols {
            let at = all.symbols.iter().position(|s| s == symbol)?;
            all.symbols.remove(at);
        }
        if rest.factor == 0 || all.factor % rest.factor != 0 {
            return None;
        }
        all.factor /= rest.factor;
        Some(all.to_dim())
    };
    divide().unwrap_or(Dim::Unknown)
}

/// One dimension of two that are broadcast together.
fn broadcast_dim(a: &Dim, b: &Dim) -> Dim {
    match (a, b) {
        (Dim::Known(1), other) | (other, Dim::Known(1)) => other.clone(),
        (Dim::Known(size), _) | (_, Dim::Known(size)) => Dim::Known(*size),
        _ if a.same(b) => a.clone(),
        _ => Dim::Unknown,
    }
}

/// The shape of two that are broadcast together.
pub(super) fn broadcast(a: &[Dim], b: &[Dim]) -> Vec<Dim> {
    let rank = a.len().max(b.len());
    let at = |dims: &[Dim], i: usize| {
        let missing = rank - dims.len();
        if i < missing {
            Dim::Known(1)
        } else {
            dims[i - missing].clone()
        }
    };
    (0..rank)
        .map(|i| broadcast_dim(&at(a, i), &at(b, i)))
        .collect()
}

/// Inferred dimensions, those that are unknown taken from the declared ones.
pub(super) fn refine(inferred: Option<Vec<Dim>>, declared: Option<Vec<Dim>>) -> Option<Vec<Dim>> {
    match (inferred, declared) {
        (Some(inferred), Some(declared)) if inferred.len() == declared.len() => {
            let better = |(a, b): (Dim, Dim)| match (a, b) {
                (Dim::Unknown, b) | (Dim::Symbol(_), b @ Dim::Known(_)) => b,
                (a, _) => a,
            };
            Some(inferred.into_iter().zip(declared).map(better).collect())
        }
        (Some(inferred), _) => Some(inferred),
        (None, declared) => declared,
    }
}
