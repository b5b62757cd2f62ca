//! The judge `judge.py`, and numbers to judge.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;
use vitq::linalg::{add_gram, mirror};

/// What a function of `judge.py` makes of its arguments.
pub fn ask(function: &str, arguments: &Value) -> Value {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("VITQ_PYTHON")
        .map_or_else(|| root.join(".venv/bin/python"), PathBuf::from);
    let mut child = Command::new(&python)
        .arg(root.join("tests/numerics/judge.py"))
        .arg(function)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| {
            panic!(
                "{} doesn't start ({error}): this test needs Python with tests/requirements.txt; make .venv or name \
                 the interpreter in VITQ_PYTHON",
                python.display()
            )
        });
    let mut input = child.stdin.take().expect("stdin is piped");
    // A judge that fails early closes the pipe; its own words below say more than the failed write.
    let _ = input.write_all(&serde_json::to_vec(arguments).expect("JSON"));
    drop(input);
    let output = child.wait_with_output().expect("the judge ends");
    assert!(
        output.status.success(),
        "{function}:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// A list of numbers in the judge's answer.
pub fn numbers(value: &Value) -> Vec<f64> {
    let list = value
        .as_array()
        .unwrap_or_else(|| panic!("no list: {value}"));
    list.iter()
        .map(|v| v.as_f64().unwrap_or_else(|| panic!("no number: {v}")))
        .collect()
}

/// Fails unless every value is within `tolerance` of the expected one, relative to the greatest of all.
#[track_caller]
pub fn close(given: &[f32], expected: &[f64], tolerance: f64) {
    assert_eq!(given.len(), expected.len());
    assert!(!given.is_empty());
    let scale = expected.iter().fold(0.0f64, |m, v| m.max(v.abs()));
    assert!(scale > 0.0, "nothing to compare with");
    for (i, (g, e)) in given.iter().zip(expected).enumerate() {
        let difference = (f64::from(*g) - e).abs();
        assert!(
            difference <= tolerance * scale,
            "element {i}: {g} is not {e} (greatest: {scale})"
        );
    }
}

/// Fails unless every value is the expected one, bit for bit but for the sign of zero.
#[track_caller]
pub fn same(given: &[f32], expected: &Value) {
    let expected = numbers(expected);
    assert_eq!(given.len(), expected.len());
    assert!(!given.is_empty());
    for (i, (g, e)) in given.iter().zip(expected).enumerate() {
        assert!(*g == e as f32, "element {i}: {g} is not {e}");
    }
}

/// `XᵀX` of `x [rows, k]`.
pub fn gram(x: &[f32], k: usize) -> Vec<f32> {
    let mut sums = vec![0.0; k * k];
    add_gram(&mut sums, x, x.len() / k, k);
    mirror(&mut sums, k);
    sums
}

/// Repeatable random numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Even in `[0, 1)`.
    pub fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 24) as f32
    }

    /// About a standard normal: twelve even numbers less their mean.
    pub fn normal(&mut self) -> f32 {
        (0..12).map(|_| self.unit()).sum::<f32>() - 6.0
    }

    /// `count` of them.
    pub fn normals(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.normal()).collect()
    }

    /// Mostly small values with a long tail to one side, as behind a GELU.
    pub fn tailed(&mut self, count: usize) -> Vec<f32> {
        (0..count)
            .map(|_| {
                let x = 2.0 * self.normal();
                if x < 0.0 { 0.05 * x } else { 0.3 * x * x }
            })
            .collect()
    }
}
