//! Graph → text: the syntax of ONNX (`docs/Syntax.md` of the ONNX repository), which [`Graph::parse`] reads back.
//!
//! Left out: doc strings, node metadata, functions. Constants of more than [`MAX_VALUES`] values are elided as
//! `{…}`, which the parser refuses.

use std::fmt::{Display, Formatter, Result, Write};

use vitq_onnx::pb::attribute_proto::AttributeType;
use vitq_onnx::pb::{
    GraphProto, TensorProto, TensorShapeProto, TypeProto, tensor_shape_proto, type_proto,
};
use vitq_onnx::{AttributeMsg, Model, NodeMsg, Tensor, TensorMsg, ValueInfoMsg};

use super::Graph;
use super::element::{Element, Store};

/// Longest constant that is printed in full.
pub const MAX_VALUES: usize = 64;

impl Display for Graph {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        let model = self.export();
        header(f, &model)?;
        match &model.graph {
            Some(body) => graph(f, body, 0),
            None => Ok(()),
        }
    }
}

fn header(f: &mut impl Write, model: &Model) -> Result {
    write!(f, "<ir_version: {}, opset_import: ", model.ir_version())?;
    list(f, "[", "]", &model.opset_import, |f, o| {
        write!(f, "{} : {}", Quoted(o.domain()), o.version())
    })?;
    for (key, value) in [
        ("producer_name", &model.producer_name),
        ("producer_version", &model.producer_version),
        ("domain", &model.domain),
    ] {
        if let Some(value) = value {
            write!(f, ", {key}: {}", Quoted(value))?;
        }
    }
    if let Some(version) = model.model_version {
        write!(f, ", model_version: {version}")?;
    }
    if !model.metadata_props.is_empty() {
        f.write_str(", metadata_props: ")?;
        list(f, "[", "]", &model.metadata_props, |f, p| {
            write!(f, "{}: {}", Quoted(p.key()), Quoted(p.value()))
        })?;
    }
    f.write_str(">\n")
}

fn list<W: Write, T>(
    f: &mut W,
    open: &str,
    close: &str,
    items: impl IntoIterator<Item = T>,
    item: impl Fn(&mut W, T) -> Result,
) -> Result {
    f.write_str(open)?;
    for (i, value) in items.into_iter().enumerate() {
        if i > 0 {
            f.write_str(", ")?;
        }
        item(f, value)?;
    }
    f.write_str(close)
}

fn graph<W: Write>(f: &mut W, graph: &GraphProto, indent: usize) -> Result {
    let pad = " ".repeat(indent);
    // A sub-graph is told from a string by its bare name.
    let name = if indent > 0 && !is_identifier(graph.name()) {
        "body"
    } else {
        graph.name()
    };
    write!(f, "{} ", Name(name))?;
    list(f, "(", ")", &graph.input, value_info)?;
    f.write_str(" => ")?;
    list(f, "(", ")", &graph.output, value_info)?;
    if !graph.initializer.is_empty() || !graph.value_info.is_empty() {
        let open = format!("\n{pad}<\n{pad}  ");
        let separator = format!(",\n{pad}  ");
        f.write_str(&open)?;
        for (i, tensor) in graph.initializer.iter().enumerate() {
            f.write_str(if i > 0 { &separator } else { "" })?;
            constant(f, tensor, " = ")?;
        }
        for (i, info) in graph.value_info.iter().enumerate() {
            f.write_str(if i > 0 || !graph.initializer.is_empty() {
                &separator
            } else {
                ""
            })?;
            value_info(f, info)?;
        }
        write!(f, "\n{pad}>\n{pad}")?;
    } else {
        write!(f, "\n{pad}")?;
    }
    f.write_str("{\n")?;
    for message in &graph.node {
        write!(f, "{pad}  ")?;
        node(f, message, indent)?;
    }
    f.write_str(&pad)?;
    f.write_str(if indent > 0 { "}" } else { "}\n" })
}

fn value_info(f: &mut impl Write, info: &ValueInfoMsg) -> Result {
    if let Some(value_type) = &info.r#type {
        tensor_type(f, value_type)?;
        f.write_char(' ')?;
    }
    write!(f, "{}", Name(info.name()))
}

fn tensor_type(f: &mut impl Write, value_type: &TypeProto) -> Result {
    use type_proto::Value;
    match &value_type.value {
        Some(Value::TensorType(tensor)) => {
            f.write_str(element_name(tensor.elem_type()))?;
            match &tensor.shape {
                None => f.write_str("[]"),
                Some(shape) => dimensions(f, shape),
            }
        }
        Some(Value::SequenceType(s)) => wrapped(f, "seq", s.elem_type.as_ref().map(|t| &***t)),
        Some(Value::OptionalType(o)) => wrapped(f, "optional", o.elem_type.as_ref().map(|t| &***t)),
        // Maps, sparse and opaque values do not occur in vision models; the parser refuses this.
        _ => f.write_str("?"),
    }
}

fn wrapped(f: &mut impl Write, wrapper: &str, inner: Option<&TypeProto>) -> Result {
    write!(f, "{wrapper}(")?;
    if let Some(inner) = inner {
        tensor_type(f, inner)?;
    }
    f.write_str(")")
}

fn dimensions(f: &mut impl Write, shape: &TensorShapeProto) -> Result {
    use tensor_shape_proto::dimension::Value;
    if shape.dim.is_empty() {
        return Ok(());
    }
    list(f, "[", "]", &shape.dim, |f, d| match &d.value {
        Some(Value::DimValue(size)) => write!(f, "{size}"),
        Some(Value::DimParam(symbol)) => write!(f, "{}", Name(symbol)),
        None => f.write_str("?"),
    })
}

