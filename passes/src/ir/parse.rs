//! Text → graph: the syntax of ONNX (`docs/Syntax.md` of the ONNX repository).
//!
//! Understood: the model header, inputs and outputs, initialisers, value types, nodes with attributes and
//! sub-graphs. Not understood: functions and external data. 16-bit floats and narrower are written by their
//! bits, 4- and 2-bit elements as packed bytes, as ONNX's own parser has it.

use thiserror::Error;
use vitq_onnx::pb::attribute_proto::AttributeType;
use vitq_onnx::pb::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
};
use vitq_onnx::pb::{
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, tensor_shape_proto, type_proto,
};
use vitq_onnx::{GraphMsg, Model, TensorMsg};

use super::Graph;
use super::element::{Element, Store};

/// Where and why a text is no graph.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("line {line}, column {column}: {message}")]
pub struct ParseError {
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What was expected.
    pub message: String,
}

type Parsed<T> = Result<T, ParseError>;

/// Sub-graphs nest no deeper: the parser is recursive.
const MAX_DEPTH: usize = 32;

impl Graph {
    /// Reads a model in ONNX's textual syntax.
    ///
    /// # Errors
    /// With the place of the first thing that is not understood; a text whose graph does not hold together
    /// (a value that nothing produces, a cycle) fails at its end.
    pub fn parse(text: &str) -> Result<Graph, ParseError> {
        let mut parser = Parser {
            text,
            at: 0,
            depth: 0,
        };
        let model = parser.model()?;
        parser.space();
        if parser.at < text.len() {
            return parser.fail("the end of the model (functions are not understood)");
        }
        Graph::import(&model).map_err(|e| parser.error(e.to_string()))
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
}

enum Literal {
    Int(i128),
    Float(f64),
    Text(String),
}

impl Parser<'_> {
    fn error(&self, message: String) -> ParseError {
        let before = &self.text[..self.at];
        let line_start = before.rfind('\n').map_or(0, |i| i + 1);
        ParseError {
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            message,
        }
    }

    fn fail<T>(&self, wanted: &str) -> Parsed<T> {
        let found: String = self.text[self.at..].chars().take(12).collect();
        Err(self.error(format!("expected {wanted}, found {found:?}")))
    }

    /// Skips white space and `#` comments.
    fn space(&mut self) {
        loop {
            let rest = &self.text[self.at..];
            let trimmed = rest.trim_start();
            self.at += rest.len() - trimmed.len();
            if !trimmed.starts_with('#') {
                return;
            }
            self.at += trimmed.find('\n').unwrap_or(trimmed.len());
        }
    }

    fn peek(&mut self) -> Option<char> {
        self.space();
        self.text[self.at..].chars().next()
    }

    fn next_is(&mut self, token: &str) -> bool {
        self.space();
        self.text[self.at..].starts_with(token)
    }

    fn accept(&mut self, token: &str) -> bool {
        let found = self.next_is(token);
        if found {
            self.at += token.len();
        }
        found
    }

    fn expect(&mut self, token: &str) -> Parsed<()> {
        if self.accept(token) {
            Ok(())
        } else {
            self.fail(&format!("`{token}`"))
        }
    }

    /// `item (',' item)* close`, or `close` alone.
    fn list<T>(
        &mut self,
        close: &str,
        mut item: impl FnMut(&mut Self) -> Parsed<T>,
    ) -> Parsed<Vec<T>> {
        let mut items = Vec::new();
        while !self.accept(close) {
            if !items.is_empty() {
                self.expect(",")?;
            }
            items.push(item(self)?);
        }
        Ok(items)
    }

    fn word(&mut self) -> &str {
        self.space();
        let rest = &self.text[self.at..];
        let valid = |(i, c): &(usize, char)| {
            *c == '_' || c.is_ascii_alphabetic() || (*i > 0 && c.is_ascii_digit())
        };
        let end = rest
            .char_indices()
            .find(|c| !valid(c))
            .map_or(rest.len(), |(i, _)| i);
        &rest[..end]
    }

    fn optional_identifier(&mut self) -> Option<String> {
        let word = self.word().to_owned();
        self.at += word.len();
        (!word.is_empty()).then_some(word)
    }

