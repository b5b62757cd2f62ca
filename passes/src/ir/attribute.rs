//! Reading and writing an operator's attributes.

use vitq_onnx::pb::{AttributeProto, NodeProto, attribute_proto::AttributeType};
use vitq_onnx::{AttributeMsg, Tensor};

use super::Op;

impl Op {
    /// An operator of the standard domain with one output, named as the node.
    pub fn new(op_type: &str, name: &str) -> Self {
        let message = NodeProto {
            op_type: Some(op_type.into()),
            name: Some(name.into()),
            ..Default::default()
        };
        Op {
            message: message.into(),
            outputs: vec![name.to_owned()],
        }
    }

    /// The same operator with other output names (bases: they are made unique when it is added).
    #[must_use]
    pub fn with_outputs(mut self, outputs: &[&str]) -> Self {
        self.outputs = outputs.iter().map(|&o| o.to_owned()).collect();
        self
    }

    /// The same operator in another domain.
    #[must_use]
    pub fn in_domain(mut self, domain: &str) -> Self {
        self.message.domain = Some(domain.into());
        self
    }

    /// The operator's type as ONNX spells it.
    pub fn op_type(&self) -> &str {
        self.message.op_type()
    }

    /// Whether this is `op_type` of the standard domain.
    pub fn is(&self, op_type: &str) -> bool {
        self.op_type() == op_type && matches!(self.message.domain(), "" | "ai.onnx")
    }

    /// The attribute's message.
    pub fn attribute(&self, name: &str) -> Option<&AttributeMsg> {
        self.message.attribute.iter().find(|a| a.name() == name)
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        self.attribute(name)?.i
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        self.attribute(name)?.f
    }

    /// A list of integers.
    pub fn ints(&self, name: &str) -> Option<&[i64]> {
        self.attribute(name).map(|a| a.ints.as_slice())
    }

    /// A string attribute, if it is UTF-8.
    pub fn string(&self, name: &str) -> Option<&str> {
        std::str::from_utf8(self.attribute(name)?.s.as_ref()?).ok()
    }

    /// A tensor attribute, decoded.
    pub fn tensor(&self, name: &str) -> Option<Tensor> {
        Tensor::from_proto(self.attribute(name)?.t.as_ref()?).ok()
    }

    /// Takes an attribute away.
    pub fn remove_attribute(&mut self, name: &str) {
        self.message.attribute.retain(|a| a.name() != name);
    }

    fn set(&mut self, name: &str, kind: AttributeType, fill: impl FnOnce(&mut AttributeProto)) {
        let mut attribute = AttributeProto {
            name: Some(name.into()),
            r#type: Some(kind as i32),
            ..Default::default()
        };
        fill(&mut attribute);
        self.remove_attribute(name);
        self.message.attribute.push(attribute.into());
    }

    /// With an integer attribute.
    #[must_use]
    pub fn with_int(mut self, name: &str, value: i64) -> Self {
        self.set(name, AttributeType::Int, |a| a.i = Some(value));
        self
    }

    /// With a float attribute.
    #[must_use]
    pub fn with_float(mut self, name: &str, value: f32) -> Self {
        self.set(name, AttributeType::Float, |a| a.f = Some(value));
        self
    }

    /// With a list of integers.
    #[must_use]
    pub fn with_ints(mut self, name: &str, value: &[i64]) -> Self {
        self.set(name, AttributeType::Ints, |a| a.ints = value.to_vec());
        self
    }

    /// With a string attribute.
    #[must_use]
    pub fn with_string(mut self, name: &str, value: &str) -> Self {
        self.set(name, AttributeType::String, |a| {
            a.s = Some(value.to_owned().into_bytes().into())
        });
        self
    }
}
