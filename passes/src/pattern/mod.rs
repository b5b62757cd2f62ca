//! Patterns, written as the expression that they match.
//!
//! ```
//! use vitq_passes::pattern::{Pattern, op, var};
//! let x = var("x");
//! let gelu = x.clone() * 0.5 * (op("Erf", [x / 2f32.sqrt()]) + 1.0);
//! # let _: Pattern = gelu;
//! ```
//!
//! A variable binds a value, the same variable the same value everywhere. Products and sums are chains: the
//! matcher tries every order and association of the graph's `Mul` and `Add`, reads `Div` and `Sub` by a number
//! as `Mul` and `Add`, and gathers scalar constants into one number that is compared with a tolerance.

mod matcher;
#[cfg(test)]
mod tests;

use std::ops::{Add, Div, Mul, Sub};
use std::rc::Rc;

pub use matcher::Match;

/// What a value may be computed from. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Pattern(Rc<Expression>);

#[derive(Debug)]
enum Expression {
    /// Any value that is no number.
    Variable(&'static str),
    /// A constant with one element.
    Number(f64),
    /// An operator on its first inputs.
    Op {
        domain: &'static str,
        op_type: &'static str,
        inputs: Vec<Pattern>,
    },
    /// A product or sum of terms and one number, in any order and association.
    Chain {
        kind: Chain,
        number: f64,
        terms: Vec<Pattern>,
    },
    /// The first alternative that fits.
    Either(Vec<Pattern>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Chain {
    Product,
    Sum,
}

impl Chain {
    /// The number that changes nothing.
    fn neutral(self) -> f64 {
        match self {
            Chain::Product => 1.0,
            Chain::Sum => 0.0,
        }
    }

    fn combine(self, a: f64, b: f64) -> f64 {
        match self {
            Chain::Product => a * b,
            Chain::Sum => a + b,
        }
    }

    /// What a number counts as behind a `Div` or `Sub`.
    fn invert(self, number: f64) -> f64 {
        match self {
            Chain::Product => 1.0 / number,
            Chain::Sum => -number,
        }
    }
}

/// A value, bound to `name`.
pub fn var(name: &'static str) -> Pattern {
    Pattern(Rc::new(Expression::Variable(name)))
}

/// A constant with one element.
pub fn number(value: f32) -> Pattern {
    Pattern(Rc::new(Expression::Number(value.into())))
}

/// An operator of the standard domain whose first inputs match in order.
pub fn op<const N: usize>(op_type: &'static str, inputs: [Pattern; N]) -> Pattern {
    op_in("", op_type, inputs)
}

/// An operator of another domain.
pub fn op_in<const N: usize>(
    domain: &'static str,
    op_type: &'static str,
    inputs: [Pattern; N],
) -> Pattern {
    Pattern(Rc::new(Expression::Op {
        domain,
        op_type,
        inputs: inputs.into(),
    }))
}

/// The first alternative that fits; optional parts are written so.
pub fn either<const N: usize>(alternatives: [Pattern; N]) -> Pattern {
    Pattern(Rc::new(Expression::Either(alternatives.into())))
}

impl Pattern {
    /// The pattern itself, or a `Cast` of it.
    pub fn or_cast(self) -> Pattern {
        either([self.clone(), op("Cast", [self])])
    }

    fn chain(kind: Chain, parts: [Pattern; 2]) -> Pattern {
        let mut number = kind.neutral();
        let mut terms = Vec::new();
        for part in parts {
            match &*part.0 {
                Expression::Number(value) => number = kind.combine(number, *value),
                Expression::Chain {
                    kind: inner,
                    number: value,
                    terms: more,
                } if *inner == kind => {
                    number = kind.combine(number, *value);
                    terms.extend(more.iter().cloned());
                }
                _ => terms.push(part),
            }
        }
        Pattern(Rc::new(Expression::Chain {
            kind,
            number,
            terms,
        }))
    }
}

impl Mul for Pattern {
    type Output = Pattern;

    fn mul(self, other: Pattern) -> Pattern {
        Pattern::chain(Chain::Product, [self, other])
    }
}

impl Mul<f32> for Pattern {
    type Output = Pattern;

    fn mul(self, value: f32) -> Pattern {
        self * number(value)
    }
}

impl Div<f32> for Pattern {
    type Output = Pattern;

    fn div(self, value: f32) -> Pattern {
        self * number(1.0 / value)
    }
}

impl Add for Pattern {
    type Output = Pattern;

    fn add(self, other: Pattern) -> Pattern {
        Pattern::chain(Chain::Sum, [self, other])
    }
}

impl Add<f32> for Pattern {
    type Output = Pattern;

    fn add(self, value: f32) -> Pattern {
        self + number(value)
    }
}

impl Sub<f32> for Pattern {
    type Output = Pattern;

    fn sub(self, value: f32) -> Pattern {
        self + number(-value)
    }
}