    fn identifier(&mut self) -> Parsed<String> {
        match self.optional_identifier() {
            Some(word) => Ok(word),
            None => self.fail("a name"),
        }
    }

    /// A bare or quoted name; `None` if there is neither.
    fn optional_name(&mut self) -> Parsed<Option<String>> {
        if self.peek() == Some('"') {
            self.quoted().map(Some)
        } else {
            Ok(self.optional_identifier())
        }
    }

    fn name(&mut self) -> Parsed<String> {
        match self.optional_name()? {
            Some(name) => Ok(name),
            None => self.fail("a name"),
        }
    }

    fn quoted(&mut self) -> Parsed<String> {
        self.expect("\"")?;
        let mut value = String::new();
        let mut chars = self.text[self.at..].char_indices();
        while let Some((i, c)) = chars.next() {
            match c {
                '"' => {
                    self.at += i + 1;
                    return Ok(value);
                }
                '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                _ => value.push(c),
            }
        }
        self.fail("a closing quote")
    }

    fn literal(&mut self) -> Parsed<Literal> {
        if self.peek() == Some('"') {
            return self.quoted().map(Literal::Text);
        }
        let rest = &self.text[self.at..];
        let part = |(i, c): &(usize, char)| {
            c.is_ascii_alphanumeric()
                || *c == '.'
                || *c == '-' && *i == 0
                || matches!(c, '-' | '+') && exponent(rest, *i)
        };
        let end = rest
            .char_indices()
            .find(|c| !part(c))
            .map_or(rest.len(), |(i, _)| i);
        let number = &rest[..end];
        let literal = match number.parse() {
            Ok(int) => Some(Literal::Int(int)),
            Err(_) => number.parse().ok().map(Literal::Float),
        };
        match literal {
            Some(literal) => {
                self.at += end;
                Ok(literal)
            }
            None => self.fail("a value"),
        }
    }

    fn int(&mut self) -> Parsed<i64> {
        let at = self.at;
        if let Literal::Int(int) = self.literal()?
            && let Ok(int) = i64::try_from(int)
        {
            return Ok(int);
        }
        self.at = at;
        self.fail("an integer of 64 bits")
    }

    fn model(&mut self) -> Parsed<Model> {
        let mut model = ModelProto::default();
        if self.accept("<") {
            self.list(">", |p| p.header(&mut model))?;
        }
        model.graph = Some(self.graph()?);
        Ok(model.into())
    }

    fn header(&mut self, model: &mut ModelProto) -> Parsed<()> {
        let key = self.word().to_owned();
        let known = [
            "ir_version",
            "opset_import",
            "producer_name",
            "producer_version",
            "domain",
            "model_version",
        ];
        if !known.contains(&key.as_str()) && key != "doc_string" && key != "metadata_props" {
            return self.fail("ir_version, opset_import or another field of the model");
        }
        self.at += key.len();
        self.expect(":")?;
        match key.as_str() {
            "ir_version" => model.ir_version = Some(self.int()?),
            "model_version" => model.model_version = Some(self.int()?),
            "producer_name" => model.producer_name = Some(self.quoted()?),
            "producer_version" => model.producer_version = Some(self.quoted()?),
            "domain" => model.domain = Some(self.quoted()?),
            "doc_string" => model.doc_string = Some(self.quoted()?),
            "opset_import" => {
                self.expect("[")?;
                model.opset_import = self.list("]", |p| {
                    let domain = Some(p.quoted()?);
                    p.expect(":")?;
                    Ok(OperatorSetIdProto {
                        domain,
                        version: Some(p.int()?),
                    }
                    .into())
                })?;
            }
            _ => {
                self.expect("[")?;
                model.metadata_props = self.list("]", |p| {
                    let key = Some(p.quoted()?);
                    p.expect(":")?;
                    Ok(StringStringEntryProto {
                        key,
                        value: Some(p.quoted()?),
                    }
                    .into())
                })?;
            }
        }
        Ok(())
    }

