//! Every element type, in every field that may hold it, against onnx.numpy_helper.

mod common;

use std::fs;

use vitq_onnx::{DataType, SaveOptions, Tensor, load, save};

/// How the values of one tensor stand in the file of expected values.
fn compare(tensor: &Tensor, kind: &str, words: &[&str]) {
    assert_eq!(tensor.len(), words.len());
    if kind == "INT" {
        if tensor.dtype == DataType::Uint64 {
            let values = tensor
                .data
                .as_chunks()
                .0
                .iter()
                .map(|&bytes| u64::from_le_bytes(bytes).to_string());
            assert!(values.eq(words.iter().copied()));
            return;
        }
        let expected: Vec<i64> = words
            .iter()
            .map(|word| word.parse().expect("an integer"))
            .collect();
        assert_eq!(tensor.to_i64().expect("integers"), expected);
        let floats: Vec<f32> = expected.iter().map(|&value| value as f32).collect();
        assert_eq!(tensor.to_f32().expect("floats"), floats);
    } else {
        let bits = words
            .iter()
            .map(|word| u32::from_str_radix(word, 16).expect("bits"));
        let values = tensor.to_f32().expect("floats");
        for (i, (value, expected)) in values.iter().zip(bits.map(f32::from_bits)).enumerate() {
            let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
            assert!(
                same,
                "element {i}: {value:e} where numpy reads {expected:e}"
            );
        }
        assert!(tensor.to_i64().is_err());
    }
}

#[test]
fn values_are_those_that_onnx_reads() {
    let folder = common::folder();
    let (model, expected) = (
        folder.path().join("types.onnx"),
        folder.path().join("expected.txt"),
    );
    common::python("make_types.py", &[&model, &expected]);
    let mut loaded = load(&model).expect("loads");
    let expected = fs::read_to_string(expected).expect("expected values");
    let graph = loaded.model.graph.as_mut().expect("a graph");
    assert_eq!(
        graph.initializer.len(),
        25 * 4,
        "every numeric type, four times"
    );
    assert_eq!(expected.lines().count(), graph.initializer.len());
    for (message, line) in graph.initializer.iter_mut().zip(expected.lines()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(message.name(), words[0]);
        let tensor = Tensor::from_proto(message).unwrap_or_else(|error| panic!("{error}"));
        println!("{}", words[0]);
        compare(&tensor, words[1], &words[2..]);
        *message = tensor.to_proto(words[0]);
    }
    let written = folder.path().join("written.onnx");
    save(&loaded.model, &written, &SaveOptions::default()).expect("saves");
    common::python("same_tensors.py", &[&model, &written]);
}

#[test]
fn tensors_made_here_are_what_onnx_reads() {
    let folder = common::folder();
    let reference = folder.path().join("reference.onnx");
    common::python("make_made.py", &[&reference]);
    let packed = |dtype, dims: &[usize], codes: &[i16]| {
        Tensor::packed(dtype, dims, codes).expect("codes fit")
    };
    let made = [
        Tensor::from_f32(&[2, 2], &[1.5, -0.0, f32::INFINITY, 1e-40]),
        Tensor::from_i64(&[], &[i64::MIN]),
        Tensor::from_i32(&[3], &[1, -2, i32::MAX]),
        Tensor::from_i8(&[1, 3], &[-128, 0, 127]),
        Tensor::from_u8(&[2], &[0, 255]),
        Tensor::from_bool(&[3], &[true, false, true]),
        packed(DataType::Int4, &[5], &[-8, 7, 0, -1, 3]),
        packed(DataType::Uint4, &[3], &[15, 0, 9]),
        packed(DataType::Int2, &[5], &[-2, 1, 0, -1, 1]),
        packed(DataType::Uint2, &[7], &[3, 2, 1, 0, 3, 3, 1]),
        Tensor::from_f32(&[0, 4], &[]),
    ];
    let mut model = load(&reference).expect("loads").model;
    let graph = model.graph.as_mut().expect("a graph");
    assert_eq!(graph.initializer.len(), made.len());
    for (message, tensor) in graph.initializer.iter_mut().zip(&made) {
        *message = tensor.to_proto(message.name());
    }
    let written = folder.path().join("written.onnx");
    save(&model, &written, &SaveOptions::default()).expect("saves");
    common::python("same_tensors.py", &[&reference, &written]);
}
