//! `onnx.proto` against the one that the onnx package ships.

mod common;

use std::path::Path;

use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};

fn compile(file: &Path) -> FileDescriptorProto {
    let folder = file.parent().expect("a file in a folder");
    let mut files = protox::compile([file], [folder])
        .expect("the schema compiles")
        .file;
    files.pop().expect("one file")
}

fn sorted(mut messages: Vec<DescriptorProto>) -> Vec<DescriptorProto> {
    for message in &mut messages {
        message.nested_type = sorted(std::mem::take(&mut message.nested_type));
        message.field.sort_by_key(|field| field.number);
    }
    messages.sort_by(|a, b| a.name.cmp(&b.name));
    messages
}

fn sorted_enums(mut enums: Vec<EnumDescriptorProto>) -> Vec<EnumDescriptorProto> {
    enums.sort_by(|a, b| a.name.cmp(&b.name));
    enums
}

#[test]
fn messages_and_fields_are_those_of_the_onnx_package() {
    let theirs = common::python("schema_path.py", &[]);
    let theirs = compile(Path::new(theirs.trim()));
    let ours = compile(&Path::new(env!("CARGO_MANIFEST_DIR")).join("onnx.proto"));
    assert_eq!(ours.package, theirs.package);
    assert_eq!(sorted_enums(ours.enum_type), sorted_enums(theirs.enum_type));
    let (ours, theirs) = (sorted(ours.message_type), sorted(theirs.message_type));
    assert_eq!(ours.len(), theirs.len());
    for (ours, theirs) in ours.iter().zip(&theirs) {
        assert_eq!(ours, theirs, "{}", theirs.name());
    }
}