    fn graph(&mut self) -> Parsed<GraphMsg> {
        if self.depth == MAX_DEPTH {
            return self.fail("sub-graphs nested less deeply");
        }
        self.depth += 1;
        let mut graph = GraphProto {
            name: Some(self.name()?),
            ..Default::default()
        };
        self.expect("(")?;
        self.list(")", |p| p.value(&mut graph, true))?;
        self.expect("=>")?;
        self.expect("(")?;
        graph.output = self.list(")", |p| p.value_info().map(Into::into))?;
        if self.accept("<") {
            self.list(">", |p| p.value(&mut graph, false))?;
        }
        self.expect("{")?;
        while !self.accept("}") {
            let node = self.node()?;
            graph.node.push(node.into());
        }
        self.depth -= 1;
        Ok(graph.into())
    }

    /// A type and name, and the data if it is an initialiser.
    fn value(&mut self, graph: &mut GraphProto, input: bool) -> Parsed<()> {
        let info = self.value_info()?;
        let constant = !self.next_is("=>") && self.accept("=");
        if constant {
            let mut tensor = self.tensor_data(info.r#type.as_deref())?;
            tensor.name = info.name.clone();
            graph.initializer.push(tensor);
        }
        match (input, constant) {
            (true, _) => graph.input.push(info.into()),
            (false, false) => graph.value_info.push(info.into()),
            (false, true) => {}
        }
        Ok(())
    }

    fn value_info(&mut self) -> Parsed<ValueInfoProto> {
        let r#type = if self.next_is_type() {
            Some(self.value_type()?.into())
        } else {
            None
        };
        Ok(ValueInfoProto {
            name: Some(self.name()?),
            r#type,
            ..Default::default()
        })
    }

    fn next_is_type(&mut self) -> bool {
        let word = self.word();
        Element::by_name(word).is_some() || matches!(word, "seq" | "optional")
    }

    fn value_type(&mut self) -> Parsed<TypeProto> {
        use type_proto::{Optional, Sequence, Tensor, Value};
        let word = self.word().to_owned();
        let wrapper = matches!(word.as_str(), "seq" | "optional");
        let element = Element::by_name(&word);
        if element.is_none() && !wrapper {
            return self.fail("a type such as float[n,3]");
        }
        self.at += word.len();
        if wrapper {
            return self.wrapped_type(|inner| {
                let elem_type = Some(Box::new(inner.into()));
                if word == "seq" {
                    Value::SequenceType(Box::new(Sequence { elem_type }.into()))
                } else {
                    Value::OptionalType(Box::new(Optional { elem_type }.into()))
                }
            });
        }
        let shape = if !self.accept("[") {
            Some(TensorShapeProto::default())
        } else if self.accept("]") {
            None
        } else {
            Some(TensorShapeProto {
                dim: self.list("]", |p| p.dimension().map(Into::into))?,
            })
        };
        let elem_type = element.map(|e| e.number);
        let value = Value::TensorType(
            Tensor {
                elem_type,
                shape: shape.map(Into::into),
            }
            .into(),
        );
        Ok(TypeProto {
            value: Some(value),
            ..Default::default()
        })
    }

    fn wrapped_type(
        &mut self,
        wrap: impl FnOnce(TypeProto) -> type_proto::Value,
    ) -> Parsed<TypeProto> {
        if self.depth == MAX_DEPTH {
            return self.fail("types nested less deeply");
        }
        self.depth += 1;
        self.expect("(")?;
        let inner = self.value_type()?;
        self.expect(")")?;
        self.depth -= 1;
        Ok(TypeProto {
            value: Some(wrap(inner)),
            ..Default::default()
        })
    }

    fn dimension(&mut self) -> Parsed<tensor_shape_proto::Dimension> {
        use tensor_shape_proto::dimension::Value;
        let value = if self.accept("?") {
            None
        } else if let Some(symbol) = self.optional_name()? {
            Some(Value::DimParam(symbol))
        } else {
            Some(Value::DimValue(self.int()?))
        };
        Ok(tensor_shape_proto::Dimension {
            value,
            ..Default::default()
        })
    }

