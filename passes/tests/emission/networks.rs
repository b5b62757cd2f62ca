//! Whole networks from real exporters, quantised from the ranges that ONNX Runtime measures.

use std::path::{Path, PathBuf};

use prost::Message;
use vitq_passes::ir::{Graph, Outlet};
use vitq_passes::plan::{Activation, Decision, LinearPlan, Plan, Weight};
use vitq_passes::quantise::apply;
use vitq_passes::structure::{Site, SiteKind, Structure, recognise};
use vitq_passes::target::Target;

use crate::support::{plan, write_case};

/// Every exported network of the fixtures.
fn exports() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/exports");
    let entries =
        std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut files: Vec<_> = entries.map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "onnx"));
    files.sort();
    files
}

fn load(path: &Path) -> Graph {
    let bytes = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let model = vitq_onnx::Model::decode(&bytes[..]).expect("a model");
    let mut graph = Graph::import(&model).expect("a graph");
    vitq_passes::simplify::simplify(&mut graph);
    graph
}

/// A min/max quantiser from what the judge measured.
struct Ranges(Vec<(String, [f32; 2])>);

impl Ranges {
    fn measure(graph: &Graph, structure: &Structure) -> Self {
        let operands = structure
            .sites
            .iter()
            .flat_map(|s| [Some(s.activation), s.second])
            .flatten();
        let mut names: Vec<_> = operands.map(|v| graph.name(v).to_owned()).collect();
        names.sort();
        names.dedup();
        let arguments: Vec<_> = names.iter().map(String::as_str).collect();
        let said = write_case(graph, graph, &plan(vec![])).ask("ranges", &arguments);
        let ranges: Vec<[f32; 2]> =
            serde_json::from_str(said.lines().next().unwrap_or("")).expect("ranges");
        assert_eq!(ranges.len(), names.len());
        Ranges(names.into_iter().zip(ranges).collect())
    }

    fn quantiser(&self, graph: &Graph, value: Outlet, bits: u32) -> Activation {
        let name = graph.name(value);
        let (_, [low, high]) = self.0.iter().find(|(n, _)| n == name).expect("a range");
        let top = f32::from(u8::MAX >> (8 - bits));
        let scale = (high - low) / top;
        Activation::Uniform {
            bits,
            scale,
            zero_point: (-low / scale).round().clamp(0.0, top) as u8,
        }
    }
}

fn weight(graph: &Graph, site: &Site, bits: u32) -> (Weight, Vec<f32>) {
    let parameters = site.parameters.as_ref().expect("parameters");
    let values = floats(graph, parameters.weight);
    let (inputs, outputs) = (parameters.inputs, parameters.outputs);
    let row = |o: usize| -> Vec<f32> {
        match site.kind {
            SiteKind::PatchEmbed => values[o * inputs..][..inputs].to_vec(),
            _ => values.iter().skip(o).step_by(outputs).copied().collect(),
        }
    };
    // 7 bits of 8, as sums of larger products saturate in ONNX Runtime without VNNI.
    let most = f32::from(i8::MAX >> (8 - bits.min(7)));
    let (mut codes, mut scale) = (Vec::new(), Vec::new());
    for row in (0..outputs).map(row) {
        let step = row.iter().fold(1e-6_f32, |m, w| m.max(w.abs())) / most;
        codes.extend(row.iter().map(|w| (w / step).round() as i8));
        scale.push(step);
    }
    let bias = parameters
        .bias
        .map_or_else(|| vec![0.0; outputs], |b| floats(graph, b));
    (
        Weight {
            bits,
            out: outputs,
            codes,
            block: None,
            scale,
            zero_point: Vec::new(),
            table: None,
        },
        bias,
    )
}

fn floats(graph: &Graph, value: Outlet) -> Vec<f32> {
    graph
        .tensor(value)
        .expect("a constant")
        .to_f32()
        .expect("floats")
}

fn decide(graph: &Graph, ranges: &Ranges, site: &Site, bits: u32) -> Decision {
    let activation = ranges.quantiser(graph, site.activation, bits);
    match (site.kind, site.second) {
        (SiteKind::AttentionValue, Some(v)) if bits < 8 => Decision::Product {
            left: Activation::Log {
                bits,
                step: 0.5,
                shift: 0,
            },
            right: ranges.quantiser(graph, v, bits),
        },
        (SiteKind::QueryKey | SiteKind::AttentionValue, Some(second)) => Decision::Product {
            left: activation,
            right: ranges.quantiser(graph, second, bits),
        },
        _ => {
            let (weight, bias) = weight(graph, site, bits);
            Decision::Linear(LinearPlan {
                activation,
                pre_scale: None,
                weight,
                bias,
                low_rank: None,
            })
        }
    }
}

fn quantise(path: &Path, bits: u32, least_db: &str) -> usize {
    let graph = load(path);
    let structure = recognise(&graph);
    let ranges = Ranges::measure(&graph, &structure);
    let sites = structure
        .sites
        .iter()
        .map(|s| (s.name.as_str(), decide(&graph, &ranges, s, bits)));
    let plan = Plan {
        settings: [("bits".into(), bits.to_string())].into(),
        ..plan(sites.collect())
    };
    let mut quantised = graph.clone();
    apply(&mut quantised, &structure, &plan, &Target::default())
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    eprintln!("{} at {bits} bits", path.display());
    write_case(&graph, &quantised, &plan).judge("near", &[least_db]);
    structure.sites.len()
}

#[test]
fn every_export_runs_with_all_sites_at_8_bits() {
    let sites: usize = exports().iter().map(|path| quantise(path, 8, "16")).sum();
    assert!(sites >= 300, "only {sites} sites were quantised");
}

#[test]
fn every_export_runs_with_all_sites_at_6_bits() {
    for path in exports() {
        quantise(&path, 6, "8");
    }
}
