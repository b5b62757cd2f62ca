//! A plan on the disk: `PLAN.json` for people and diffs, its arrays beside it in `PLAN.safetensors`.
//!
//! The JSON is the plan itself with every array left empty; `arrays` lists what belongs where. An array's key is its place:
//! `/blocks/blocks.0/mlp/fc1/MatMul#weight.codes`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use vitq_passes::plan::{Decision, LinearPlan, Plan, SitePlan, VERSION};

use crate::output;

/// Why a plan file cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum PlanFileError {
    /// The file cannot be read.
    #[error("{}: cannot be read ({source}); check the path", path.display())]
    Read {
        /// The JSON or the arrays.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("{}: cannot be written ({source}); check the folder, its permissions and the space left", path.display())]
    Write {
        /// The JSON or the arrays.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The JSON is no plan.
    #[error("{}: this is no plan ({source}); make it with `vitq plan`", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where reading failed.
        source: serde_json::Error,
    },
    /// Written by another version of the program.
    #[error("{}: the plan has form version {found}, this program reads version {VERSION}; make it again with `vitq plan`", path.display())]
    Version {
        /// The file.
        path: PathBuf,
        /// The plan's version.
        found: u32,
    },
    /// The arrays are not those that the JSON speaks of.
    #[error("{}: {reason}; keep both files of a plan together, or make it again with `vitq plan`", path.display())]
    Arrays {
        /// The file of arrays.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The plan belongs to another model.
    #[error("{}: this plan was made from another model than {} (fingerprints {found} and {expected}); make it again with `vitq plan`", path.display(), model.display())]
    OtherModel {
        /// The plan.
        path: PathBuf,
        /// The model.
        model: PathBuf,
        /// Fingerprint in the plan.
        found: String,
        /// Fingerprint of the model.
        expected: String,
    },
}

/// What the JSON holds.
#[derive(Serialize, Deserialize)]
struct Document {
    /// Name of the file with the arrays, in the same folder.
    arrays_file: String,
    /// The plan, its arrays empty.
    plan: Plan,
    /// Every array's key and number of elements.
    arrays: BTreeMap<String, usize>,
}

/// The version alone, read first: another version's plan may have other fields.
#[derive(Deserialize)]
struct Header {
    plan: HeaderPlan,
}

#[derive(Deserialize)]
struct HeaderPlan {
    version: u32,
}

/// Where the arrays of the plan at `path` stand.
pub fn arrays_path(path: &Path) -> PathBuf {
    path.with_extension("safetensors")
}

/// Writes a plan: the arrays first, then the JSON that speaks of them, each whole or not at all.
///
/// # Errors
/// [`PlanFileError::Write`].
pub fn save(plan: &Plan, path: &Path) -> Result<(), PlanFileError> {
    let beside = arrays_path(path);
    let mut plan = plan.clone();
    let mut taken: Vec<(String, Dtype, Vec<u8>)> = Vec::new();
    let mut sizes = BTreeMap::new();
    visit(&mut plan, &mut |key, array| {
        if let Some((dtype, bytes)) = array.take() {
            sizes.insert(key.clone(), bytes.len() / width(dtype));
            taken.push((key, dtype, bytes));
        }
        Ok::<_, PlanFileError>(())
    })?;
    let views = taken.iter().filter_map(|(key, dtype, bytes)| {
        Some((
            key,
            TensorView::new(*dtype, vec![bytes.len() / width(*dtype)], bytes).ok()?,
        ))
    });
    let write = |path: &Path, bytes: &[u8]| {
        output::write(path, bytes).map_err(|source| PlanFileError::Write {
            path: path.into(),
            source,
        })
    };
    let arrays = safetensors::serialize(views, None).map_err(|error| PlanFileError::Write {
        path: beside.clone(),
        source: io::Error::other(error),
    })?;
    let arrays_file = beside
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let document = Document {
        arrays_file,
        plan,
        arrays: sizes,
    };
    let json = serde_json::to_vec_pretty(&document).map_err(|source| PlanFileError::Write {
        path: path.into(),
        source: source.into(),
    })?;
    write(&beside, &arrays)?;
    write(path, &json)
}

/// Reads a plan.
///
/// # Errors
/// A file is missing, is no plan, is of another version, or the arrays are not those of the JSON.
pub fn load(path: &Path) -> Result<Plan, PlanFileError> {
    let read = |path: &Path| {
        fs::read(path).map_err(|source| PlanFileError::Read {
            path: path.into(),
            source,
        })
    };
    let no_plan = |source| PlanFileError::Json {
        path: path.into(),
        source,
    };
    let json = read(path)?;
    let found = serde_json::from_slice::<Header>(&json)
        .map_err(no_plan)?
        .plan
        .version;
    if found != VERSION {
        return Err(PlanFileError::Version {
            path: path.into(),
            found,
        });
    }
    let Document {
        mut plan, arrays, ..
    } = serde_json::from_slice(&json).map_err(no_plan)?;
    let beside = arrays_path(path);
    let bytes = read(&beside)?;
    let wrong = |reason| PlanFileError::Arrays {
        path: beside.clone(),
        reason,
    };
    let stored = SafeTensors::deserialize(&bytes)
        .map_err(|error| wrong(format!("no safetensors file ({error})")))?;
    let mut open: HashMap<String, usize> = arrays.into_iter().collect();
    visit(&mut plan, &mut |key, array| {
        let Some(size) = open.remove(&key) else {
            return Ok(());
        };
        let tensor = stored
            .tensor(&key)
            .map_err(|_| wrong(format!("the array `{key}` is missing")))?;
        if tensor.dtype() != array.dtype() || tensor.data().len() != size * width(array.dtype()) {
            return Err(wrong(format!(
                "the array `{key}` has another type or length than the plan says"
            )));
        }
        array.fill(tensor.data());
        Ok(())
    })?;
    if let Some(key) = open.into_keys().next() {
        return Err(wrong(format!(
            "the plan lists the array `{key}`, for which it has no site"
        )));
    }
    match plan.sites.iter().find_map(wrong_scales) {
        None => Ok(plan),
        Some(reason) => Err(wrong(reason)),
    }
}

/// What is wrong with the number of a weight's scales.
fn wrong_scales(site: &SitePlan) -> Option<String> {
    let Decision::Linear(LinearPlan { weight, .. }) = &site.decision else {
        return None;
    };
    let scales = weight.scales_of_row(weight.inputs());
    let whole = weight.inputs() * weight.out == weight.codes.len();
    let blocks = weight
        .block
        .map_or_else(String::new, |block| format!(" in blocks of {block}"));
    (!whole || weight.scale.len() != weight.out * scales).then(|| {
        format!(
            "the weight of `{}` has {} scales and {} codes for {} output channels{blocks}",
            site.site,
            weight.scale.len(),
            weight.codes.len(),
            weight.out
        )
    })
}

/// Fails where a plan was made from another model.
///
/// # Errors
/// [`PlanFileError::OtherModel`].
pub fn check_model(
    plan: &Plan,
    path: &Path,
    model: &Path,
    fingerprint: &str,
) -> Result<(), PlanFileError> {
    if plan.model == fingerprint {
        return Ok(());
    }
    Err(PlanFileError::OtherModel {
        path: path.into(),
        model: model.into(),
        found: plan.model.clone(),
        expected: fingerprint.into(),
    })
}

/// An array of the plan, to be taken out or put back.
enum ArrayMut<'a> {
    F32(&'a mut Vec<f32>),
    I8(&'a mut Vec<i8>),
}

impl ArrayMut<'_> {
    fn dtype(&self) -> Dtype {
        match self {
            Self::F32(_) => Dtype::F32,
            Self::I8(_) => Dtype::I8,
        }
    }

    /// Type and little-endian bytes of an array that isn't empty; it is empty afterwards.
    fn take(self) -> Option<(Dtype, Vec<u8>)> {
        let dtype = self.dtype();
        let bytes: Vec<u8> = match self {
            Self::F32(array) => std::mem::take(array)
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect(),
            Self::I8(array) => std::mem::take(array)
                .iter()
                .flat_map(|v| v.to_le_bytes())
                .collect(),
        };
        (!bytes.is_empty()).then_some((dtype, bytes))
    }

    fn fill(self, bytes: &[u8]) {
        match self {
            Self::F32(array) => {
                *array = bytes
                    .as_chunks()
                    .0
                    .iter()
                    .map(|&b| f32::from_le_bytes(b))
                    .collect()
            }
            Self::I8(array) => *array = bytes.iter().map(|&b| i8::from_le_bytes([b])).collect(),
        }
    }
}

fn width(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F32 => 4,
        _ => 1,
    }
}