fn element_name(number: i32) -> &'static str {
    Element::by_number(number).map_or("?", |e| e.name)
}

/// Type, name and values of a constant.
fn constant(f: &mut impl Write, tensor: &TensorMsg, equals: &str) -> Result {
    f.write_str(element_name(tensor.data_type()))?;
    if !tensor.dims.is_empty() {
        list(f, "[", "]", &tensor.dims, |f, d| write!(f, "{d}"))?;
    }
    if !tensor.name().is_empty() {
        write!(f, " {}", Name(tensor.name()))?;
    }
    f.write_str(equals)?;
    values(f, tensor)
}

fn values(f: &mut impl Write, tensor: &TensorProto) -> Result {
    let Some(element) = Element::by_number(tensor.data_type()) else {
        return f.write_str("{…}");
    };
    if element.entries(&tensor.dims).is_none_or(|n| n > MAX_VALUES) {
        return f.write_str("{…}");
    }
    if element.store == Store::Text {
        return list(f, "{", "}", &tensor.string_data, |f, s| {
            write!(f, "{}", Quoted(&String::from_utf8_lossy(s)))
        });
    }
    let Ok(decoded) = Tensor::from_proto(tensor) else {
        return f.write_str("{…}");
    };
    list(
        f,
        "{",
        "}",
        decoded.data.chunks_exact((element.bits / 8).max(1)),
        |f, raw| {
            let mut wide = [0; 8];
            wide[..raw.len()].copy_from_slice(raw);
            let bits = u64::from_le_bytes(wide);
            match (element.store, element.name) {
                (Store::Float, _) => write!(f, "{:?}", f32::from_bits(bits as u32)),
                (Store::Double, _) => write!(f, "{:?}", f64::from_bits(bits)),
                (_, "int64") => write!(f, "{}", bits as i64),
                (_, "int32") => write!(f, "{}", bits as i32),
                (_, "int16") => write!(f, "{}", bits as i16),
                (_, "int8") => write!(f, "{}", bits as i8),
                _ => write!(f, "{bits}"),
            }
        },
    )
}

fn node<W: Write>(f: &mut W, node: &NodeMsg, indent: usize) -> Result {
    if !node.name().is_empty() {
        write!(f, "[{}] ", Name(node.name()))?;
    }
    list(f, "", " = ", &node.output, |f, name| {
        write!(f, "{}", Name(name))
    })?;
    if !node.domain().is_empty() {
        write!(f, "{}.", node.domain())?;
    }
    f.write_str(node.op_type())?;
    if !node.overload().is_empty() {
        write!(f, ":{}", node.overload())?;
    }
    if !node.attribute.is_empty() {
        list(f, " <", ">", &node.attribute, |f, a| {
            attribute(f, a, indent)
        })?;
    }
    list(f, " (", ")\n", &node.input, |f, name| {
        write!(f, "{}", Name(name))
    })
}

fn attribute<W: Write>(f: &mut W, attribute: &AttributeMsg, indent: usize) -> Result {
    f.write_str(attribute.name())?;
    let empty =
        attribute.ints.is_empty() && attribute.floats.is_empty() && attribute.strings.is_empty();
    match attribute.r#type() {
        AttributeType::Ints if empty => f.write_str(": ints = []"),
        AttributeType::Floats if empty => f.write_str(": floats = []"),
        AttributeType::Strings if empty => f.write_str(": strings = []"),
        _ => {
            f.write_str(" = ")?;
            attribute_value(f, attribute, indent)
        }
    }
}

fn attribute_value<W: Write>(f: &mut W, attribute: &AttributeMsg, indent: usize) -> Result {
    match attribute.r#type() {
        AttributeType::Int => write!(f, "{}", attribute.i()),
        AttributeType::Float => write!(f, "{:?}", attribute.f()),
        AttributeType::String => write!(f, "{}", Quoted(&String::from_utf8_lossy(attribute.s()))),
        AttributeType::Ints => list(f, "[", "]", &attribute.ints, |f, v| write!(f, "{v}")),
        AttributeType::Floats => list(f, "[", "]", &attribute.floats, |f, v| write!(f, "{v:?}")),
        AttributeType::Strings => list(f, "[", "]", &attribute.strings, |f, s| {
            write!(f, "{}", Quoted(&String::from_utf8_lossy(s)))
        }),
        AttributeType::Tensor => attribute.t.as_ref().map_or(Ok(()), |t| constant(f, t, " ")),
        AttributeType::Graph => attribute
            .g
            .as_ref()
            .map_or(Ok(()), |g| graph(f, g, indent + 4)),
        _ => f.write_str("?"),
    }
}

fn is_identifier(name: &str) -> bool {
    let word = name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric());
    word && name.chars().next().is_some_and(|c| !c.is_ascii_digit())
}

/// A name, quoted where it is no identifier.
struct Name<'a>(&'a str);

impl Display for Name<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        if is_identifier(self.0) {
            f.write_str(self.0)
        } else {
            Quoted(self.0).fmt(f)
        }
    }
}

struct Quoted<'a>(&'a str);

impl Display for Quoted<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        f.write_char('"')?;
        for c in self.0.chars() {
            if matches!(c, '"' | '\\') {
                f.write_char('\\')?;
            }
            f.write_char(c)?;
        }
        f.write_char('"')
    }
}