    /// `{…}` of a tensor whose type was read.
    fn tensor_data(&mut self, r#type: Option<&TypeProto>) -> Parsed<TensorMsg> {
        let Some((element, dims)) = r#type.and_then(constant_type) else {
            return self.fail("a tensor type with known dimensions before the data");
        };
        let mut tensor = TensorProto {
            dims,
            data_type: Some(element.number),
            ..Default::default()
        };
        self.expect("{")?;
        let count = self.list("}", |p| p.element(element, &mut tensor))?.len();
        if Some(count) != element.entries(&tensor.dims) {
            return Err(self.error(format!(
                "{count} values do not fill a tensor of shape {:?}",
                tensor.dims
            )));
        }
        Ok(tensor.into())
    }

    fn element(&mut self, element: Element, tensor: &mut TensorProto) -> Parsed<()> {
        let at = self.at;
        let literal = self.literal()?;
        let stored = match (element.store, literal) {
            (Store::Int32, Literal::Int(v)) => {
                i32::try_from(v).map(|v| tensor.int32_data.push(v)).is_ok()
            }
            (Store::Int64, Literal::Int(v)) => {
                i64::try_from(v).map(|v| tensor.int64_data.push(v)).is_ok()
            }
            (Store::Uint64, Literal::Int(v)) => {
                u64::try_from(v).map(|v| tensor.uint64_data.push(v)).is_ok()
            }
            (Store::Float, literal) => number(&literal)
                .map(|v| tensor.float_data.push(v as f32))
                .is_some(),
            (Store::Double, literal) => number(&literal)
                .map(|v| tensor.double_data.push(v))
                .is_some(),
            (Store::Text, Literal::Text(v)) => {
                tensor.string_data.push(v.into_bytes().into());
                true
            }
            _ => false,
        };
        if stored {
            return Ok(());
        }
        self.at = at;
        self.fail(&format!("a value of type {}", element.name))
    }

    fn node(&mut self) -> Parsed<NodeProto> {
        let mut node = NodeProto::default();
        if self.accept("[") {
            node.name = self.optional_name()?;
            self.expect("]")?;
        }
        node.output = self.names()?;
        self.expect("=")?;
        let mut path = vec![self.identifier()?];
        while self.accept(".") {
            path.push(self.identifier()?);
        }
        node.op_type = path.pop();
        if !path.is_empty() {
            node.domain = Some(path.join("."));
        }
        if self.accept(":") {
            node.overload = Some(self.identifier()?);
        }
        self.attributes(&mut node)?;
        self.expect("(")?;
        node.input = self.names()?;
        self.expect(")")?;
        if node.attribute.is_empty() {
            self.attributes(&mut node)?;
        }
        Ok(node)
    }

    /// Names between commas; an absent one is `""` or nothing at all before a comma.
    fn names(&mut self) -> Parsed<Vec<String>> {
        let mut names = Vec::new();
        loop {
            let name = self.optional_name()?;
            if self.accept(",") {
                names.push(name.unwrap_or_default());
            } else {
                names.extend(name);
                return Ok(names);
            }
        }
    }

    fn attributes(&mut self, node: &mut NodeProto) -> Parsed<()> {
        if self.accept("<") {
            node.attribute = self.list(">", |p| p.attribute().map(Into::into))?;
        }
        Ok(())
    }

    fn attribute(&mut self) -> Parsed<AttributeProto> {
        let mut attribute = AttributeProto {
            name: Some(self.identifier()?),
            ..Default::default()
        };
        let declared = if self.accept(":") {
            Some(self.attribute_type()?)
        } else {
            None
        };
        self.expect("=")?;
        if self.accept("[") {
            self.attribute_list(&mut attribute, declared)?;
        } else {
            self.attribute_value(&mut attribute, declared == Some(AttributeType::Float))?;
        }
        if declared.is_some_and(|d| attribute.r#type != Some(d as i32)) {
            return self.fail("a value of the declared type before this");
        }
        Ok(attribute)
    }

    fn attribute_type(&mut self) -> Parsed<AttributeType> {
        let word = self.identifier()?;
        match AttributeType::from_str_name(&word.to_uppercase()) {
            Some(kind) => Ok(kind),
            None => self.fail("an attribute type before this"),
        }
    }

    fn attribute_list(
        &mut self,
        attribute: &mut AttributeProto,
        declared: Option<AttributeType>,
    ) -> Parsed<()> {
        let floats = declared == Some(AttributeType::Floats);
        let literals = self.list("]", Self::literal)?;
        let kind = match literals.first() {
            None => match declared {
                Some(kind) => kind,
                None => {
                    return self
                        .fail("the type of an empty list, as in `axes: ints = []`, before this");
                }
            },
            Some(_) if floats => AttributeType::Floats,
            Some(Literal::Int(_)) => AttributeType::Ints,
            Some(Literal::Float(_)) => AttributeType::Floats,
            Some(Literal::Text(_)) => AttributeType::Strings,
        };
        attribute.r#type = Some(kind as i32);
        for literal in literals {
            match (kind, literal) {
                (AttributeType::Ints, Literal::Int(v)) if i64::try_from(v).is_ok() => {
                    attribute.ints.push(v as i64)
                }
                (AttributeType::Floats, Literal::Int(v)) => attribute.floats.push(v as f32),
                (AttributeType::Floats, Literal::Float(v)) => attribute.floats.push(v as f32),
                (AttributeType::Strings, Literal::Text(v)) => {
                    attribute.strings.push(v.into_bytes().into())
                }
                _ => return self.fail("a list of one type before this"),
            }
        }
        Ok(())
    }

    fn attribute_value(&mut self, attribute: &mut AttributeProto, float: bool) -> Parsed<()> {
        let next_is_number = self
            .peek()
            .is_some_and(|c| c.is_ascii_digit() || matches!(c, '-' | '"'));
        let special = matches!(
            self.word().to_ascii_lowercase().as_str(),
            "inf" | "infinity" | "nan"
        );
        let kind = if next_is_number || special {
            match self.literal()? {
                Literal::Int(v) if float => {
                    attribute.f = Some(v as f32);
                    AttributeType::Float
                }
                Literal::Int(v) => match i64::try_from(v) {
                    Ok(v) => {
                        attribute.i = Some(v);
                        AttributeType::Int
                    }
                    Err(_) => return self.fail("an integer of 64 bits before this"),
                },
                Literal::Float(v) => {
                    attribute.f = Some(v as f32);
                    AttributeType::Float
                }
                Literal::Text(v) => {
                    attribute.s = Some(v.into_bytes().into());
                    AttributeType::String
                }
            }
        } else if self.next_is_type() {
            let value_type = self.value_type()?;
            let name = self.optional_name()?;
            self.accept("=");
            let mut tensor = self.tensor_data(Some(&value_type))?;
            tensor.name = name;
            attribute.t = Some(Box::new(tensor));
            AttributeType::Tensor
        } else {
            attribute.g = Some(Box::new(self.graph()?));
            AttributeType::Graph
        };
        attribute.r#type = Some(kind as i32);
        Ok(())
    }
}

/// Whether the sign at `i` belongs to an exponent.
fn exponent(text: &str, i: usize) -> bool {
    let digits = text.as_bytes()[..i]
        .first()
        .is_some_and(|c| c.is_ascii_digit() || *c == b'-');
    digits && matches!(text.as_bytes().get(i.wrapping_sub(1)), Some(b'e' | b'E'))
}

fn number(literal: &Literal) -> Option<f64> {
    match literal {
        Literal::Int(v) => Some(*v as f64),
        Literal::Float(v) => Some(*v),
        Literal::Text(_) => None,
    }
}

/// Element and dimensions of a tensor type without unknown ones.
fn constant_type(r#type: &TypeProto) -> Option<(Element, Vec<i64>)> {
    use tensor_shape_proto::dimension::Value;
    let Some(type_proto::Value::TensorType(tensor)) = &r#type.value else {
        return None;
    };
    let dims = tensor.shape.as_ref()?.dim.iter().map(|d| match d.value {
        Some(Value::DimValue(v)) => Some(v),
        _ => None,
    });
    Some((
        Element::by_number(tensor.elem_type?)?,
        dims.collect::<Option<_>>()?,
    ))
}
