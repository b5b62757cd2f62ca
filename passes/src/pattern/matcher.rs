//! Matching a pattern against the expression behind a value, with backtracking.

use std::collections::{BTreeMap, BTreeSet};

use super::{Chain, Expression, Pattern};
use crate::ir::{Graph, NodeId, Outlet};

/// Constants as exporters print them differ in their last digits, in float16 in the fourth.
const TOLERANCE: f64 = 1e-3;

/// How many nested `Mul` or `Add` are flattened: far more than any formula has, far less than a residual stream.
const DEPTH: usize = 12;

/// A place where a pattern fits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Match {
    bindings: BTreeMap<&'static str, Outlet>,
    nodes: BTreeSet<NodeId>,
}

impl Match {
    /// What a variable stands for.
    pub fn get(&self, variable: &str) -> Option<Outlet> {
        self.bindings.get(variable).copied()
    }

    /// The operators that the pattern covers; what its variables stand for is not among them.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.nodes.iter().copied()
    }

    fn bind(&self, name: &'static str, value: Outlet) -> Option<Match> {
        let mut bound = self.clone();
        (*bound.bindings.entry(name).or_insert(value) == value).then_some(bound)
    }

    fn covering(&self, nodes: impl IntoIterator<Item = NodeId>) -> Match {
        let mut covering = self.clone();
        covering.nodes.extend(nodes);
        covering
    }
}

impl Pattern {
    /// Fits the pattern to the expression that computes `value`.
    pub fn find(&self, graph: &Graph, value: Outlet) -> Option<Match> {
        self.solve(graph, value, &Match::default())
            .into_iter()
            .next()
    }

    /// Every way in which the pattern fits and that agrees with what is bound already.
    fn solve(&self, graph: &Graph, value: Outlet, so_far: &Match) -> Vec<Match> {
        match &*self.0 {
            Expression::Variable(_) if scalar(graph, value).is_some() => Vec::new(),
            Expression::Variable(name) => so_far.bind(name, value).into_iter().collect(),
            Expression::Number(wanted) => match scalar(graph, value) {
                Some(found) if close(found, *wanted) => vec![so_far.clone()],
                _ => Vec::new(),
            },
            Expression::Op {
                domain,
                op_type,
                inputs,
            } => solve_op(graph, value, so_far, domain, op_type, inputs),
            Expression::Chain {
                kind,
                number,
                terms,
            } => flatten(graph, *kind, value, terms.len(), DEPTH)
                .into_iter()
                .filter(|flat| flat.leaves.len() == terms.len() && close(flat.number, *number))
                .flat_map(|flat| assign(graph, terms, &flat.leaves, &so_far.covering(flat.nodes)))
                .collect(),
            Expression::Either(alternatives) => alternatives
                .iter()
                .flat_map(|a| a.solve(graph, value, so_far))
                .collect(),
        }
    }
}

fn solve_op(
    graph: &Graph,
    value: Outlet,
    so_far: &Match,
    domain: &str,
    op_type: &str,
    inputs: &[Pattern],
) -> Vec<Match> {
    let fits = |op: &crate::ir::Op| match domain {
        "" => op.is(op_type),
        _ => op.message.domain() == domain && op.op_type() == op_type,
    };
    if value.slot != 0 || !graph.op(value.node).is_some_and(fits) {
        return Vec::new();
    }
    let mut states = vec![so_far.covering([value.node])];
    for (i, pattern) in inputs.iter().enumerate() {
        let Some(input) = graph.input(value.node, i) else {
            return Vec::new();
        };
        states = states
            .iter()
            .flat_map(|s| pattern.solve(graph, input, s))
            .collect();
    }
    states
}

/// Gives each term one of the leaves, in every way that fits.
fn assign(graph: &Graph, terms: &[Pattern], leaves: &[Outlet], so_far: &Match) -> Vec<Match> {
    let Some((term, rest)) = terms.split_first() else {
        return vec![so_far.clone()];
    };
    let mut found = Vec::new();
    for (i, &leaf) in leaves.iter().enumerate() {
        let others: Vec<Outlet> = [&leaves[..i], &leaves[i + 1..]].concat();
        for state in term.solve(graph, leaf, so_far) {
            found.extend(assign(graph, rest, &others, &state));
        }
    }
    found
}

/// One way to read a value as a product or sum.
#[derive(Clone)]
struct Flat {
    number: f64,
    leaves: Vec<Outlet>,
    nodes: Vec<NodeId>,
}

/// Every way to read a value as a chain of at most `most` leaves: a nested `Mul` may be taken apart, or be what a
/// variable stands for.
fn flatten(graph: &Graph, kind: Chain, value: Outlet, most: usize, depth: usize) -> Vec<Flat> {
    if let Some(number) = scalar(graph, value) {
        return vec![Flat {
            number,
            leaves: Vec::new(),
            nodes: Vec::new(),
        }];
    }
    let mut ways = Vec::new();
    if most > 0 {
        ways.push(Flat {
            number: kind.neutral(),
            leaves: vec![value],
            nodes: Vec::new(),
        });
    }
    let Some((left, right, inverse)) = operands(graph, kind, value) else {
        return ways;
    };
    if depth == 0 {
        return ways;
    }
    for a in flatten(graph, kind, left, most, depth - 1) {
        for mut b in flatten(graph, kind, right, most - a.leaves.len(), depth - 1) {
            if inverse && !b.leaves.is_empty() {
                continue;
            }
            if inverse {
                b.number = kind.invert(b.number);
            }
            ways.push(Flat {
                number: kind.combine(a.number, b.number),
                leaves: [a.leaves.clone(), b.leaves].concat(),
                nodes: [vec![value.node], a.nodes.clone(), b.nodes].concat(),
            });
        }
    }
    ways
}

/// The two sides of a `Mul` or `Add`; the flag says that the second one is divided by or subtracted.
fn operands(graph: &Graph, kind: Chain, value: Outlet) -> Option<(Outlet, Outlet, bool)> {
    let op = graph.op(value.node)?;
    let (plain, inverse) = match kind {
        Chain::Product => ("Mul", "Div"),
        Chain::Sum => ("Add", "Sub"),
    };
    if !op.is(plain) && !op.is(inverse) {
        return None;
    }
    Some((
        graph.input(value.node, 0)?,
        graph.input(value.node, 1)?,
        op.is(inverse),
    ))
}

/// The number behind a constant with one element.
fn scalar(graph: &Graph, value: Outlet) -> Option<f64> {
    let one = graph.constant_dims(value)?.iter().all(|&d| d == 1);
    one.then(|| {
        graph
            .tensor(value)?
            .to_f32()
            .ok()?
            .first()
            .copied()
            .map(f64::from)
    })?
}

fn close(found: f64, wanted: f64) -> bool {
    (found - wanted).abs() <= TOLERANCE * wanted.abs() + 1e-7
}
