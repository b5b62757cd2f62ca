//! Tensor data outside the model file, both ways, and what a hostile file may not do.

mod common;

use std::{fs, path::Path};

use prost::Message;
use vitq_onnx::{
    ExternalProblem, LoadError, Model, SaveError, SaveOptions, Tensor, load,
    pb::{self, tensor_proto::DataLocation},
    save,
};

const OUTSIDE: SaveOptions = SaveOptions {
    external_data: true,
};

#[test]
fn data_written_by_onnx_is_read() {
    let folder = common::folder();
    let (whole, external) = (
        folder.path().join("whole.onnx"),
        folder.path().join("external.onnx"),
    );
    common::python("make_external.py", &[&whole, &external]);
    // All seven but the two that onnx leaves inside for being in float_data.
    let data = fs::metadata(folder.path().join("all.bin")).expect("a data file");
    assert!(data.len() >= 5 * 2800);

    assert!(!load(&whole).expect("loads").external);
    let loaded = load(&external).expect("loads");
    assert!(loaded.external);
    let inside = folder.path().join("inside.onnx");
    save(&loaded.model, &inside, &SaveOptions::default()).expect("saves");
    let offsets = common::python("same_outputs.py", &[&whole, &inside]);
    assert_eq!(offsets, "", "no tensor is left outside");
}

#[test]
fn data_written_here_is_read_by_onnx_and_onnx_runtime() {
    let folder = common::folder();
    let (whole, theirs) = (
        folder.path().join("whole.onnx"),
        folder.path().join("theirs.onnx"),
    );
    common::python("make_external.py", &[&whole, &theirs]);
    let model = load(&whole).expect("loads").model;

    let ours = folder.path().join("ours.onnx");
    save(&model, &ours, &OUTSIDE).expect("saves");
    let offsets = common::python("same_outputs.py", &[&whole, &ours]);
    let offsets: Vec<u64> = offsets
        .lines()
        .map(|line| line.parse().expect("an offset"))
        .collect();
    // The condition of the If, one byte, stays inside.
    assert_eq!(offsets.len(), 7);
    assert!(
        offsets.iter().all(|offset| offset % 4096 == 0),
        "{offsets:?}"
    );
    let data = fs::metadata(folder.path().join("ours.onnx.data")).expect("a data file");
    assert_eq!(data.len(), offsets.iter().max().expect("some") + 2800);

    // Writing over the files that the model was read from.
    let read = load(&ours).expect("loads");
    assert!(read.external);
    save(&read.model, &ours, &OUTSIDE).expect("saves");
    common::python("same_outputs.py", &[&whole, &ours]);
    let left = common::names(folder.path());
    assert_eq!(
        left,
        [
            "all.bin",
            "ours.onnx",
            "ours.onnx.data",
            "theirs.onnx",
            "whole.onnx"
        ]
    );
}

#[test]
fn small_models_make_no_data_file() {
    let folder = common::folder();
    let path = folder.path().join("m.onnx");
    save(
        &with_initializer(Tensor::from_f32(&[3], &[1.0; 3]).to_proto("w")),
        &path,
        &OUTSIDE,
    )
    .expect("saves");
    assert_eq!(common::names(folder.path()), ["m.onnx"]);
}

fn with_initializer(tensor: impl Into<vitq_onnx::TensorMsg>) -> Model {
    let graph = pb::GraphProto {
        initializer: vec![tensor.into()],
        ..Default::default()
    };
    pb::ModelProto {
        graph: Some(graph.into()),
        ..Default::default()
    }
    .into()
}

/// A model whose one tensor, two floats, lies where `entries` say.
fn external(entries: &[(&str, &str)]) -> Model {
    let entry = |&(key, value): &(&str, &str)| {
        pb::StringStringEntryProto {
            key: Some(key.into()),
            value: Some(value.into()),
        }
        .into()
    };
    with_initializer(pb::TensorProto {
        name: Some("w".into()),
        dims: vec![2],
        data_type: Some(1),
        data_location: Some(DataLocation::External as i32),
        external_data: entries.iter().map(entry).collect(),
        ..Default::default()
    })
}

fn load_external(folder: &Path, entries: &[(&str, &str)]) -> Result<Vec<f32>, ExternalProblem> {
    let path = folder.join("m.onnx");
    fs::write(&path, external(entries).encode_to_vec()).expect("written");
    match load(&path) {
        Ok(loaded) => {
            let graph = loaded.model.graph.as_ref().expect("a graph");
            Ok(Tensor::from_proto(&graph.initializer[0])
                .expect("a tensor")
                .to_f32()
                .expect("floats"))
        }
        Err(LoadError::External {
            tensor, problem, ..
        }) => {
            assert_eq!(tensor, "w");
            Err(problem)
        }
        Err(other) => panic!("{other}"),
    }
}

#[test]
fn data_stays_inside_the_folder_and_the_file() {
    let folder = common::folder();
    let inner = folder.path().join("inner");
    fs::create_dir_all(inner.join("sub")).expect("made");
    let floats: Vec<u8> = [1f32, 2.0, 3.0, 4.0]
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    for place in [
        folder.path().join("d"),
        inner.join("d"),
        inner.join("sub/d"),
    ] {
        fs::write(place, &floats).expect("written");
    }
    let absolute = inner.join("d").to_string_lossy().into_owned();
    let max = u64::MAX.to_string();

    for location in ["d", "./d", "sub/d"] {
        assert_eq!(
            load_external(&inner, &[("location", location)]).expect("reads"),
            [1.0, 2.0]
        );
    }
    let good = [("location", "d"), ("offset", "8"), ("length", "8")];
    assert_eq!(load_external(&inner, &good).expect("reads"), [3.0, 4.0]);

    for location in ["../d", "sub/../../d", "sub/../d", &absolute] {
        let problem = load_external(&inner, &[("location", location)]).expect_err(location);
        assert!(
            matches!(problem, ExternalProblem::Outside(_)),
            "{location}: {problem}"
        );
    }
    for entries in [&[("location", "")][..], &[("offset", "0")]] {
        assert!(matches!(
            load_external(&inner, entries),
            Err(ExternalProblem::NoLocation)
        ));
    }
    for (offset, length) in [
        ("9", "8"),
        ("17", "0"),
        (&max, "8"),
        ("8", &max),
        (&max, &max),
        ("0", "17"),
    ] {
        let problem = load_external(
            &inner,
            &[("location", "d"), ("offset", offset), ("length", length)],
        );
        assert!(
            matches!(problem, Err(ExternalProblem::BeyondEnd { .. })),
            "{offset} {length}"
        );
    }
    for offset in ["-1", "1e3", "", "99999999999999999999"] {
        let problem = load_external(&inner, &[("location", "d"), ("offset", offset)]);
        assert!(
            matches!(problem, Err(ExternalProblem::NotANumber { .. })),
            "{offset}"
        );
    }
    for missing in ["e", "sub"] {
        let problem = load_external(&inner, &[("location", missing)]).expect_err(missing);
        assert!(matches!(problem, ExternalProblem::Read { .. }), "{problem}");
    }
}

#[test]
fn what_was_not_loaded_is_not_written() {
    let folder = common::folder();
    let model = external(&[("location", "d")]);
    let error = save(
        &model,
        folder.path().join("m.onnx"),
        &SaveOptions::default(),
    )
    .expect_err("refused");
    assert!(
        matches!(error, SaveError::Unresolved(ref tensor) if tensor == "w"),
        "{error}"
    );
    assert_eq!(common::names(folder.path()), [""; 0]);
}
