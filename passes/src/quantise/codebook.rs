//! Codebook quantiser of an activation: levels anywhere on the uint8 grid.
//!
//! ```text
//! x → reader   →   x → QuantizeLinear(uint8, fine step) → Cast(int32) → Gather(table) → DequantizeLinear(level step) → reader
//!
//! q = clamp(round(x/scale) + zero_point, 0, 255)        x̂ = (table[q] - level_zero)·level_scale
//! ```
//! The table sends each fine code to the nearest level, so the product behind it stays an integer one.

use vitq_onnx::Tensor;

use crate::ir::{Graph, Op, Outlet};
use crate::transform::{TransformError, check_lengths};

use super::uniform;

/// ONNX `TensorProto.DataType.INT32`
const INT32: i64 = 6;

/// A uint8 grid.
pub(super) struct Grid {
    pub scale: f32,
    pub zero_point: u8,
}

/// Writes the quantiser behind `value` and returns `x̂`.
pub(super) fn emit(
    graph: &mut Graph,
    name: &str,
    value: Outlet,
    fine: Grid,
    table: &[u8],
    levels: Grid,
) -> Result<Outlet, TransformError> {
    check_lengths(name, &[("codebook", table.len())], 256)?;
    let (fine_scale, fine_zero) =
        uniform::step(graph, &format!("{name}/fine"), fine.scale, fine.zero_point)?;
    let (scale, zero) = uniform::step(graph, name, levels.scale, levels.zero_point)?;
    let codes = graph.insert(
        "QuantizeLinear",
        &format!("{name}/QuantizeLinear"),
        &[value, fine_scale, fine_zero],
    );
    let table = graph.add_initializer(&format!("{name}/table"), &Tensor::from_u8(&[256], table));
    let codes = look_up(graph, name, table, codes);
    Ok(graph.insert(
        "DequantizeLinear",
        &format!("{name}/DequantizeLinear"),
        &[codes, scale, zero],
    ))
}

/// `table[codes]`: Gather wants indices of 32 bits.
pub(super) fn look_up(graph: &mut Graph, name: &str, table: Outlet, codes: Outlet) -> Outlet {
    let cast = Op::new("Cast", &format!("{name}/Cast")).with_int("to", INT32);
    let codes = graph.insert_op(cast, &[codes]);
    graph.insert("Gather", &format!("{name}/Gather"), &[table, codes])
}
