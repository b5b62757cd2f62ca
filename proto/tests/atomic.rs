//! A failed save leaves what was there.
#![cfg(unix)]

mod common;

use std::{
    env, fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use prost::Message;
use vitq_onnx::{Model, SaveOptions, Tensor, load, pb, save};

fn model(elements: usize) -> Model {
    let graph = pb::GraphProto {
        initializer: vec![Tensor::from_f32(&[elements], &vec![0.25; elements]).to_proto("w")],
        ..Default::default()
    };
    pb::ModelProto {
        graph: Some(graph.into()),
        ..Default::default()
    }
    .into()
}

#[test]
fn targets_that_cannot_be_are_refused_and_files_replaced() {
    let folder = common::folder();
    let (model, options) = (model(3), SaveOptions::default());
    let nowhere = save(&model, folder.path().join("no/m.onnx"), &options).expect_err("no folder");
    assert!(
        nowhere.to_string().contains("create the folder"),
        "{nowhere}"
    );
    for target in [
        folder.path(),
        Path::new("/"),
        Path::new(""),
        Path::new("/dev/null"),
    ] {
        save(&model, target, &options).expect_err("no file");
    }
    let path = folder.path().join("m.onnx");
    fs::write(&path, "old").expect("written");
    save(&model, &path, &options).expect("replaces");
    assert_eq!(fs::read(&path).expect("read"), model.encode_to_vec());
    assert_eq!(common::names(folder.path()), ["m.onnx"]);
}

#[test]
fn a_model_is_as_public_as_any_new_file() {
    let folder = common::folder();
    let (path, plain) = (folder.path().join("m.onnx"), folder.path().join("plain"));
    save(
        &model(1000),
        &path,
        &SaveOptions {
            external_data: true,
        },
    )
    .expect("saves");
    fs::write(&plain, "").expect("written");
    let mode = |path: &Path| fs::metadata(path).expect("a file").permissions().mode();
    assert_eq!(mode(&path), mode(&plain));
    assert_eq!(mode(&folder.path().join("m.onnx.data")), mode(&plain));
}

/// Tells a second run of this program to save into the folder named here, and to fail.
const FOLDER: &str = "VITQ_ONNX_TEST_FOLDER";

/// Stands in for a full disk: the shell forbids files of more than 64 blocks, and the write fails.
#[test]
fn a_failed_write_leaves_what_was_there() {
    if let Some(folder) = env::var_os(FOLDER).map(PathBuf::from) {
        for external_data in [false, true] {
            let error = save(
                &model(1_000_000),
                folder.join("m.onnx"),
                &SaveOptions { external_data },
            );
            println!("refused: {}", error.expect_err("no space"));
        }
        return;
    }
    let folder = common::folder();
    let path = folder.path().join("m.onnx");
    let before = model(1000);
    save(
        &before,
        &path,
        &SaveOptions {
            external_data: true,
        },
    )
    .expect("fits");
    let output = Command::new("bash")
        .args([
            "-c",
            "trap '' XFSZ; ulimit -f 64; exec \"$0\" --exact --nocapture \"$1\"",
        ])
        .arg(env::current_exe().expect("this program"))
        .arg("a_failed_write_leaves_what_was_there")
        .env(FOLDER, folder.path())
        .output()
        .expect("bash");
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{printed}");
    assert_eq!(
        printed.matches("refused: cannot write").count(),
        2,
        "{printed}"
    );
    assert_eq!(common::names(folder.path()), ["m.onnx", "m.onnx.data"]);
    assert_eq!(load(&path).expect("still loads").model, before);
}
