//! Einsum of one or two operands: axes that both have and the result lacks are multiplied out, as one product of matrices.

use candle_core::{Result, Tensor, bail};

use super::call::Call;

/// An Einsum without repeated or elided labels.
pub fn einsum(call: &Call<'_>) -> Result<Tensor> {
    let equation: String = call.op.string("equation").unwrap_or_default().into();
    let equation: String = equation.split_whitespace().collect();
    let Some((operands, result)) = equation.split_once("->") else {
        bail!("learning knows no gradient of Einsum {equation:?}")
    };
    let labels: Vec<Vec<char>> = operands.split(',').map(|it| it.chars().collect()).collect();
    let result: Vec<char> = result.chars().collect();
    let plain = |labels: &[char]| {
        let repeated = |(i, label): (usize, &char)| labels[..i].contains(label);
        labels.iter().all(char::is_ascii_alphabetic) && !labels.iter().enumerate().any(repeated)
    };
    if !labels.iter().all(|it| plain(it)) || !plain(&result) {
        bail!("learning knows no gradient of Einsum {equation:?}")
    }
    match &labels[..] {
        [a] => reduced(call.float(0)?, a, &result)?.arranged(&result),
        [a, b] => product(
            &reduced(call.float(0)?, a, &[&result[..], b].concat())?,
            &reduced(call.float(1)?, b, &[&result[..], a].concat())?,
            &result,
        ),
        _ => bail!("learning knows no gradient of Einsum {equation:?}"),
    }
}

/// A tensor whose axes have labels.
struct Labelled {
    tensor: Tensor,
    labels: Vec<char>,
}

/// Without the axes that are not `wanted`: summed.
fn reduced(x: &Tensor, labels: &[char], wanted: &[char]) -> Result<Labelled> {
    if labels.len() != x.rank() {
        bail!("Einsum labels {labels:?} do not fit {:?}", x.dims())
    }
    let (mut tensor, mut left) = (x.clone(), labels.to_vec());
    for axis in (0..labels.len()).rev() {
        if !wanted.contains(&labels[axis]) {
            tensor = tensor.sum(axis)?;
            left.remove(axis);
        }
    }
    Ok(Labelled {
        tensor,
        labels: left,
    })
}

impl Labelled {
    fn size(&self, label: char) -> usize {
        let place = self.labels.iter().position(|it| *it == label);
        place.map_or(1, |axis| self.tensor.dims()[axis])
    }

    /// With its axes in another order.
    fn arranged(&self, order: &[char]) -> Result<Tensor> {
        let place = |label: &char| self.labels.iter().position(|it| it == label);
        let Some(axes) = order.iter().map(place).collect::<Option<Vec<_>>>() else {
            bail!("Einsum: its result has a label that no operand has")
        };
        self.tensor.permute(axes)?.contiguous()
    }
}

fn product(a: &Labelled, b: &Labelled, result: &[char]) -> Result<Tensor> {
    let of = |x: &Labelled, both: bool, kept: bool, other: &Labelled| -> Vec<char> {
        let labels = x.labels.iter().copied();
        labels
            .filter(|it| other.labels.contains(it) == both && result.contains(it) == kept)
            .collect()
    };
    let (shared, summed) = (of(a, true, true, b), of(a, true, false, b));
    let (rows, columns) = (of(a, false, true, b), of(b, false, true, a));
    let sizes = |x: &Labelled, labels: &[char]| -> Vec<usize> {
        labels.iter().map(|&it| x.size(it)).collect()
    };
    let count = |x: &Labelled, labels: &[char]| -> usize { sizes(x, labels).iter().product() };
    let left = a.arranged(&[&shared[..], &rows, &summed].concat())?;
    let right = b.arranged(&[&shared[..], &summed, &columns].concat())?;
    let (batch, k) = (count(a, &shared), count(a, &summed));
    let left = left.reshape((batch, count(a, &rows), k))?;
    let right = right.reshape((batch, k, count(b, &columns)))?;
    let dims = [sizes(a, &shared), sizes(a, &rows), sizes(b, &columns)].concat();
    let y = Labelled {
        tensor: left.matmul(&right)?.reshape(dims)?,
        labels: [&shared[..], &rows, &columns].concat(),
    };
    y.arranged(result)
}
