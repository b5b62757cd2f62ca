//! Whatever is wrong with the input: one message that names it, exit code 2, no output file and no panic.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use bytes::Bytes;

use super::vitq::{Folder, Run, digits, quantize, text, vitq};

/// Quantises the fixture, or what stands in for one of its parts, and expects a refusal that leaves nothing behind.
#[track_caller]
fn refused(model: &Path, calib: &Path, more: &[&str], words: &[&str]) {
    let folder = Folder::new();
    quantize(model, calib, &folder.path("out.onnx"), more).refuses(words);
    assert_eq!(folder.names(), [""; 0], "something was left behind");
}

fn model() -> PathBuf {
    digits("model.onnx")
}

fn calib() -> PathBuf {
    digits("images/calib")
}

#[test]
fn missing_files() {
    refused(
        Path::new("nowhere/vit.onnx"),
        &calib(),
        &[],
        &["nowhere/vit.onnx"],
    );
    refused(
        &model(),
        Path::new("nowhere/images"),
        &[],
        &["nowhere/images"],
    );
    refused(
        &model(),
        &calib(),
        &["--eval", "nowhere/test"],
        &["nowhere/test"],
    );
    refused(
        &model(),
        &calib(),
        &[
            "--eval",
            &text(&digits("images/test")),
            "--classes",
            "nowhere.txt",
        ],
        &["nowhere.txt"],
    );
}

#[test]
fn files_that_are_no_models() {
    let folder = Folder::new();
    let bytes = fs::read(model()).unwrap();
    let random: Vec<u8> = (0..5000u32)
        .map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8)
        .collect();
    let contents: [(&str, &[u8]); 5] = [
        ("empty.onnx", b""),
        ("text.onnx", b"this is no model\n"),
        ("random.onnx", &random),
        ("half.onnx", &bytes[..bytes.len() / 2]),
        ("nearly.onnx", &bytes[..bytes.len() - 7]),
    ];
    for (name, content) in contents {
        fs::write(folder.path(name), content).unwrap();
        refused(&folder.path(name), &calib(), &[], &[name]);
        vitq(&["inspect", &folder.arg(name)]).refuses(&[name]);
    }
    refused(&digits("images/calib/000.png"), &calib(), &[], &["000.png"]);
    refused(&calib(), &calib(), &[], &["images/calib"]);
}

#[test]
fn images_that_do_not_decode() {
    let folder = Folder::new();
    let image = fs::read(digits("images/calib/000.png")).unwrap();
    for (name, content) in [
        ("text.jpg", b"this is no image".as_slice()),
        ("cut.png", &image[..image.len() / 2]),
    ] {
        let images = folder.path(name).with_extension("");
        fs::create_dir(&images).unwrap();
        fs::write(images.join("good.png"), &image).unwrap();
        fs::write(images.join(name), content).unwrap();
        refused(&model(), &images, &[], &[name, "take it out"]);
        refused(&model(), &calib(), &["--eval", &text(&images)], &[name]);
    }
}

#[test]
fn folders_without_images() {
    let folder = Folder::new();
    fs::write(folder.path("notes.txt"), "no image").unwrap();
    refused(&model(), &folder.path("."), &[], &["no images"]);
    refused(
        &model(),
        &folder.path("notes.txt"),
        &[],
        &["notes.txt", ".npz"],
    );
}

/// The fixture with one element of an initialiser replaced.
fn spoilt(folder: &Folder, initializer: &str, value: f32) -> PathBuf {
    let mut model = vitq_onnx::load(model()).unwrap().model;
    let tensors = &mut model.graph.as_mut().unwrap().initializer;
    let tensor = tensors
        .iter_mut()
        .find(|it| it.name() == initializer)
        .expect("the fixture has it");
    let mut bytes = tensor.raw_data.take().unwrap().to_vec();
    bytes[8..12].copy_from_slice(&value.to_le_bytes());
    tensor.raw_data = Some(Bytes::from(bytes));
    folder.save("spoilt.onnx", &model)
}

#[test]
fn weights_that_are_no_numbers() {
    let folder = Folder::new();
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let path = spoilt(&folder, "blocks.1.norm1.weight", value);
        refused(
            &path,
            &calib(),
            &[],
            &["spoilt.onnx", "blocks.1.norm1.weight", "element 2"],
        );
    }
}

#[test]
fn outputs_that_cannot_be_written() {
    let folder = Folder::new();
    let run = |out: &Path| quantize(&model(), &calib(), out, &[]);
    run(&folder.path("no/such/out.onnx")).refuses(&["out.onnx", "no/such"]);
    run(&folder.path(".")).refuses(&["folder"]);
    let report = folder.arg("no/report.json");
    quantize(
        &model(),
        &calib(),
        &folder.path("out.onnx"),
        &["--report", &report],
    )
    .refuses(&["report.json"]);
    assert_eq!(folder.names(), [""; 0]);
}

#[cfg(target_os = "linux")]
#[test]
fn folders_that_take_no_files() {
    quantize(&model(), &calib(), Path::new("/proc/out.onnx"), &[]).refuses(&["/proc/out.onnx"]);
}

#[test]
fn the_model_is_not_overwritten() {
    let folder = Folder::new();
    let copy = folder.path("vit.onnx");
    fs::copy(model(), &copy).unwrap();
    quantize(&copy, &calib(), &copy, &[]).refuses(&["vit.onnx", "overwritten"]);
    quantize(&copy, &calib(), &folder.path("./vit.onnx"), &[]).refuses(&["overwritten"]);
    let report = text(&copy);
    quantize(
        &copy,
        &calib(),
        &folder.path("out.onnx"),
        &["--report", &report],
    )
    .refuses(&["overwritten"]);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&copy, folder.path("link.onnx")).unwrap();
        quantize(&copy, &calib(), &folder.path("link.onnx"), &[]).refuses(&["overwritten"]);
    }
    assert_eq!(fs::read(&copy).unwrap(), fs::read(model()).unwrap());
}

