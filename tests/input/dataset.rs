//! Folders and array files, made by Pillow and NumPy.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::TensorView;
use vitq::input::{
    Array, Dataset, ElementType, InputError, InputSpec, Labels, ModelInput, Preprocess, Preset,
};

use super::python;

pub fn input(name: &str, dims: &[Option<usize>], element: ElementType) -> ModelInput {
    ModelInput {
        name: name.into(),
        dims: dims.to_vec(),
        element,
    }
}

/// A model that takes `channels` × 8 × 8 pixels.
pub fn images(channels: usize) -> InputSpec<'static> {
    InputSpec {
        inputs: vec![input(
            "x",
            &[None, Some(channels), Some(8), Some(8)],
            ElementType::F32,
        )],
        preprocess: Some(Preprocess::for_input(Preset::Inception, 8, 8)),
        classes: None,
    }
}

/// A model that takes arrays of `[batch, 2, 5]`.
pub fn arrays(element: ElementType) -> InputSpec<'static> {
    InputSpec {
        inputs: vec![input("image", &[None, Some(2), Some(5)], element)],
        preprocess: None,
        classes: None,
    }
}

fn open_error(path: &Path, spec: &InputSpec<'_>) -> String {
    match Dataset::open(path, spec) {
        Ok(dataset) => panic!("{} was opened: {}", path.display(), dataset.describe()),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_says(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "`{word}` is not in: {message}");
    }
}

fn names(dataset: &Dataset, root: &Path) -> Vec<(String, Option<usize>)> {
    let sample = |index| {
        let sample = dataset.get(index).expect("a sample");
        let name = Path::new(&sample.name)
            .strip_prefix(root)
            .expect("below the root");
        (name.to_string_lossy().into_owned(), sample.label)
    };
    (0..dataset.len()).map(sample).collect()
}

#[test]
fn folders_are_read_in_order_with_their_labels() {
    let folder = python::run("files.py");
    let root = folder.path();
    let tree = Dataset::open(&root.join("tree"), &images(3)).expect("a tree");
    let order = [
        ("ant/7.JPEG", 0),
        ("bee/2.png", 1),
        ("cat/0.jpg", 2),
        ("cat/1.png", 2),
    ];
    let expected: Vec<_> = order
        .iter()
        .map(|&(name, label)| (name.to_owned(), Some(label)))
        .collect();
    assert_eq!(names(&tree, &root.join("tree")), expected);
    assert_eq!(tree.labels(), &Labels::FolderOrder { folders: 4 });
    assert_says(
        &tree.describe(),
        &[
            "4 images",
            "sorted order of the 4 sub-folders",
            "centre crop 8x8",
        ],
    );

    let classes = root.join("classes.txt");
    let listed = InputSpec {
        classes: Some(&classes),
        ..images(3)
    };
    let tree = Dataset::open(&root.join("tree"), &listed).expect("a tree");
    let labels: Vec<_> = names(&tree, &root.join("tree"))
        .into_iter()
        .map(|(_, label)| label)
        .collect();
    assert_eq!(labels, [Some(3), Some(1), Some(4), Some(4)]);
    assert_eq!(
        tree.labels(),
        &Labels::ClassList {
            path: classes.clone(),
            classes: 5
        }
    );

    let flat = Dataset::open(&root.join("flat"), &images(3)).expect("a folder");
    let expected: Vec<_> = ["a.bmp", "b.png", "more/c.png"]
        .iter()
        .map(|&name| (name.to_owned(), None))
        .collect();
    assert_eq!(names(&flat, &root.join("flat")), expected);
    let flat = flat.first(2);
    assert_eq!(flat.len(), 2);
    assert!(matches!(
        flat.get(2),
        Err(InputError::Index {
            index: 2,
            len: 2,
            ..
        })
    ));

    let grey = Dataset::open(&root.join("flat"), &images(1))
        .expect("a folder")
        .get(0)
        .expect("a sample");
    assert_eq!(grey.tensors[0].1.dims(), [1, 1, 8, 8]);
}

