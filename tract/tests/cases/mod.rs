//! What the tests judge against: graphs that `operators.py` makes, and what ONNX Runtime gave for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use ndarray::ArrayD;
use serde::Deserialize;
use tempfile::TempDir;

#[derive(Deserialize)]
pub struct Case {
    pub name: String,
    pub model: PathBuf,
    /// Greatest difference of floats; 0: bit for bit.
    tolerance: f32,
    /// Share of integers that may be one off.
    codes_off: f64,
    /// The outputs are the ONNX specification's, and ONNX Runtime's are others.
    pub specified: bool,
    /// Linears that can run in integers, where the case says; it is held to [`OFF`] then.
    pub integer: Option<usize>,
    /// QuantizeLinears once those in arithmetic are joined, where the case says.
    #[allow(dead_code, reason = "vitq's own tests see no operators of tract")]
    pub quantisers: Option<usize>,
    /// Sums of quantisers that become one operator, where the case says.
    #[allow(dead_code, reason = "vitq's own tests see no operators of tract")]
    pub staircases: Option<usize>,
    pub inputs: Vec<Stored>,
    pub outputs: Vec<Stored>,
}

/// Greatest difference of an element as a share of the root mean square of all: -100 dB.
const OFF: f32 = 1e-5;

impl Case {
    fn allowed(&self, expected: &ArrayD<f32>) -> f32 {
        let mean_square = || expected.iter().map(|e| e * e).sum::<f32>() / expected.len() as f32;
        self.integer
            .map_or(self.tolerance, |_| OFF * mean_square().sqrt())
    }

    fn judge(&self) -> &'static str {
        if self.specified {
            "the specification"
        } else {
            "ONNX Runtime"
        }
    }
}

#[derive(Deserialize)]
pub struct Stored {
    pub name: String,
    file: PathBuf,
    dtype: String,
    pub dims: Vec<usize>,
}

impl Stored {
    pub fn read(&self, folder: &Path) -> Values {
        let bytes = fs::read(folder.join(&self.file)).unwrap();
        let dims = &self.dims;
        match self.dtype.as_str() {
            "float32" => Values::F32(elements(&bytes, dims, f32::from_le_bytes)),
            "int64" => Values::I64(elements(&bytes, dims, i64::from_le_bytes)),
            "int32" => Values::I32(elements(&bytes, dims, i32::from_le_bytes)),
            "uint8" => Values::U8(elements(&bytes, dims, u8::from_le_bytes)),
            other => panic!("{}: no array of {other}", self.name),
        }
    }
}

/// An array of a type that the cases use.
#[derive(Clone, Debug, PartialEq)]
pub enum Values {
    F32(ArrayD<f32>),
    I64(ArrayD<i64>),
    I32(ArrayD<i32>),
    U8(ArrayD<u8>),
}

impl Values {
    pub fn dims(&self) -> &[usize] {
        match self {
            Self::F32(a) => a.shape(),
            Self::I64(a) => a.shape(),
            Self::I32(a) => a.shape(),
            Self::U8(a) => a.shape(),
        }
    }
}

fn elements<T, const N: usize>(bytes: &[u8], dims: &[usize], read: fn([u8; N]) -> T) -> ArrayD<T> {
    let (chunks, rest) = bytes.as_chunks::<N>();
    assert!(rest.is_empty());
    ArrayD::from_shape_vec(dims, chunks.iter().map(|&chunk| read(chunk)).collect()).unwrap()
}

/// The repository: the folder of a crate or the one above.
fn root() -> &'static Path {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    folder
        .parent()
        .filter(|above| above.join("tract/tests/operators.py").exists())
        .unwrap_or(folder)
}

pub fn python() -> PathBuf {
    let root = root();
    let python =
        std::env::var_os("VITQ_PYTHON").map_or(root.join(".venv/bin/python"), PathBuf::from);
    assert!(
        python.exists(),
        "{} is missing: this test needs a Python with numpy, onnx and onnxruntime there, or where \
         VITQ_PYTHON says",
        python.display()
    );
    python
}

