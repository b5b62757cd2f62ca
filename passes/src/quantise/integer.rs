//! A Linear whose product is an integer one as it stands in the graph.
//!
//! ```text
//! Add(MatMul(DQ(x), DQ(W)), b)
//!   →  Add(Mul(Cast(MatMulInteger(x, W, zero point of x [, of W])), s_x·s_w[c]), b)
//! ```
//! Where scales are computed (`Scales::Computed`), `s_x·s_w[c]` is `Mul(one, s_x·s_w[c])`: ONNX Runtime 1.31 makes one operator, the
//! bias inside, of a product whose scales are a Mul at run time, and folds a Mul of constants away before it looks. Of
//! dequantised operands it makes an operator without the bias, whose Add (and DequantizeLinear) it runs apart: DeiT-S 2.45
//! times as fast as float so, 2.63 with the bias inside.
//! `x` and `W` are the codes in front of the DequantizeLinears, which go where nobody else reads them. The bias stays float:
//! it is added behind the scale.

use vitq_onnx::{DataType, Tensor};

use crate::ir::{Graph, Op, Outlet};
use crate::structure::Site;
use crate::transform::{TransformError, set_bias, take_over};

use super::bias::Fitted;

/// The scales `s_x·s_w[c]`, times a factor if there is one.
pub(super) fn scales(
    graph: &mut Graph,
    site: &Site,
    fitted: &Fitted,
    factor: Option<Outlet>,
) -> Outlet {
    let name = format!("{}/scale", site.name);
    let scales = Tensor::from_f32(&[fitted.scale.len()], &fitted.scale);
    let scales = graph.add_initializer(&name, &scales);
    match factor {
        Some(factor) => graph.insert("Mul", &format!("{name}/Mul"), &[factor, scales]),
        None => scales,
    }
}

/// Puts the integer product in the place of the site's MatMul and adds `bias`; `input` and `kernel` are the dequantised
/// operands. Returns the site's result.
pub(super) fn emit(
    graph: &mut Graph,
    site: &Site,
    (input, kernel): (Outlet, Outlet),
    (fitted, scales): (&Fitted, Outlet),
    bias: Outlet,
) -> Result<Outlet, TransformError> {
    let name = &site.name;
    let operand = |graph: &Graph, value: Outlet, i| {
        let codes = graph.input(value.node, i);
        codes.ok_or_else(|| {
            TransformError::new(
                name,
                "its operands have no codes: report this as a fault of vitq",
            )
        })
    };
    let mut operands = vec![
        operand(graph, input, 0)?,
        operand(graph, kernel, 0)?,
        operand(graph, input, 2)?,
    ];
    if !fitted.weight.zero_point.is_empty() {
        operands.push(operand(graph, kernel, 2)?);
    }
    let sums = graph.insert("MatMulInteger", &format!("{name}/MatMulInteger"), &operands);
    let cast = Op::new("Cast", &format!("{name}/Cast")).with_int("to", DataType::Float as i64);
    let float = graph.insert_op(cast, &[sums]);
    let scaled = graph.insert("Mul", &format!("{name}/Mul"), &[float, scales]);
    let product = Outlet {
        node: site.node,
        slot: 0,
    };
    let result = set_bias(graph, site, bias)?;
    take_over(graph, product, scaled);
    Ok(result)
}
