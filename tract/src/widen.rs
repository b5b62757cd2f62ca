//! 4- and 2-bit tensors become 8-bit ones, since tract knows no smaller element.
//!
//! The numbers stay the same, so whatever reads such a tensor (Cast, Gather, DequantizeLinear, ...)
//! computes the same. Only QuantizeLinear takes its range from the type of its zero point: where that
//! was packed, the range is kept in the operator's `output_dtype`.

use std::collections::HashMap;

use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::type_proto::Value;
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use crate::qdq::CodeType;

/// A tensor of 4- or 2-bit numbers does not hold what its dims say.
#[derive(Clone, Debug, thiserror::Error)]
#[error("tensor `{name}`: {found} bytes, but its dims {dims:?} need {expected}")]
pub struct PackedLength {
    /// The tensor.
    pub name: String,
    /// Its dims as the file gives them.
    pub dims: Vec<i64>,
    /// Bytes in the file.
    pub found: usize,
    /// Bytes needed.
    pub expected: usize,
}

/// The packed type of each value that had one.
type Packed = HashMap<String, CodeType>;

/// Turns 4- and 2-bit tensors, which tract cannot hold, into 8-bit ones of the same numbers.
///
/// Sub-graphs are included. Do this before tract parses the model; models without such tensors stay as
/// they are.
pub fn widen(model: &mut ModelProto) -> Result<(), PackedLength> {
    match &mut model.graph {
        Some(graph) => widen_graph(graph, &Packed::new()),
        None => Ok(()),
    }
}

fn widen_graph(graph: &mut GraphProto, outer: &Packed) -> Result<(), PackedLength> {
    let mut packed = outer.clone();
    for input in &mut graph.input {
        if let Some(Value::TensorType(tensor)) =
            input.r#type.as_mut().and_then(|t| t.value.as_mut())
            && let Some(code) = CodeType::packed(tensor.elem_type)
        {
            tensor.elem_type = code.container_onnx();
            packed.insert(input.name.clone(), code);
        }
    }
    for tensor in &mut graph.initializer {
        if let Some(code) = widen_tensor(tensor)? {
            packed.insert(tensor.name.clone(), code);
        }
    }
    for node in &mut graph.node {
        widen_attributes(node, &mut packed)?;
        keep_range(node, &packed);
    }
    Ok(())
}

fn widen_attributes(node: &mut NodeProto, packed: &mut Packed) -> Result<(), PackedLength> {
    let output = node.output.first().cloned().unwrap_or_default();
    for attribute in &mut node.attribute {
        if let Some(tensor) = &mut attribute.t
            && let Some(code) = widen_tensor(tensor)?
        {
            packed.insert(output.clone(), code);
        }
        for graph in attribute.g.iter_mut().chain(&mut attribute.graphs) {
            widen_graph(graph, packed)?;
        }
    }
    Ok(())
}

fn keep_range(node: &mut NodeProto, packed: &Packed) {
    let zero_point = node.input.get(2).and_then(|name| packed.get(name));
    if let ("QuantizeLinear", Some(code)) = (node.op_type.as_str(), zero_point) {
        node.attribute.retain(|a| a.name != "output_dtype");
        node.attribute.push(AttributeProto {
            name: "output_dtype".to_owned(),
            r#type: AttributeType::Int as i32,
            i: code.onnx().into(),
            ..Default::default()
        });
    }
}

/// Unpacks in place; gives the type that the tensor had, if that was a packed one.
fn widen_tensor(tensor: &mut TensorProto) -> Result<Option<CodeType>, PackedLength> {
    let Some(code) = CodeType::packed(tensor.data_type) else {
        return Ok(None);
    };
    let bytes = if tensor.raw_data.is_empty() {
        // int32_data holds one packed byte an element (onnx.proto, TensorProto.int32_data).
        tensor.int32_data.iter().map(|&byte| byte as u8).collect()
    } else {
        std::mem::take(&mut tensor.raw_data)
    };
    tensor.raw_data = unpack(&tensor.name, &tensor.dims, &bytes, code)?;
    tensor.int32_data.clear();
    tensor.data_type = code.container_onnx();
    Ok(Some(code))
}

/// The first element stands in the lowest bits of a byte.
fn unpack(name: &str, dims: &[i64], bytes: &[u8], code: CodeType) -> Result<Vec<u8>, PackedLength> {
    let bits = code.bits();
    let count = dims
        .iter()
        .try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))
        .unwrap_or(usize::MAX);
    let expected = count.div_ceil(8 / bits);
    if bytes.len() != expected {
        let dims = dims.to_vec();
        return Err(PackedLength {
            name: name.to_owned(),
            dims,
            found: bytes.len(),
            expected,
        });
    }
    let element = |i: usize| {
        let field = bytes[i * bits / 8] >> (i * bits % 8) << (8 - bits);
        if code.is_signed() {
            (field as i8 >> (8 - bits)) as u8
        } else {
            field >> (8 - bits)
        }
    };
    Ok((0..count).map(element).collect())
}
