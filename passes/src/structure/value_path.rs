//! The way of V through an attention: which row of the Linear that makes it becomes which input of the Linear behind, head by head.
//!
//! ```text
//! Linear [.., tokens, 3·C] ─ Reshape, Transpose, Gather, Split … ─ V [.., heads, tokens, width] ─┐
//!                                                  attention [.., heads, tokens, tokens] ─ MatMul ─ Transpose, Reshape ─ Linear
//! ```
//! Between the two Linears only the tokens are mixed, so a matrix within a head's channels passes from one to the other.
//! Declines, without a word as nothing is lost but a rotation, where anything else reads V or computes with it (a convolution
//! beside the attention, a norm behind it), and where shapes that matter are unknown.

use super::roles::Index;
use super::view::View;
use super::{Site, SiteKind};
use crate::ir::{NodeId, Outlet, Slot};

/// V's way from Linear to Linear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ValuePath {
    /// The Linear that makes V (index into [`super::Structure::sites`]).
    pub maker: usize,
    /// The attention·V that it passes.
    pub product: usize,
    /// The Linear behind.
    pub reader: usize,
    /// Channels of a head.
    pub width: usize,
    /// The maker's row for each channel of each head, `[heads, width]`.
    pub rows: Vec<usize>,
    /// The reader's column, alike.
    pub columns: Vec<usize>,
}

/// The paths that V takes, in the order of their attention products.
pub(super) fn find_all(view: &View, sites: &[Site], index: &Index) -> Vec<ValuePath> {
    let linears = sites
        .iter()
        .enumerate()
        .filter(|(_, site)| site.kind == SiteKind::Linear);
    let mut paths: Vec<ValuePath> = linears
        .filter_map(|(maker, site)| from(view, sites, index, (maker, site)))
        .collect();
    paths.sort_by_key(|path| path.product);
    paths
}

fn from(
    view: &View,
    sites: &[Site],
    index: &Index,
    (maker, site): (usize, &Site),
) -> Option<ValuePath> {
    let rank = view.rank(site.output)?;
    let outputs = site.parameters.as_ref()?.outputs;
    let mut axes = vec![vec![Atom::other(None)]; rank.checked_sub(1)?];
    axes.push(vec![Atom {
        size: Some(outputs),
        stride: Some(1),
    }]);
    let ends = ends(view, site.output, Layout { axes, offset: 0 })?;
    let is_product = |end: &&End| {
        let site = index.by_node.get(&end.node).map(|&i| &sites[i]);
        end.slot == 1 && site.is_some_and(|site| site.kind == SiteKind::AttentionValue)
    };
    let mut products = ends.iter().filter(is_product);
    let (Some(end), None) = (products.next(), products.next()) else {
        return None;
    };
    let (rows, width) = end.layout.heads()?;
    let others = ends.iter().filter(|other| !std::ptr::eq(*other, end));
    if others
        .flat_map(|other| other.layout.rows())
        .any(|row| rows.contains(&row))
    {
        return None;
    }
    let (reader, behind) = behind(view, index, end)?;
    let inputs = behind.last_axis()?;
    let column = |row: &usize| inputs.iter().position(|it| it == row);
    let columns: Vec<usize> = rows.iter().map(column).collect::<Option<_>>()?;
    (inputs.len() == rows.len()).then_some(ValuePath {
        maker,
        product: *index.by_node.get(&end.node)?,
        reader,
        width,
        rows,
        columns,
    })
}

/// The Linear that alone reads the result of the attention·V at `end`, and how V's channels arrive there.
fn behind(view: &View, index: &Index, end: &End) -> Option<(usize, Layout)> {
    let result = Outlet {
        node: end.node,
        slot: 0,
    };
    let mut layout = end.layout.clone();
    if view.rank(result)? != layout.axes.len() {
        return None;
    }
    for (axis, dim) in layout.axes.iter_mut().zip(view.dims(result)?) {
        if !holds_rows(axis.iter()) {
            *axis = vec![Atom::other(dim)];
        }
    }
    let ends = ends(view, result, layout)?;
    let [
        End {
            node,
            slot: 0,
            layout,
        },
    ] = &ends[..]
    else {
        return None;
    };
    Some((*index.linears.get(node)?, layout.clone()))
}

/// Where channels are read by more than a change of layout.
struct End {
    node: NodeId,
    slot: usize,
    layout: Layout,
}

/// All ends of the ways on from `value`; `None` where it is a graph's output or read in a sub-graph.
fn ends(view: &View, value: Outlet, layout: Layout) -> Option<Vec<End>> {
    let mut ends = Vec::new();
    let mut stack = vec![(value, layout)];
    while let Some((value, layout)) = stack.pop() {
        if view.graph.is_output(value) {
            return None;
        }
        for reader in view.graph.readers(value) {
            let Slot::Input(slot) = reader.slot else {
                return None;
            };
            let node = reader.node;
            match passed(view, node, slot, &layout) {
                Some(passed) => stack.extend(passed),
                None if view.graph.is(node, "Shape") => {}
                None => ends.push(End {
                    node,
                    slot,
                    layout: layout.clone(),
                }),
            }
        }
    }
    Some(ends)
}

