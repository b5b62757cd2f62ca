//! No bytes make the crate panic, recurse without end or allocate what is not there.

mod common;

use std::{fs, path::Path};

use proptest::prelude::*;
use prost::{
    Message,
    encoding::{WireType, encode_key, encode_varint},
};
use vitq_onnx::{LoadError, Model, Tensor, load, pb};

/// Loads bytes as a file; what loads must be readable to the end and survive a round trip.
fn try_bytes(folder: &Path, bytes: &[u8]) -> Result<(), LoadError> {
    let path = folder.join("m.onnx");
    fs::write(&path, bytes).expect("written");
    let model = load(&path)?.model;
    for tensor in model.graph.iter().flat_map(|graph| &graph.initializer) {
        if let Ok(tensor) = Tensor::from_proto(tensor) {
            assert!(
                tensor.to_f32().is_ok() || tensor.dtype.bits() >= Some(64),
                "{:?}",
                tensor.dtype
            );
            let _ = tensor.to_i64();
        }
    }
    let once = model.encode_to_vec();
    let again = Model::decode(&once[..]).expect("what was encoded decodes");
    assert_eq!(once, again.encode_to_vec());
    Ok(())
}

fn sample(folder: &Path) -> Vec<u8> {
    let (full, unknown) = (folder.join("full.onnx"), folder.join("unknown.onnx"));
    common::python("make_full.py", &[&full, &unknown]);
    fs::read(unknown).expect("a model")
}

#[test]
fn truncated_files_are_errors() {
    let folder = common::folder();
    let bytes = sample(folder.path());
    let mut refused = 0;
    for end in (0..bytes.len()).step_by(97) {
        match try_bytes(folder.path(), &bytes[..end]) {
            Ok(()) => {}
            Err(LoadError::Decode { byte, size, .. }) => {
                assert!(byte <= size && size == end);
                refused += 1;
            }
            Err(LoadError::Empty(_) | LoadError::NoGraph(_)) => refused += 1,
            Err(other) => panic!("{other}"),
        }
    }
    // Only a cut between two fields of the model itself goes unnoticed.
    assert!(
        refused > bytes.len() / 97 - 20,
        "{refused} of {}",
        bytes.len() / 97
    );
}

#[test]
fn flipped_bits_never_panic() {
    let folder = common::folder();
    let bytes = sample(folder.path());
    let mut outcomes = [0; 2];
    for (i, at) in (0..bytes.len()).step_by(13).enumerate() {
        let mut bytes = bytes.clone();
        bytes[at] ^= 1 << (i % 8);
        outcomes[usize::from(try_bytes(folder.path(), &bytes).is_ok())] += 1;
    }
    assert!(outcomes[0] > 100 && outcomes[1] > 100, "{outcomes:?}");
}