/// Shows every array of the plan with its key.
fn visit<E>(
    plan: &mut Plan,
    see: &mut impl FnMut(String, ArrayMut<'_>) -> Result<(), E>,
) -> Result<(), E> {
    for norm in &mut plan.norms {
        see(
            format!("{}#gamma", norm.norm),
            ArrayMut::F32(&mut norm.gamma),
        )?;
        see(format!("{}#beta", norm.norm), ArrayMut::F32(&mut norm.beta))?;
    }
    for site in &mut plan.sites {
        let name = &site.site;
        match &mut site.decision {
            Decision::Float {
                replace: Some((weight, bias)),
                ..
            } => {
                see(format!("{name}#weight"), ArrayMut::F32(weight))?;
                see(format!("{name}#bias"), ArrayMut::F32(bias))?;
            }
            Decision::Float { replace: None, .. } | Decision::Product { .. } => {}
            Decision::Linear(linear) => visit_linear(name, linear, see)?,
        }
    }
    Ok(())
}

fn visit_linear<E>(
    name: &str,
    linear: &mut LinearPlan,
    see: &mut impl FnMut(String, ArrayMut<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let weight = &mut linear.weight;
    see(
        format!("{name}#weight.codes"),
        ArrayMut::I8(&mut weight.codes),
    )?;
    see(
        format!("{name}#weight.scale"),
        ArrayMut::F32(&mut weight.scale),
    )?;
    see(
        format!("{name}#weight.zero_point"),
        ArrayMut::I8(&mut weight.zero_point),
    )?;
    if let Some(table) = &mut weight.table {
        see(format!("{name}#weight.table"), ArrayMut::I8(table))?;
    }
    see(format!("{name}#bias"), ArrayMut::F32(&mut linear.bias))?;
    if let Some(scale) = &mut linear.pre_scale {
        see(format!("{name}#pre_scale"), ArrayMut::F32(scale))?;
    }
    if let Some(branch) = &mut linear.low_rank {
        see(
            format!("{name}#low_rank.down"),
            ArrayMut::F32(&mut branch.down),
        )?;
        see(format!("{name}#low_rank.up"), ArrayMut::F32(&mut branch.up))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use vitq_passes::plan::{Activation, LowRank, NormPlan, Rotation, Segment, ValuePlan, Weight};

    fn uniform() -> Activation {
        Activation::Uniform {
            bits: 8,
            scale: 0.1,
            zero_point: 7,
        }
    }

    fn linear() -> LinearPlan {
        LinearPlan {
            activation: Activation::Codebook {
                scale: 0.3,
                segments: vec![Segment {
                    step: 2,
                    from: -8,
                    to: 22,
                }],
            },
            pre_scale: Some(vec![0.1, 1e-30, 3.0]),
            weight: Weight {
                bits: 4,
                out: 2,
                codes: vec![-128, 0, 1, 127, -3, 5],
                block: None,
                scale: vec![0.1, f32::MIN_POSITIVE],
                zero_point: vec![-1, 1],
                table: Some((-8..8).collect()),
            },
            bias: vec![0.0, -1.5],
            low_rank: Some(LowRank {
                rank: 1,
                bits: 32,
                down: vec![1.0, 2.0, 3.0],
                up: vec![0.5, 0.25],
            }),
        }
    }

    fn plan() -> Plan {
        let site = |name: &str, decision| SitePlan {
            site: name.into(),
            decision,
        };
        Plan {
            version: VERSION,
            rotation: Some(Rotation {
                seed: 7,
                streams: true,
                values: false,
            }),
            model: "00ff".into(),
            settings: [("bits".to_owned(), "w4a4".to_owned())].into(),
            values: vec![ValuePlan {
                value: "block1".into(),
                least: -0.5,
                most: 7.25,
            }],
            norms: vec![NormPlan {
                norm: "norm1".into(),
                gamma: vec![1.0, 1.1],
                beta: vec![0.0, -0.3],
            }],
            sites: vec![
                site("a", Decision::Linear(linear())),
                site(
                    "b",
                    Decision::Float {
                        reason: "asked for".into(),
                        replace: Some((vec![1.0; 6], vec![0.7; 2])),
                    },
                ),
                site(
                    "c",
                    Decision::Product {
                        left: uniform(),
                        right: Activation::Log {
                            bits: 4,
                            step: 0.5,
                            shift: 1,
                        },
                    },
                ),
                site(
                    "d",
                    Decision::Float {
                        reason: "the head".into(),
                        replace: None,
                    },
                ),
            ],
        }
    }

    fn saved() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.plan.json");
        save(&plan(), &path).unwrap();
        (folder, path)
    }

    #[test]
    fn what_is_read_is_what_was_written() {
        let (folder, path) = saved();
        assert_eq!(load(&path).unwrap(), plan());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    #[test]
    fn the_json_holds_no_long_arrays() {
        let (_folder, path) = saved();
        let json = fs::read_to_string(&path).unwrap();
        let document: serde_json::Value = serde_json::from_str(&json).unwrap();
        assert_eq!(
            document["plan"]["sites"][0]["decision"]["linear"]["weight"]["codes"],
            serde_json::json!([])
        );
        assert_eq!(document["arrays"]["a#weight.codes"], 6);
        assert_eq!(document["arrays_file"], "a.plan.safetensors");
    }

    #[test]
    fn other_versions_are_refused_by_number() {
        let (_folder, path) = saved();
        let json = fs::read_to_string(&path)
            .unwrap()
            .replace(&format!("\"version\": {VERSION}"), "\"version\": 99");
        fs::write(&path, json).unwrap();
        assert!(matches!(
            load(&path),
            Err(PlanFileError::Version { found: 99, .. })
        ));
    }

    #[test]
    fn arrays_must_be_there_and_fit() {
        let (_folder, path) = saved();
        let json = fs::read_to_string(&path).unwrap();
        fs::write(
            &path,
            json.replace("\"a#weight.codes\": 6", "\"a#weight.codes\": 7"),
        )
        .unwrap();
        assert!(matches!(load(&path), Err(PlanFileError::Arrays { .. })));
        fs::write(
            &path,
            json.replace("\"a#weight.codes\": 6", "\"e#weight.codes\": 6"),
        )
        .unwrap();
        assert!(matches!(load(&path), Err(PlanFileError::Arrays { .. })));
        fs::write(&path, &json).unwrap();
        fs::write(arrays_path(&path), b"short").unwrap();
        assert!(matches!(load(&path), Err(PlanFileError::Arrays { .. })));
        fs::remove_file(arrays_path(&path)).unwrap();
        assert!(matches!(load(&path), Err(PlanFileError::Read { .. })));
    }

    /// A plan of one Linear of two rows of three inputs, in blocks of two.
    fn blocked() -> Plan {
        let mut plan = plan();
        let mut linear = linear();
        linear.weight = Weight {
            block: Some(2),
            scale: vec![0.1, 0.2, 0.3, 0.4],
            zero_point: Vec::new(),
            table: None,
            ..linear.weight
        };
        plan.sites[0].decision = Decision::Linear(linear);
        plan
    }

    #[test]
    fn scales_are_as_many_as_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.plan.json");
        save(&blocked(), &path).unwrap();
        assert_eq!(load(&path).unwrap(), blocked());
        let json = fs::read_to_string(&path).unwrap();
        let edits = [
            ("\"block\": 2", "\"block\": 3"),
            ("\"block\": 2", "\"block\": null"),
            ("\"block\": 2", "\"block\": 0"),
            ("\"out\": 2", "\"out\": 0"),
            ("\"out\": 2", "\"out\": 18446744073709551615"),
        ];
        for (said, instead) in edits {
            assert!(json.contains(said), "{json}");
            fs::write(&path, json.replace(said, instead)).unwrap();
            let refused = load(&path).unwrap_err().to_string();
            assert!(refused.contains("`a` has 4 scales"), "{instead}: {refused}");
        }
    }

    #[test]
    fn what_is_no_plan_is_said_to_be_none() {
        let (_folder, path) = saved();
        fs::write(&path, b"{\"a\": 1}").unwrap();
        assert!(matches!(load(&path), Err(PlanFileError::Json { .. })));
    }

    #[test]
    fn a_plan_belongs_to_its_model() {
        let (model, path) = (Path::new("m.onnx"), Path::new("p.json"));
        assert!(check_model(&plan(), path, model, "00ff").is_ok());
        assert!(matches!(
            check_model(&plan(), path, model, "00fe"),
            Err(PlanFileError::OtherModel { .. })
        ));
    }
}
