//! A low-rank branch beside the rounded weight (AIQViT, arXiv 2502.04628).
//!
//! ```text
//! y → readers   →   Add(y, MatMul(MatMul(x, Aᵀ), Bᵀ)) → readers        A [r, in], B [out, r]
//! int8 codes → Cast → Mul(scale[r] or scale[out])                         where 8 bits are planned, and the target folds that
//! ```
//! Runtimes that fold constants when they load a model multiply by plain floats then; a DequantizeLinear they would keep.
//!
//! It reads the float input `x`, as its quantiser would: what the branch carries of the weight is spared the activation's error
//! as well (SVDQuant, arXiv 2411.05007), and nothing needs the codes in float. Declined: behind a patch embedding or an attention product.

use vitq_onnx::Tensor;

use crate::ir::{Graph, Op, Outlet};
use crate::plan::{LowRank, code, row_scale};
use crate::structure::{Site, SiteKind};
use crate::target::Target;
use crate::transform::{TransformError, check_lengths, take_over, transposed};

/// ONNX `TensorProto.DataType.FLOAT`
const FLOAT: i64 = 1;

/// Adds the branch, which reads the float `input` of `inputs` channels, to the `result` of `outputs` channels.
pub(super) fn emit(
    graph: &mut Graph,
    site: &Site,
    (input, result): (Outlet, Outlet),
    (branch, target): (&LowRank, &Target),
    (inputs, outputs): (usize, usize),
) -> Result<(), TransformError> {
    if site.kind != SiteKind::Linear {
        return Err(TransformError::new(
            &site.name,
            "a low-rank branch stands behind Linears only: plan it without one",
        ));
    }
    let rank = branch.rank;
    check_lengths(
        &site.name,
        &[("low-rank factor A", branch.down.len())],
        rank * inputs,
    )?;
    check_lengths(
        &site.name,
        &[("low-rank factor B", branch.up.len())],
        rank * outputs,
    )?;
    let name = format!("{}/low_rank", site.name);
    let stored = match branch.bits == 8 && target.folds_codes {
        true => codes,
        false => floats,
    };
    let down = stored(graph, &format!("{name}/down"), &branch.down, inputs);
    let up = stored(graph, &format!("{name}/up"), &branch.up, rank);
    let inner = graph.insert("MatMul", &format!("{name}/down/MatMul"), &[input, down]);
    let outer = graph.insert("MatMul", &format!("{name}/up/MatMul"), &[inner, up]);
    let sum = graph.insert("Add", &format!("{name}/Add"), &[result, outer]);
    take_over(graph, result, sum);
    Ok(())
}

/// A factor of `k` columns as it is, turned.
fn floats(graph: &mut Graph, name: &str, factor: &[f32], k: usize) -> Outlet {
    let rows = factor.len() / k.max(1);
    graph.add_initializer(name, &Tensor::from_f32(&[k, rows], &transposed(factor, k)))
}

/// Its codes and the scales of its rows.
fn codes(graph: &mut Graph, name: &str, factor: &[f32], k: usize) -> Outlet {
    let rows = factor.chunks_exact(k.max(1));
    let scales: Vec<f32> = rows.clone().map(row_scale).collect();
    let codes = rows
        .zip(&scales)
        .flat_map(|(row, &scale)| row.iter().map(move |&v| code(v, scale)));
    let codes: Vec<i8> = codes.collect();
    let codes = Tensor::from_i8(&[k, scales.len()], &transposed(&codes, k));
    let codes = graph.add_initializer(&format!("{name}/codes"), &codes);
    let scales = Tensor::from_f32(&[scales.len()], &scales);
    let scales = graph.add_initializer(&format!("{name}/scale"), &scales);
    let cast = Op::new("Cast", &format!("{name}/Cast")).with_int("to", FLOAT);
    let cast = graph.insert_op(cast, &[codes]);
    graph.insert("Mul", &format!("{name}/Mul"), &[cast, scales])
}
