//! A low-rank branch beside the rounded weight (AIQViT, arXiv 2502.04628).
//!
//! ```text
//! y → readers   →   Add(y, MatMul(MatMul(x, Aᵀ), Bᵀ)) → readers        A [r, in], B [out, r], float
//! ```
//! It reads the float input `x`, as its quantiser would: what the branch carries of the weight is spared the activation's error
//! as well (SVDQuant, arXiv 2411.05007), and nothing needs the codes in float. Declined: behind a patch embedding or an attention product.

use vitq_onnx::Tensor;

use crate::ir::{Graph, Outlet};
use crate::plan::LowRank;
use crate::structure::{Site, SiteKind};
use crate::transform::{TransformError, check_lengths, take_over, transposed};

/// Adds the branch, which reads the float `input` of `inputs` channels, to the `result` of `outputs` channels.
pub(super) fn emit(
    graph: &mut Graph,
    site: &Site,
    (input, result): (Outlet, Outlet),
    branch: &LowRank,
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
    let down = Tensor::from_f32(&[inputs, rank], &transposed(&branch.down, inputs));
    let up = Tensor::from_f32(&[rank, outputs], &transposed(&branch.up, rank));
    let down = graph.add_initializer(&format!("{name}/down"), &down);
    let up = graph.add_initializer(&format!("{name}/up"), &up);
    let inner = graph.insert("MatMul", &format!("{name}/down/MatMul"), &[input, down]);
    let outer = graph.insert("MatMul", &format!("{name}/up/MatMul"), &[inner, up]);
    let sum = graph.insert("Add", &format!("{name}/Add"), &[result, outer]);
    take_over(graph, result, sum);
    Ok(())
}
