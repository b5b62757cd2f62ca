//! Reading and writing a model changes nothing.

mod common;

use std::fs;

use prost::Message;
use vitq_onnx::{Lossless, Model, SaveOptions, load, pb, save};

#[test]
fn every_field_survives_known_or_not() {
    let folder = common::folder();
    let (full, unknown) = (
        folder.path().join("full.onnx"),
        folder.path().join("unknown.onnx"),
    );
    let counts = common::python("make_full.py", &[&full, &unknown]);
    let counts: Vec<usize> = counts
        .split_whitespace()
        .map(|n| n.parse().expect("a count"))
        .collect();
    assert!(
        counts[0] > 500 && counts[1] > 200,
        "a model that fills the schema: {counts:?}"
    );
    for original in [&full, &unknown] {
        let written = folder.path().join("written.onnx");
        let loaded = load(original).expect("loads");
        save(&loaded.model, &written, &SaveOptions::default()).expect("saves");
        common::python("same_message.py", &[original, &written]);
        let (before, after) = (fs::metadata(original), fs::metadata(&written));
        assert_eq!(
            before.expect("original").len(),
            after.expect("written").len()
        );
    }
}

#[test]
fn unknown_fields_stay_in_their_message_and_out_of_the_known() {
    // Field 9001, a varint, in a node; field 3 is its name.
    let node = [&[0x1a, 1, b'n'][..], &[0xc8, 0xb2, 0x04, 7]].concat();
    let node = Lossless::<pb::NodeProto>::decode(&node[..]).expect("decodes");
    assert_eq!(node.name(), "n");
    assert_eq!(node.unknown(), [0xc8, 0xb2, 0x04, 7]);
    let graph = pb::GraphProto {
        node: vec![node.clone()],
        ..Default::default()
    };
    let model: Model = pb::ModelProto {
        graph: Some(graph.into()),
        ..Default::default()
    }
    .into();
    let read = Model::decode(&model.encode_to_vec()[..]).expect("decodes");
    assert!(read.unknown().is_empty());
    assert_eq!(read.graph.as_ref().expect("a graph").node[0], node);
}
