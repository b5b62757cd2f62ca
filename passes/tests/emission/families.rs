//! Every family's model with all its norms folded, its streams rotated or its choices of tokens moved, and nothing quantised: the
//! outputs stay, in ONNX Runtime.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use vitq_passes::ir::{Graph, Outlet};
use vitq_passes::lower::{choose_early, fuse_attentions};
use vitq_passes::plan::{Decision, NormPlan, Plan};
use vitq_passes::quantise::apply;
use vitq_passes::simplify::upgrade;
use vitq_passes::structure::{Norm, Site, Structure, recognise};
use vitq_passes::target::Target;
use vitq_passes::transform::{LinearParams, TransformError, affine_fold, rotate, rotate_values};
use vitq_passes::widen::widen;

use crate::support::{plan, python};

#[test]
fn folds_alone_keep_every_family() {
    let total = judge(folded);
    assert!(total >= 200, "only {total} norms were folded");
}

#[test]
fn rotation_alone_keeps_every_family() {
    let total = judge(rotated);
    assert!(total >= 30, "only {total} streams were rotated");
}

#[test]
fn rotated_values_keep_every_family() {
    let total = judge(|path| turned(path, rotate_values));
    assert!(total >= 100, "V was rotated {total} times only");
}

#[test]
fn early_choices_of_tokens_keep_every_family() {
    let total = judge(|path| {
        let mut graph = simplified(path);
        let products = choose_early(&mut graph);
        graph.remove_dead();
        (graph, products)
    });
    assert!(total >= 50, "only {total} products became smaller");
}

#[test]
fn attentions_as_one_operator_keep_every_family() {
    let total = judge(|path| {
        let mut graph = simplified(path);
        // Those that nobody raised that far stay as they are.
        let raised = upgrade::to(&mut graph, upgrade::NEWEST);
        let count = raised.map_or(0, |()| fuse_attentions(&mut graph));
        (graph, count)
    });
    assert!(total >= 60, "only {total} attentions became one operator");
}

/// Rewrites every family's model and compares it with its file; gives the number of places that were rewritten.
fn judge(rewrite: impl Fn(&Path) -> (Graph, usize)) -> usize {
    let families = root().join("fixtures/families");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let wide = folder.path().join("float32");
    std::fs::create_dir(&wide).expect("a folder");
    let mut places = BTreeMap::new();
    for path in models(&families) {
        let name = path.file_stem().expect("a name").to_string_lossy();
        let (graph, count) = rewrite(&path);
        let bytes = graph.export().encode_to_vec();
        std::fs::write(folder.path().join(format!("{name}.onnx")), bytes).expect("a file");
        if let Some(bytes) = widened(&path) {
            std::fs::write(wide.join(format!("{name}.onnx")), bytes).expect("a file");
        }
        places.insert(name.into_owned(), count);
    }
    println!("{places:?}");
    let said = Command::new(python())
        .arg(root().join("passes/tests/emission/families.py"))
        .args([&families, folder.path()])
        .output()
        .unwrap_or_else(|e| panic!("{}: {e}; set VITQ_PYTHON", python().display()));
    let table = String::from_utf8_lossy(&said.stdout);
    println!("{table}");
    let wrong = String::from_utf8_lossy(&said.stderr);
    assert!(said.status.success(), "{table}{wrong}");
    places.values().sum()
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

fn models(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "onnx"));
    files.sort();
    files
}

/// The model in float32, encoded, if its file is narrower.
fn widened(path: &Path) -> Option<Vec<u8>> {
    let mut message = vitq_onnx::load(path).expect("a model").model;
    let widened = widen(&mut message).unwrap_or_else(|e| panic!("{e}"));
    (!widened.types().is_empty()).then(|| message.encode_to_vec())
}

/// The simplified model, in float32.
fn simplified(path: &Path) -> Graph {
    let mut message = vitq_onnx::load(path)
        .unwrap_or_else(|e| panic!("{e}"))
        .model;
    widen(&mut message).unwrap_or_else(|e| panic!("{e}"));
    let mut graph = Graph::import(&message).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    vitq_passes::simplify::simplify(&mut graph);
    graph
}