#[test]
fn folders_that_cannot_be_fed_say_why() {
    let folder = python::run("files.py");
    let root = folder.path();
    let (tree, flat) = (root.join("tree"), root.join("flat"));
    assert_says(
        &open_error(&root.join("absent"), &images(3)),
        &["absent", "no such file"],
    );
    assert_says(
        &open_error(&root.join("nothing"), &images(3)),
        &["nothing", "no images", "jpg, jpeg, png"],
    );
    assert_says(
        &open_error(&root.join("classes.txt"), &images(3)),
        &["classes.txt", ".safetensors"],
    );
    assert_says(
        &open_error(&tree, &images(4)),
        &["[?, 4, 8, 8]", "3 or 1 channels"],
    );
    assert_says(
        &open_error(
            &tree,
            &InputSpec {
                preprocess: None,
                ..images(3)
            },
        ),
        &["input `x`", "imagenet, inception"],
    );
    let larger = InputSpec {
        preprocess: Some(Preprocess::for_input(Preset::Clip, 9, 9)),
        ..images(3)
    };
    assert_says(
        &open_error(&tree, &larger),
        &["[3, 9, 9]", "input `x` takes [?, 3, 8, 8]"],
    );
    let two = InputSpec {
        inputs: [images(3).inputs, arrays(ElementType::F32).inputs].concat(),
        ..images(3)
    };
    assert_says(&open_error(&tree, &two), &["2 inputs (x, image)"]);
    let bytes = InputSpec {
        inputs: vec![input("x", &[None, Some(3), None, None], ElementType::U8)],
        ..images(3)
    };
    assert_says(&open_error(&tree, &bytes), &["takes u8, not f32"]);
    for (list, of, words) in [
        ("few.txt", &tree, ["few.txt", "`cat`"]),
        ("twice.txt", &tree, ["`cat`", "lines 0, 2"]),
        ("classes.txt", &flat, ["flat", "no sub-folder"]),
        ("absent.txt", &tree, ["absent.txt", "no such file"]),
    ] {
        let list = root.join(list);
        assert_says(
            &open_error(
                of,
                &InputSpec {
                    classes: Some(&list),
                    ..images(3)
                },
            ),
            &words,
        );
    }
    let uncropped = Preprocess {
        resize: None,
        crop: None,
        ..Preprocess::for_input(Preset::Clip, 8, 8)
    };
    let spec = InputSpec {
        preprocess: Some(uncropped),
        ..images(3)
    };
    let error = Dataset::open(&flat, &spec)
        .expect("known image by image")
        .get(0)
        .expect_err("10 x 12 pixels");
    assert_says(&error.to_string(), &["a.bmp", "[3, 10, 12]"]);
}

#[test]
fn npy_of_every_type_is_what_numpy_converts_it_to() {
    let folder = python::run("files.py");
    let mut checked = 0;
    for entry in fs::read_dir(folder.path()).expect("the folder") {
        let expected = entry.expect("an entry").path();
        if expected
            .extension()
            .is_none_or(|extension| extension != "f32")
        {
            continue;
        }
        let file = expected.with_extension("npy");
        let dataset = Dataset::open(&file, &arrays(ElementType::F32)).expect("an array");
        assert_eq!(dataset.len(), 3);
        let mut bytes = Vec::new();
        for index in 0..3 {
            let sample = dataset.get(index).expect("a sample");
            let (name, array) = &sample.tensors[0];
            assert_eq!(
                (name.as_str(), array.dims(), sample.label),
                ("image", &[1, 2, 5][..], None)
            );
            bytes.extend(
                array
                    .as_f32()
                    .expect("f32")
                    .iter()
                    .flat_map(|value| value.to_le_bytes()),
            );
        }
        assert_eq!(
            bytes,
            fs::read(&expected).expect("the expected values"),
            "{}",
            file.display()
        );
        checked += 1;
    }
    assert_eq!(checked, 17);
}

