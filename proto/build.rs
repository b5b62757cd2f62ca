//! Compiles `onnx.proto` so that no message loses a field that the schema does not know: every
//! field that holds a message holds it as `Lossless<Message>`, and every message says which field
//! numbers it knows (`KnownTags`).

use std::{env, error::Error, fs, path::PathBuf};

use prost_build::Config;
use prost_types::{
    DescriptorProto, FileDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type,
};

/// Package of the wrapped twins: field types point here, and each twin stands for `Lossless<_>`.
const TWINS: &str = "lossless";

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=onnx.proto");
    let mut schema = protox::compile(["onnx.proto"], ["."])?
        .file
        .pop()
        .ok_or("onnx.proto gave no descriptor")?;

    let mut config = Config::new();
    config.bytes(["."]);
    // Rare and large: boxed, an attribute stays small.
    for field in ["t", "g", "sparse_tensor", "tp"] {
        config.boxed(format!(".onnx.AttributeProto.{field}"));
    }

    let mut tags = String::new();
    for message in &schema.message_type {
        describe(message, ".", "crate::pb::", &mut config, &mut tags);
    }
    // The twins keep the fields of the plain messages, by which prost-build sees recursion.
    let twins = FileDescriptorProto {
        name: Some("lossless.proto".into()),
        package: Some(TWINS.into()),
        message_type: schema.message_type.clone(),
        syntax: schema.syntax.clone(),
        ..Default::default()
    };
    schema.message_type.iter_mut().for_each(point_to_twins);

    config.compile_fds(FileDescriptorSet {
        file: vec![schema, twins],
    })?;
    fs::write(PathBuf::from(env::var("OUT_DIR")?).join("tags.rs"), tags)?;
    Ok(())
}

/// Maps the twin of `message` to `Lossless<message>` and writes its `KnownTags`, and so on inwards.
fn describe(
    message: &DescriptorProto,
    scope: &str,
    module: &str,
    config: &mut Config,
    tags: &mut String,
) {
    let name = message.name();
    let rust = format!("{module}{name}");
    config.extern_path(
        format!(".{TWINS}{scope}{name}"),
        format!("crate::Lossless<{rust}>"),
    );
    let numbers: Vec<i32> = message.field.iter().map(|field| field.number()).collect();
    tags.push_str(&format!(
        "impl crate::KnownTags for {rust} {{\n    const TAGS: &'static [u32] = &{numbers:?};\n}}\n"
    ));
    for inner in &message.nested_type {
        describe(
            inner,
            &format!("{scope}{name}."),
            &format!("{module}{}::", snake(name)),
            config,
            tags,
        );
    }
}

/// Makes every field of a message type, at any depth, name the twin.
fn point_to_twins(message: &mut DescriptorProto) {
    for field in message
        .field
        .iter_mut()
        .filter(|field| field.r#type() == Type::Message)
    {
        if let Some(path) = field.type_name().strip_prefix(".onnx.") {
            field.type_name = Some(format!(".{TWINS}.{path}"));
        }
    }
    message.nested_type.iter_mut().for_each(point_to_twins);
}

/// `TypeProto` to `type_proto`, the module that prost-build gives to nested messages.
fn snake(name: &str) -> String {
    let mut out = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}