/// With every stream rotated that can be, and how many these are.
fn rotated(path: &Path) -> (Graph, usize) {
    turned(path, rotate)
}

/// Rotated by `rotation`, and how often. The sites stay the same.
fn turned(
    path: &Path,
    rotation: impl Fn(&mut Graph, &Structure, u64) -> Result<usize, TransformError>,
) -> (Graph, usize) {
    let mut graph = simplified(path);
    let before = recognise(&graph);
    let count =
        rotation(&mut graph, &before, 7).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let after = recognise(&graph);
    let names = |it: &Structure| {
        it.sites
            .iter()
            .map(|s| s.name.clone())
            .collect::<BTreeSet<_>>()
    };
    assert_eq!(names(&before), names(&after), "{}", path.display());
    assert_eq!(before.value_paths.len(), after.value_paths.len());
    (graph, count)
}

/// With every norm folded that can be, and how many these are.
fn folded(path: &Path) -> (Graph, usize) {
    let mut graph = simplified(path);
    let structure = recognise(&graph);
    let foldable = structure.norms.iter().filter(|n| n.declined.is_none());
    let mut decisions = plan(vec![]);
    for norm in foldable {
        fold(&graph, &structure, norm, &mut decisions);
    }
    apply(&mut graph, &structure, &decisions, &Target::default())
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (graph, decisions.norms.len())
}

/// Folds other scales and a shift into a norm and its Linears.
fn fold(graph: &Graph, structure: &Structure, norm: &Norm, into: &mut Plan) {
    let wide = |i: usize| {
        let values = floats(graph, graph.input(norm.node, i)?);
        Some(values.into_iter().map(f64::from).collect())
    };
    let mut gamma: Vec<f64> = wide(norm.scale).expect("a scale");
    let channels = gamma.len();
    let shift = norm.shift.and_then(wide);
    let mut beta = shift.unwrap_or_else(|| vec![0.0; channels]);
    let sites: Vec<&Site> = norm.sites.iter().map(|&s| &structure.sites[s]).collect();
    let mut linears: Vec<_> = sites.iter().map(|site| parameters(graph, site)).collect();
    let r: Vec<f64> = (0..channels).map(|c| 0.4 + (c % 11) as f64 / 4.0).collect();
    // An RMSNorm takes no shift.
    let by = if norm.shift.is_some() { 0.25 } else { 0.0 };
    let t: Vec<f64> = (0..channels).map(|c| ((c % 7) as f64 - 3.0) * by).collect();
    affine_fold(&mut gamma, &mut beta, &mut linears, &r, &t).unwrap_or_else(|e| panic!("{e}"));
    let narrow = |values: &[f64]| values.iter().map(|&v| v as f32).collect();
    into.norms.push(NormPlan {
        norm: norm.name.clone(),
        gamma: narrow(&gamma),
        beta: narrow(&beta),
    });
    let decisions = sites.iter().zip(&linears).map(|(site, linear)| {
        let replace = Some(linear.to_f32());
        let reason = "only folded".into();
        (site.name.as_str(), Decision::Float { reason, replace })
    });
    into.sites.extend(plan(decisions.collect()).sites);
}

fn parameters(graph: &Graph, site: &Site) -> LinearParams {
    let parameters = site.parameters.as_ref().expect("a Linear");
    let stored = floats(graph, parameters.weight);
    let column = |o: usize| stored.iter().skip(o).step_by(parameters.outputs).copied();
    let weight: Vec<f32> = (0..parameters.outputs).flat_map(column).collect();
    let bias = parameters.bias.map(|b| floats(graph, b));
    let bias = bias.unwrap_or_else(|| vec![0.0; parameters.outputs]);
    LinearParams::from_f32(&weight, &bias)
}

fn floats(graph: &Graph, value: Outlet) -> Vec<f32> {
    let tensor = graph.tensor(value).expect("a constant");
    tensor.to_f32().expect("floats")
}