#[test]
fn damaged_tensors_never_panic() {
    let folder = common::folder();
    let (model, expected) = (
        folder.path().join("types.onnx"),
        folder.path().join("expected.txt"),
    );
    common::python("make_types.py", &[&model, &expected]);
    let mut model = load(&model).expect("loads").model;
    let graph = model.graph.as_mut().expect("a graph");
    let mut refused = 0;
    for (i, tensor) in graph.initializer.iter_mut().enumerate() {
        for data_type in -1..30 {
            for dims in [
                &[-1][..],
                &[i64::MAX, i64::MAX],
                &[0, i64::MAX, i64::MAX],
                &[1 << 40, 1 << 23],
                &[i as i64],
            ] {
                tensor.data_type = Some(data_type);
                tensor.dims = dims.to_vec();
                match Tensor::from_proto(tensor) {
                    Ok(tensor) => assert!(tensor.len() < 70_000),
                    Err(error) => {
                        assert!(error.to_string().contains(tensor.name()));
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > graph.initializer.len() * 31 * 4 - 200);
}

/// `depth` messages, each in field `tags` of the one before.
fn nested(tags: &[u32], depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for level in (0..depth).rev() {
        let mut outer = Vec::new();
        encode_key(
            tags[level % tags.len()],
            WireType::LengthDelimited,
            &mut outer,
        );
        encode_varint(bytes.len() as u64, &mut outer);
        outer.append(&mut bytes);
        bytes = outer;
    }
    bytes
}

#[test]
fn depth_is_limited() {
    let folder = common::folder();
    // Field 7 of a model: its graph; 1: a node; 5: an attribute; 6: a graph.
    let graphs = |depth| [&[0x3a][..], &delimited(nested(&[1, 5, 6], depth))].concat();
    try_bytes(folder.path(), &graphs(90)).expect("deep as control flow may be");
    for depth in [120, 3_000] {
        let error = try_bytes(folder.path(), &graphs(depth)).expect_err("too deep");
        assert!(error.to_string().contains("recursion limit"), "{error}");
    }
    // Unknown groups, opened and never closed.
    let mut groups = vec![0x3a, 0];
    (0..100_000).for_each(|_| encode_key(9001, WireType::StartGroup, &mut groups));
    let error = try_bytes(folder.path(), &groups).expect_err("too deep");
    assert!(error.to_string().contains("recursion limit"), "{error}");
}

fn delimited(bytes: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::new();
    encode_varint(bytes.len() as u64, &mut out);
    out.extend(bytes);
    out
}

#[test]
fn promised_lengths_are_not_allocated() {
    let folder = common::folder();
    // raw_data, float_data, dims, a name and an unknown field that promise 2^62 bytes.
    for tag in [9, 4, 1, 8, 9003] {
        let mut tensor = Vec::new();
        encode_key(tag, WireType::LengthDelimited, &mut tensor);
        encode_varint(1 << 62, &mut tensor);
        let graph = [&[0x2a][..], &delimited(tensor)].concat();
        let error = try_bytes(folder.path(), &[&[0x3a][..], &delimited(graph)].concat())
            .expect_err("too long");
        assert!(matches!(error, LoadError::Decode { .. }), "{error}");
    }
}

#[test]
fn messages_name_file_place_and_mend() {
    let folder = common::folder();
    let message = |bytes: &[u8]| {
        try_bytes(folder.path(), bytes)
            .expect_err("refused")
            .to_string()
    };
    assert!(message(b"").contains("m.onnx is empty"));
    assert!(message(b"version https://git-lfs.github.com/spec/v1\n").contains("git lfs pull"));
    assert!(message(b"PK\x03\x04rest").contains("zip archive"));
    assert!(message(b"\x18\0\0\0ORTM").contains("ORT format"));
    let text = message(b"A text about something else entirely.");
    assert!(
        text.contains("m.onnx") && text.contains("at byte") && text.contains("is it an ONNX file"),
        "{text}"
    );
    let no_graph = pb::ModelProto {
        ir_version: Some(8),
        ..Default::default()
    };
    assert!(message(&no_graph.encode_to_vec()).contains("holds no graph"));
    let missing = load(folder.path().join("missing.onnx")).expect_err("missing");
    assert!(
        missing.to_string().contains("cannot read") && missing.to_string().contains("missing.onnx")
    );
    assert!(
        load(folder.path())
            .expect_err("a folder")
            .to_string()
            .contains("cannot read")
    );
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let folder = common::folder();
        let _ = try_bytes(folder.path(), &bytes);
        // The same as the content of a graph, of a tensor and of a node.
        for tags in [&[7][..], &[7, 5], &[7, 1], &[7, 1, 5]] {
            let mut inner = bytes.clone();
            for &tag in tags.iter().rev() {
                let mut outer = Vec::new();
                encode_key(tag, WireType::LengthDelimited, &mut outer);
                outer.extend(delimited(inner));
                inner = outer;
            }
            let _ = try_bytes(folder.path(), &inner);
        }
    }

    #[test]
    fn random_tensors_never_panic(
        data_type in 0i32..30,
        dims in prop::collection::vec(-1i64..5, 0..4),
        raw in prop::option::of(prop::collection::vec(any::<u8>(), 0..64)),
        entries in prop::collection::vec(any::<i32>(), 0..64),
    ) {
        let proto = pb::TensorProto {
            data_type: Some(data_type),
            dims,
            raw_data: raw.map(Into::into),
            float_data: entries.iter().map(|&entry| entry as f32).collect(),
            int32_data: entries,
            ..Default::default()
        };
        if let Ok(tensor) = Tensor::from_proto(&proto) {
            let elements: i64 = proto.dims.iter().product();
            prop_assert_eq!(tensor.len(), elements as usize);
            prop_assert_eq!(Some(tensor.data.len()), tensor.dtype.byte_len(tensor.len()));
            let _ = (tensor.to_f32(), tensor.to_i64(), tensor.scalar_f32(), tensor.scalar_i64());
        }
    }
}