/// A part of an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Atom {
    size: Option<usize>,
    /// Rows of the maker from one to the next; `None` of batch and tokens.
    stride: Option<usize>,
}

impl Atom {
    fn other(size: Option<usize>) -> Atom {
        Atom { size, stride: None }
    }
}

/// Where the maker's rows are in a value: each axis is a product of atoms, the outermost first.
#[derive(Clone, Debug)]
struct Layout {
    axes: Vec<Vec<Atom>>,
    offset: usize,
}

impl Layout {
    /// The rows that atoms count, in their order.
    fn counted<'a>(&self, atoms: impl Iterator<Item = &'a Atom>) -> Vec<usize> {
        let mut rows = vec![self.offset];
        for atom in atoms {
            let (Some(size), Some(stride)) = (atom.size, atom.stride) else {
                continue;
            };
            rows = rows
                .into_iter()
                .flat_map(|row| (0..size).map(move |i| row + i * stride))
                .collect();
        }
        rows
    }

    fn rows(&self) -> Vec<usize> {
        self.counted(self.axes.iter().flatten())
    }

    /// Rows head by head, and how many a head has: its channels are the last axis.
    fn heads(&self) -> Option<(Vec<usize>, usize)> {
        let [.., tokens, last] = &self.axes[..] else {
            return None;
        };
        let width = last
            .iter()
            .map(|atom| atom.stride.and(atom.size))
            .product::<Option<usize>>()?;
        (width > 1 && !holds_rows(tokens.iter())).then(|| (self.rows(), width))
    }

    /// The rows along the last axis, if they are all there.
    fn last_axis(&self) -> Option<Vec<usize>> {
        let (last, before) = self.axes.split_last()?;
        let alone =
            last.iter().all(|atom| atom.stride.is_some()) && !holds_rows(before.iter().flatten());
        alone.then(|| self.counted(last.iter()))
    }

    fn axis(&self, axis: i64) -> Option<usize> {
        let rank = self.axes.len() as i64;
        let axis = if axis < 0 { axis + rank } else { axis };
        usize::try_from(axis).ok().filter(|&a| a < self.axes.len())
    }
}

fn holds_rows<'a>(mut atoms: impl Iterator<Item = &'a Atom>) -> bool {
    atoms.any(|atom| atom.stride.is_some())
}

/// The results of an operator that changes the layout alone; `None` for all others.
fn passed(
    view: &View,
    node: NodeId,
    slot: usize,
    layout: &Layout,
) -> Option<Vec<(Outlet, Layout)>> {
    let op = view.graph.op(node).filter(|_| slot == 0)?;
    let result = Outlet { node, slot: 0 };
    let after = match op.op_type() {
        "Identity" | "Dropout" => layout.clone(),
        "Transpose" => {
            let axes = op
                .ints("perm")?
                .iter()
                .map(|&p| Some(layout.axes[layout.axis(p)?].clone()));
            Layout {
                axes: axes.collect::<Option<_>>()?,
                ..*layout
            }
        }
        "Squeeze" => {
            let gone = view.integers(node, "axes", 1)?;
            let gone: Vec<usize> = gone
                .iter()
                .map(|&a| layout.axis(a))
                .collect::<Option<_>>()?;
            let kept = layout
                .axes
                .iter()
                .enumerate()
                .filter(|(i, _)| !gone.contains(i));
            Layout {
                axes: kept.map(|(_, axis)| axis.clone()).collect(),
                ..*layout
            }
        }
        "Unsqueeze" => unsqueezed(view.integers(node, "axes", 1)?, layout)?,
        "Flatten" | "Reshape" => reshaped(view, node, layout)?,
        "Gather" => gathered(view, node, op.int("axis").unwrap_or(0), layout)?,
        "Slice" => sliced(view, node, layout)?,
        "Split" => return split(view, node, op.int("axis").unwrap_or(0), layout),
        _ => return None,
    };
    Some(vec![(result, after)])
}

fn unsqueezed(axes: Vec<i64>, layout: &Layout) -> Option<Layout> {
    let rank = layout.axes.len() + axes.len();
    let place = |a: i64| usize::try_from(if a < 0 { a + rank as i64 } else { a }).ok();
    let new: Vec<usize> = axes.into_iter().map(place).collect::<Option<_>>()?;
    let mut old = layout.axes.iter();
    let axes = (0..rank).map(|i| {
        if new.contains(&i) {
            Some(vec![Atom::other(Some(1))])
        } else {
            old.next().cloned()
        }
    });
    Some(Layout {
        axes: axes.collect::<Option<_>>()?,
        ..*layout
    })
}