/// Runs the script with further arguments and reads what it wrote.
pub fn cases(arguments: &[&Path]) -> (TempDir, Vec<Case>) {
    let folder = tempfile::tempdir().unwrap();
    let output = Command::new(python())
        .arg(root().join("tract/tests/operators.py"))
        .arg(folder.path())
        .args(arguments)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let listed = fs::read(folder.path().join("cases.json")).unwrap();
    (folder, serde_json::from_slice(&listed).unwrap())
}

/// Runs all cases by `run`, which is given a model and its named inputs.
pub fn all_agree(
    cases: &[Case],
    folder: &Path,
    run: impl Fn(&Case, &[u8], &[(String, Values)]) -> Result<Vec<Values>, String>,
) {
    let mut wrong = vec![];
    let mut exact = 0;
    for case in cases {
        let model = fs::read(folder.join(&case.model)).unwrap();
        let inputs = case.inputs.iter();
        let feed: Vec<_> = inputs.map(|i| (i.name.clone(), i.read(folder))).collect();
        match run(case, &model, &feed).and_then(|given| judge(case, folder, &given)) {
            Ok(difference) => {
                exact += usize::from(difference == 0.0);
                if difference > 0.0 {
                    println!("{}: differs by up to {difference:.1e}", case.name);
                }
            }
            Err(why) => wrong.push(format!("{}: {why}, says {}", case.name, case.judge())),
        }
    }
    println!("{exact} of {} bit for bit", cases.len());
    assert!(
        wrong.is_empty(),
        "{} cases are wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

/// What differs, or how much at most.
fn judge(case: &Case, folder: &Path, given: &[Values]) -> Result<f32, String> {
    assert_eq!(given.len(), case.outputs.len());
    let mut worst = 0f32;
    for (output, given) in case.outputs.iter().zip(given) {
        let expected = output.read(folder);
        let difference =
            compare(&expected, given, case).map_err(|e| format!("{}: {e}", output.name))?;
        worst = worst.max(difference);
    }
    Ok(worst)
}

fn compare(expected: &Values, given: &Values, case: &Case) -> Result<f32, String> {
    if expected.dims() != given.dims() {
        return Err(format!(
            "dims {:?} instead of {:?}",
            given.dims(),
            expected.dims()
        ));
    }
    match (expected, given) {
        (Values::F32(e), Values::F32(g)) => floats(e.iter().zip(g), case.allowed(e)),
        (Values::I32(e), Values::I32(g)) => codes(e.iter().zip(g), case.codes_off),
        (Values::U8(e), Values::U8(g)) => codes(e.iter().zip(g), case.codes_off),
        (e, g) => Err(format!("{g:?} instead of {e:?}")),
    }
}

fn floats<'a>(
    pairs: impl Iterator<Item = (&'a f32, &'a f32)>,
    tolerance: f32,
) -> Result<f32, String> {
    let mut worst = 0f32;
    for (i, (e, g)) in pairs.enumerate() {
        let equal = e.to_bits() == g.to_bits() || (e.is_nan() && g.is_nan());
        let difference = if equal { 0.0 } else { (e - g).abs() };
        if !equal && (tolerance == 0.0 || difference.is_nan() || difference > tolerance) {
            return Err(format!("element {i} is {g:e}, not {e:e}"));
        }
        worst = worst.max(difference);
    }
    Ok(worst)
}

fn codes<'a, T: Copy + Into<i64> + 'a>(
    pairs: impl Iterator<Item = (&'a T, &'a T)>,
    may_be_off: f64,
) -> Result<f32, String> {
    let (mut count, mut off) = (0, 0);
    for (i, (&e, &g)) in pairs.enumerate() {
        let (e, g) = (e.into(), g.into());
        if e != g && (may_be_off == 0.0 || e.abs_diff(g) > 1) {
            return Err(format!("element {i} is {g}, not {e}"));
        }
        count += 1;
        off += usize::from(e != g);
    }
    let share = off as f64 / f64::from(count.max(1));
    if share > may_be_off {
        Err(format!("{off} of {count} codes are off"))
    } else {
        Ok(share as f32)
    }
}