/// A limit on the size of files stands in for a full disk.
#[cfg(unix)]
#[test]
fn a_full_disk_leaves_the_old_file_and_nothing_else() {
    let folder = Folder::new();
    let out = folder.path("out.onnx");
    fs::write(&out, "what was here before").unwrap();
    let command = "trap '' XFSZ; ulimit -f 64; exec \"$0\" quantize \"$1\" --calib \"$2\" -o \"$3\" --samples 2 --resize 32";
    let arguments = [&model(), &calib(), &out];
    let run = Command::new("sh")
        .args(["-c", command, env!("CARGO_BIN_EXE_vitq")])
        .args(arguments)
        .output();
    Run::from(run.expect("sh starts")).refuses(&["out.onnx"]);
    assert_eq!(fs::read_to_string(&out).unwrap(), "what was here before");
    assert_eq!(folder.names(), ["out.onnx"]);
}

#[test]
fn models_without_sites() {
    let folder = Folder::new();
    let header = "<ir_version: 8, opset_import: [\"\" : 17]>";
    let none = format!(
        "{header} g (float[n,3,32,32] input) => (float[n,3,32,32] y) {{ y = Relu(input) }}"
    );
    refused(
        &folder.parse("relu.onnx", &none),
        &calib(),
        &[],
        &["relu.onnx", "nothing here can be quantised"],
    );
    let stem = format!(
        "{header} g (float[n,3,2,2] input) => (float[n,1,1,1] y) \
         <float[1,3,2,2] w = {{1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0, 11.0, 12.0}}> \
         {{ y = Conv<kernel_shape = [2, 2], strides = [2, 2]>(input, w) }}"
    );
    refused(
        &folder.parse("stem.onnx", &stem),
        &calib(),
        &[],
        &["stem.onnx", "in scope"],
    );
    let quantised = folder.path("quantised.onnx");
    quantize(&model(), &calib(), &quantised, &["--samples", "2"]).succeeds();
    refused(
        &quantised,
        &calib(),
        &[],
        &["quantised.onnx", "QuantizeLinear", "give the float model"],
    );
    let dynamic = format!(
        "{header} g (float[n,3,8,8] input, float[8,8] w) => (float[n,3,8,8] y) {{ [product] y = MatMul(input, w) }}"
    );
    let path = folder.parse("dynamic.onnx", &dynamic);
    vitq(&["inspect", &text(&path)]).succeeds();
}

#[test]
fn graphs_that_would_take_all_memory() {
    let folder = Folder::new();
    let text = "<ir_version: 8, opset_import: [\"\" : 17]> g (float[n,3,32,32] input) => (float[n,3,32,32] y) \
                <float[1,1] w = {1.0}> { t = MatMul(input, w) [turn] y = Transpose<perm = [0, 1, 1, 2]>(t) }";
    refused(
        &folder.parse("turn.onnx", text),
        &calib(),
        &[],
        &["turn.onnx", "`turn`", "[0, 1, 1, 2]"],
    );
}

#[test]
fn inputs_that_images_do_not_fit() {
    let folder = Folder::new();
    let body = "y = MatMul(input, w) }";
    let header = "<ir_version: 8, opset_import: [\"\" : 17]> g";
    let weight = "<float[2,2] w = {1.0, 2.0, 3.0, 4.0}>";
    let model = |name: &str, input: &str, output: &str| {
        folder.parse(
            name,
            &format!("{header} ({input} input) => ({output} y) {weight} {{ {body}"),
        )
    };
    let four = model("four.onnx", "float[n,4,2,2]", "float[n,4,2,2]");
    refused(&four, &calib(), &[], &["input", "[?, 4, 2, 2]"]);
    let tokens = model("tokens.onnx", "float[n,5,2]", "float[n,5,2]");
    refused(&tokens, &calib(), &[], &["input", "[?, 5, 2]", ".npz"]);
    let huge = model("huge.onnx", "float[8589934592,3,2,2]", "float[n,3,2,2]");
    refused(
        &huge,
        &calib(),
        &[],
        &["huge.onnx", "input", "symbolic batch"],
    );
    let open = model("open.onnx", "float[n,3,h,2]", "float[n,3,h,2]");
    refused(&open, &calib(), &[], &["open.onnx", "--crop"]);
}

#[test]
fn usage() {
    let cases: [&[&str]; 9] = [
        &["--bits", "w1a8"],
        &["--bits", "8"],
        &["--samples", "0"],
        &["--edge-bits", "9"],
        &["--preprocess", "magic"],
        &["--mean", "0.5,0.5"],
        &["--target", "toaster"],
        &["--threads", "0"],
        &["--effort", "heroic"],
    ];
    for case in cases {
        refused(&model(), &calib(), case, &[case[0]]);
    }
    refused(&model(), &calib(), &["--std", "0,1,1"], &["std"]);
    refused(
        &model(),
        &calib(),
        &["--crop", "16"],
        &["[3, 16, 16]", "[?, 3, 32, 32]"],
    );
    refused(
        &model(),
        &calib(),
        &["--keep-float", "mlp.fc2"],
        &["mlp.fc2", "blocks.0.mlp.fc2"],
    );
}