/// One index is taken out of an axis.
fn gathered(view: &View, node: NodeId, axis: i64, layout: &Layout) -> Option<Layout> {
    let axis = layout.axis(axis)?;
    let index = view.graph.input(node, 1)?;
    if view.rank(index)? != 0 {
        return None;
    }
    let mut after = layout.clone();
    let taken = after.axes.remove(axis);
    if !holds_rows(taken.iter()) {
        return Some(after);
    }
    let index = view.graph.tensor(index)?.to_i64().ok()?;
    let part = part_of(&taken, index.first().copied()?, 1)?;
    after.offset += part.1;
    Some(after)
}

/// `length` from `start` of an axis: its atom and how far its first row is from the axis's.
fn part_of(axis: &[Atom], start: i64, length: usize) -> Option<(Atom, usize)> {
    let [
        Atom {
            size: Some(size),
            stride: Some(stride),
        },
    ] = *axis
    else {
        return None;
    };
    let start = usize::try_from(if start < 0 {
        start + size as i64
    } else {
        start
    })
    .ok()?;
    let fits = start.checked_add(length)? <= size;
    fits.then_some((
        Atom {
            size: Some(length),
            stride: Some(stride),
        },
        start * stride,
    ))
}

fn split(view: &View, node: NodeId, axis: i64, layout: &Layout) -> Option<Vec<(Outlet, Layout)>> {
    let axis = layout.axis(axis)?;
    let is_of_rows = holds_rows(layout.axes[axis].iter());
    let mut start = 0;
    let part = |value: Outlet| {
        let length = *view.dims(value)?.get(axis)?;
        let mut after = layout.clone();
        if is_of_rows {
            let (atom, offset) = part_of(&layout.axes[axis], start as i64, length?)?;
            (after.axes[axis], start) = (vec![atom], start + length?);
            after.offset += offset;
        } else {
            after.axes[axis] = vec![Atom::other(length)];
        }
        Some((value, after))
    };
    view.outputs(node).map(part).collect()
}

fn sliced(view: &View, node: NodeId, layout: &Layout) -> Option<Layout> {
    let given = |name, i| view.integers(node, name, i);
    let (starts, ends) = (given("starts", 1)?, given("ends", 2)?);
    let axes = given("axes", 3).or_else(|| {
        view.graph
            .input(node, 3)
            .is_none()
            .then(|| (0..starts.len() as i64).collect())
    })?;
    let steps = given("steps", 4).or_else(|| {
        view.graph
            .input(node, 4)
            .is_none()
            .then(|| vec![1; starts.len()])
    })?;
    let dims = view.dims(Outlet { node, slot: 0 })?;
    let mut after = layout.clone();
    for (((axis, start), end), step) in axes.into_iter().zip(starts).zip(ends).zip(steps) {
        let axis = layout.axis(axis)?;
        if !holds_rows(layout.axes[axis].iter()) {
            after.axes[axis] = vec![Atom::other(dims[axis])];
            continue;
        }
        let length = usize::try_from(end.checked_sub(start)?).ok();
        let length = dims[axis].or(length).filter(|_| step == 1)?;
        let (atom, offset) = part_of(&layout.axes[axis], start, length)?;
        after.axes[axis] = vec![atom];
        after.offset += offset;
    }
    Some(after)
}

/// Elements keep their order: atoms are dealt out to the new axes from the last one on, and split where an axis ends in one.
fn reshaped(view: &View, node: NodeId, layout: &Layout) -> Option<Layout> {
    let dims = view.dims(Outlet { node, slot: 0 })?;
    let mut left: Vec<Atom> = layout
        .axes
        .iter()
        .flatten()
        .copied()
        .filter(|atom| atom.size != Some(1))
        .collect();
    let mut axes = Vec::with_capacity(dims.len());
    for (place, dim) in dims.iter().enumerate().rev() {
        let axis = match dim {
            _ if !holds_rows(left.iter()) => vec![Atom::other(*dim)],
            // The first axis takes what is left.
            None if place == 0 => std::mem::take(&mut left),
            None => return None,
            Some(size) => dealt(&mut left, *size)?,
        };
        axes.push(axis);
    }
    axes.reverse();
    (!holds_rows(left.iter())).then_some(Layout { axes, ..*layout })
}

/// The last atoms, `size` elements of them.
fn dealt(left: &mut Vec<Atom>, size: usize) -> Option<Vec<Atom>> {
    let (mut axis, mut wanted) = (Vec::new(), size);
    while wanted > 1 {
        let atom = left.pop()?;
        let has = atom.size?;
        if wanted % has == 0 {
            axis.push(atom);
            wanted /= has;
        } else if has % wanted == 0 {
            left.push(Atom {
                size: Some(has / wanted),
                stride: atom.stride.map(|s| s * wanted),
            });
            axis.push(Atom {
                size: Some(wanted),
                ..atom
            });
            wanted = 1;
        } else {
            return None;
        }
    }
    axis.reverse();
    Some(axis)
}