#[test]
fn npz_feeds_several_inputs_by_name() {
    let folder = python::run("files.py");
    let ids = input("ids", &[None, None], ElementType::I64);
    let both = InputSpec {
        inputs: [vec![ids], arrays(ElementType::F32).inputs].concat(),
        ..arrays(ElementType::F32)
    };
    for file in ["both.npz", "packed.npz"] {
        let dataset = Dataset::open(&folder.path().join(file), &both).expect("an archive");
        assert_says(&dataset.describe(), &["3 samples", "preprocessed already"]);
        let tensors: HashMap<_, _> = dataset
            .get(2)
            .expect("a sample")
            .tensors
            .into_iter()
            .collect();
        let Array::I64(ids) = &tensors["ids"] else {
            panic!("{:?}", tensors["ids"])
        };
        assert_eq!(ids.shape(), [1, 5]);
        assert_eq!(
            ids.iter().copied().collect::<Vec<_>>(),
            [20, 21, 22, 23, 24]
        );
        assert_eq!(tensors["image"].as_f32().expect("f32")[[0, 1, 4]], 29.0);
    }
    let path = folder.path().join("both.npz");
    let absent = InputSpec {
        inputs: vec![input("mask", &[None], ElementType::F32)],
        ..arrays(ElementType::F32)
    };
    assert_says(
        &open_error(&path, &absent),
        &["`mask`", "image", "ids", "spare"],
    );
    assert_says(
        &open_error(&folder.path().join("uneven.npz"), &both),
        &["2, 3 samples"],
    );
    assert_says(
        &open_error(&folder.path().join("f4le.npy"), &both),
        &["one array", "ids, image"],
    );
}

#[test]
fn safetensors_are_read_by_name() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("samples.safetensors");
    let floats: Vec<u8> = (0..30)
        .flat_map(|i| (i as f32 / 4.0).to_le_bytes())
        .collect();
    let halves: Vec<u8> = (0..30)
        .flat_map(|i| half::bf16::from_f32(i as f32).to_le_bytes())
        .collect();
    let view = |kind, data| TensorView::new(kind, vec![3, 2, 5], data).expect("a tensor");
    let tensors = [
        ("image", view(Dtype::F32, &floats)),
        ("halves", view(Dtype::BF16, &halves)),
    ];
    safetensors::serialize_to_file(tensors, None, &path).expect("a file");
    let halves = input("halves", &[None, Some(2), Some(5)], ElementType::F32);
    let spec = InputSpec {
        inputs: [arrays(ElementType::F32).inputs, vec![halves]].concat(),
        ..arrays(ElementType::F32)
    };
    let sample = Dataset::open(&path, &spec)
        .expect("tensors")
        .get(1)
        .expect("a sample");
    assert_eq!(
        sample.tensors[0].1.as_f32().expect("f32")[[0, 1, 0]],
        15.0 / 4.0
    );
    assert_eq!(sample.tensors[1].1.as_f32().expect("f32")[[0, 1, 0]], 15.0);
    let absent = InputSpec {
        inputs: vec![input("mask", &[None], ElementType::F32)],
        ..arrays(ElementType::F32)
    };
    assert_says(&open_error(&path, &absent), &["`mask`", "halves, image"]);
}

#[test]
fn arrays_that_do_not_fit_say_why() {
    let folder = python::run("files.py");
    let file = |name: &str| folder.path().join(name);
    let f32 = arrays(ElementType::F32);
    for (name, spec, words) in [
        ("flat.npy", &f32, ["[3, 10]", "[?, 2, 5]"]),
        ("scalar.npy", &f32, ["[]", "[?, 2, 5]"]),
        ("columns.npy", &f32, ["columns.npy", "ascontiguousarray"]),
        ("none.npy", &f32, ["no samples", "none.npy"]),
        ("text.npy", &f32, ["<U1", "astype"]),
        ("fields.npy", &f32, ["fields.npy", "`descr`"]),
        (
            "f4le.npy",
            &arrays(ElementType::I64),
            ["holds f32", "takes i64"],
        ),
        (
            "u1one.npy",
            &arrays(ElementType::Bool),
            ["holds u8", "takes bool"],
        ),
    ] {
        assert_says(&open_error(&file(name), spec), &words);
    }
    let one = InputSpec {
        inputs: vec![input("x", &[None, None, None], ElementType::F32)],
        ..f32.clone()
    };
    for (name, word) in [
        ("nan.npy", "NaN"),
        ("large.npy", "16777217"),
        ("far.npy", "1e300"),
    ] {
        let dataset = Dataset::open(&file(name), &one).expect("an array");
        dataset.get(1).expect("a number that fits");
        let error = dataset
            .get(2)
            .expect_err("a number that does not")
            .to_string();
        assert_says(&error, &[name, "sample 2", "`x`", word]);
    }
    let bytes = InputSpec {
        inputs: vec![input("x", &[None, None, None], ElementType::U8)],
        ..f32
    };
    let error = Dataset::open(&file("large.npy"), &bytes)
        .expect("integers")
        .get(2)
        .expect_err("more than 255");
    assert_says(&error.to_string(), &["16777217", "range"]);
}
