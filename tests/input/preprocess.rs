//! Preprocessing against Pillow's and NumPy's own results.

use std::fs;
use std::path::Path;

use serde::Deserialize;
use vitq::input::{Channels, Preprocess, Preset, Resize, Size};

use super::python;

#[derive(Deserialize)]
struct Case {
    file: String,
    expected: String,
    dims: Vec<usize>,
    contract: Preprocess,
    /// The largest difference allowed, in steps of 1/255.
    levels: f64,
    /// The mean difference allowed, in steps of 1/255.
    mean_levels: f64,
}

/// Largest and mean difference to what Pillow gave, in levels of 8 bits.
fn difference(folder: &Path, case: &Case) -> (f64, f64) {
    let channels = if case.dims[1] == 1 {
        Channels::Luma
    } else {
        Channels::Rgb
    };
    let array = case
        .contract
        .load(&folder.join(&case.file), channels)
        .expect("an image that Pillow reads");
    assert_eq!(array.dims(), case.dims, "{}: {}", case.file, case.contract);
    let expected = fs::read(folder.join(&case.expected)).expect("the expected values");
    let values = array.as_f32().expect("f32");
    assert_eq!(expected.len(), values.len() * 4);
    let plane = case.dims[2] * case.dims[3];
    let std = case.contract.std.map(f64::from);
    let scale = |i: usize| {
        if case.dims[1] == 1 {
            std.iter().sum::<f64>() / 3.0
        } else {
            std[i / plane]
        }
    };
    let mut sum = 0.0;
    let mut max = 0.0f64;
    for (i, (chunk, &got)) in expected.as_chunks().0.iter().zip(values).enumerate() {
        let levels = f64::from(got - f32::from_le_bytes(*chunk)).abs() * scale(i) * 255.0;
        sum += levels;
        max = max.max(levels);
    }
    (max, sum / values.len() as f64)
}

/// Runs the program and compares each of its cases.
fn compare(program: &str, at_least: usize) {
    let folder = python::run(program);
    let cases = fs::read_to_string(folder.path().join("cases.json")).expect("cases.json");
    let cases: Vec<Case> = serde_json::from_str(&cases).expect("cases");
    assert!(cases.len() >= at_least, "only {} cases", cases.len());
    let mut worse = Vec::new();
    for case in &cases {
        let (max, mean) = difference(folder.path(), case);
        let line = format!(
            "{}: max {max:.3}, mean {mean:.5} levels ({})",
            case.file, case.contract
        );
        println!("{line}");
        // A level is counted through f32 arithmetic, which costs a little.
        if max > case.levels + 1e-3 || mean > case.mean_levels {
            worse.push(line);
        }
    }
    assert!(
        worse.is_empty(),
        "{} of {} cases:\n{}",
        worse.len(),
        cases.len(),
        worse.join("\n")
    );
}

#[test]
fn images_become_what_pillow_makes_of_them() {
    compare("pillow.py", 100);
}

/// Needs `../shared/data` and `../shared/tools` beside the repository, and fails without.
#[test]
#[ignore = "needs ../shared: the reference judge and its images"]
fn the_shared_sample_becomes_what_its_judge_makes_of_it() {
    compare("sample.py", 30);
}

#[test]
fn presets_scale_with_the_input() {
    let square = |preset, side| Preprocess::for_input(preset, side, side);
    for (preset, side, resize) in [
        (Preset::Inception, 224, Resize::ShortSide(248)),
        (Preset::Inception, 384, Resize::ShortSide(426)),
        (Preset::Imagenet, 224, Resize::ShortSide(256)),
        (Preset::Clip, 336, Resize::ShortSide(336)),
        (Preset::Cifar10, 32, Resize::Exact(Size::square(32))),
    ] {
        assert_eq!(
            square(preset, side).resize,
            Some(resize),
            "{preset} at {side}"
        );
        assert_eq!(
            preset.to_string().parse::<Preset>().expect("its own name"),
            preset
        );
    }
    let wide = Preprocess::for_input(Preset::Inception, 224, 448);
    assert_eq!(
        wide.resize,
        Some(Resize::Cover(Size {
            height: 248,
            width: 497
        }))
    );
    assert_eq!(
        wide.crop,
        Some(Size {
            height: 224,
            width: 448
        })
    );
}

#[test]
fn the_contract_is_one_line() {
    assert_eq!(
        Preprocess::for_input(Preset::Inception, 224, 224).to_string(),
        "resize short side to 248 (bicubic), centre crop 224x224, (x/255 - [0.5, 0.5, 0.5]) / [0.5, 0.5, 0.5], RGB, NCHW"
    );
}

#[test]
fn senseless_numbers_are_refused_by_name() {
    let fine = Preprocess::for_input(Preset::Imagenet, 224, 224);
    for (wrong, word) in [
        (
            Preprocess {
                std: [0.2, 0.0, 0.2],
                ..fine.clone()
            },
            "std is 0",
        ),
        (
            Preprocess {
                mean: [f32::NAN; 3],
                ..fine.clone()
            },
            "mean is NaN",
        ),
        (
            Preprocess {
                crop: Some(Size::square(0)),
                ..fine.clone()
            },
            "crop is 0",
        ),
        (
            Preprocess {
                resize: Some(Resize::ShortSide(u32::MAX)),
                ..fine.clone()
            },
            "resize is 4294967295",
        ),
    ] {
        let error = wrong.validate().expect_err("nonsense").to_string();
        assert!(error.contains(word), "{error}");
    }
    let error = "imagnet"
        .parse::<Preset>()
        .expect_err("a typing error")
        .to_string();
    assert!(
        error.contains("imagnet") && error.contains("imagenet, inception, clip, cifar10"),
        "{error}"
    );
}
