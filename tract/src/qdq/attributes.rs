use tract_core::internal::*;
use tract_onnx::pb::NodeProto;

/// What both operators are told by their attributes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Axis of the scales where there is more than one; counts from the end if negative.
    pub axis: i64,
    /// Elements along `axis` that share a scale; 0: not blocked.
    pub block_size: usize,
    /// A value of `TensorProto.DataType`, if the node states one.
    pub output_dtype: Option<i32>,
}

impl Attributes {
    /// Reads them with the defaults of the ONNX specification.
    pub fn read(node: &NodeProto) -> TractResult<Self> {
        let block_size: i64 = node.get_attr_opt("block_size")?.unwrap_or(0);
        Ok(Self {
            axis: node.get_attr_opt("axis")?.unwrap_or(1),
            block_size: usize::try_from(block_size)
                .map_err(|_| format_err!("block_size is negative: {block_size}"))?,
            output_dtype: node
                .get_attr_opt("output_dtype")?
                .filter(|&dtype| dtype != 0),
        })
    }
}

/// 2 or 3: an empty name at the end stands for an input that is not there.
pub fn arity(node: &NodeProto) -> usize {
    node.input.iter().filter(|name| !name.is_empty()).count()
}
