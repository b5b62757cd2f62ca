//! What a graph says about its inputs.

use vitq_onnx::pb::tensor_proto::DataType;
use vitq_onnx::pb::tensor_shape_proto::dimension::Value as Dim;
use vitq_onnx::pb::type_proto::Value as Type;
use vitq_onnx::{ValueInfoMsg, pb};
use vitq_passes::ir::Graph;

use crate::input::{ElementType, ModelInput};

/// Elements of one run of a model: 4 GiB of `f32`. More comes from a broken file only, and would be allocated first.
const MAX_ELEMENTS: usize = 1 << 30;
/// Samples of one run.
const MAX_BATCH: usize = 1 << 12;

/// The inputs in order; the error says which cannot be fed and why.
pub fn read(graph: &Graph) -> Result<Vec<ModelInput>, String> {
    let infos = graph.inputs().filter_map(|value| graph.value_info(value));
    let inputs = infos.map(input).collect::<Result<Vec<_>, _>>()?;
    if inputs.is_empty() {
        return Err("it has no inputs, so that nothing can be fed to it".into());
    }
    Ok(inputs)
}

fn input(info: &ValueInfoMsg) -> Result<ModelInput, String> {
    let name = info.name();
    let Some(Type::TensorType(tensor)) = info.r#type.as_ref().and_then(|kind| kind.value.as_ref())
    else {
        return Err(format!(
            "input `{name}` is no tensor; only tensors can be fed"
        ));
    };
    let Some(shape) = &tensor.shape else {
        return Err(format!(
            "input `{name}` has no shape; export the model with the shapes of its inputs"
        ));
    };
    let dims: Vec<_> = shape.dim.iter().map(|dim| extent(dim)).collect();
    let elements = dims
        .iter()
        .flatten()
        .try_fold(1usize, |product, &extent| product.checked_mul(extent));
    let batch = dims.first().copied().flatten().unwrap_or(1);
    if elements.is_none_or(|elements| elements > MAX_ELEMENTS) || batch > MAX_BATCH {
        return Err(format!(
            "input `{name}` is larger than what can be fed ({batch} samples at once); export the model with a smaller or symbolic batch"
        ));
    }
    Ok(ModelInput {
        name: name.into(),
        dims,
        element: element(name, tensor.elem_type())?,
    })
}

fn extent(dim: &pb::tensor_shape_proto::Dimension) -> Option<usize> {
    match dim.value.as_ref()? {
        // Some exporters write 0 or -1 for "any".
        Dim::DimValue(extent) => usize::try_from(*extent).ok().filter(|&extent| extent > 0),
        Dim::DimParam(_) => None,
    }
}

fn element(name: &str, code: i32) -> Result<ElementType, String> {
    match DataType::try_from(code) {
        Ok(DataType::Float) => Ok(ElementType::F32),
        Ok(DataType::Int64) => Ok(ElementType::I64),
        Ok(DataType::Int32) => Ok(ElementType::I32),
        Ok(DataType::Bool) => Ok(ElementType::Bool),
        Ok(DataType::Uint8) => Ok(ElementType::U8),
        Ok(other) => Err(format!(
            "input `{name}` takes {}, which is not fed; export the model in float32",
            other.as_str_name()
        )),
        Err(_) => Err(format!(
            "input `{name}` has the unknown element type {code}"
        )),
    }
}
