//! What the tests of emitted models share: structures of graphs written as text, and the outside judge.

use std::path::{Path, PathBuf};
use std::process::Command;

use prost::Message;
use vitq_passes::ir::{Graph, Outlet, Slot};
use vitq_passes::plan::{Decision, Plan, SitePlan, VERSION};
use vitq_passes::structure::{Norm, Parameters, Role, Site, SiteKind, Structure};

/// The graph behind a text.
pub fn parse(text: &str) -> Graph {
    Graph::parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The structure of a graph whose every MatMul and Conv is a site, told apart by constants and Softmaxes.
pub fn structure(graph: &Graph) -> Structure {
    let sites: Vec<Site> = graph
        .ops()
        .filter(|(_, op)| op.is("MatMul") || op.is("Conv"))
        .map(|(node, _)| site(graph, Outlet { node, slot: 0 }))
        .collect();
    let norms = graph
        .ops()
        .filter(|(_, op)| op.is("LayerNormalization"))
        .map(|(node, _)| norm(graph, &sites, Outlet { node, slot: 0 }))
        .collect();
    Structure {
        sites,
        norms,
        ..Structure::default()
    }
}

fn norm(graph: &Graph, sites: &[Site], value: Outlet) -> Norm {
    let reads = |(i, site): (usize, &Site)| (site.activation == value).then_some(i);
    let sites = sites.iter().enumerate().filter_map(reads).collect();
    Norm {
        name: graph.label(value.node),
        node: value.node,
        sites,
        split: Vec::new(),
        declined: None,
    }
}

fn site(graph: &Graph, product: Outlet) -> Site {
    let node = product.node;
    let activation = graph.input(node, 0).expect("an operand");
    let second = graph.input(node, 1).expect("an operand");
    let mut site = Site {
        name: graph.label(node),
        path: graph.label(node),
        kind: SiteKind::QueryKey,
        role: Role::Other,
        node,
        activation,
        second: Some(second),
        parameters: None,
        output: product,
        norm: None,
    };
    if let Some(dims) = graph.constant_dims(second) {
        let conv = graph.is(node, "Conv");
        site.kind = if conv {
            SiteKind::PatchEmbed
        } else {
            SiteKind::Linear
        };
        site.second = None;
        let add = if conv { None } else { bias_add(graph, product) };
        let bias = if conv {
            graph.input(node, 2)
        } else {
            add.map(|(_, bias)| bias)
        };
        site.output = add.map_or(product, |(sum, _)| sum);
        let outputs = if conv { dims[0] } else { dims[1] };
        let inputs = dims.iter().product::<usize>() / outputs;
        site.parameters = Some(Parameters {
            weight: second,
            bias,
            inputs,
            outputs,
            patch: None,
        });
    } else if graph.is(activation.node, "Softmax") {
        site.kind = SiteKind::AttentionValue;
    }
    site
}

fn bias_add(graph: &Graph, product: Outlet) -> Option<(Outlet, Outlet)> {
    let reader = graph
        .only_reader(product)
        .filter(|r| graph.is(r.node, "Add"))?;
    let Slot::Input(i) = reader.slot else {
        return None;
    };
    let bias = graph
        .input(reader.node, 1 - i)
        .filter(|&b| graph.initializer(b).is_some())?;
    Some((
        Outlet {
            node: reader.node,
            slot: 0,
        },
        bias,
    ))
}

/// A plan with one decision a site.
pub fn plan(decisions: Vec<(&str, Decision)>) -> Plan {
    let site = |(site, decision): (&str, Decision)| SitePlan {
        site: site.to_owned(),
        decision,
    };
    Plan {
        version: VERSION,
        sites: decisions.into_iter().map(site).collect(),
        ..Plan::default()
    }
}

/// Writes `float.onnx`, `quantised.onnx` and `plan.json` into a fresh folder, for the judge.
pub fn write_case(float: &Graph, quantised: &Graph, plan: &Plan) -> Folder {
    let folder = Folder::new();
    folder.write("float.onnx", &float.export().encode_to_vec());
    folder.write("quantised.onnx", &quantised.export().encode_to_vec());
    folder.write(
        "plan.json",
        &serde_json::to_vec(plan).expect("a plan is plain data"),
    );
    folder
}

/// A folder that is removed in the end.
pub struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Folder(tempfile::tempdir().expect("a temporary folder"))
    }

    fn write(&self, name: &str, bytes: &[u8]) {
        std::fs::write(self.0.path().join(name), bytes).expect("a file in the temporary folder");
    }

    /// Lets `tests/emission/judge.py` (NumPy, the ONNX checker, ONNX Runtime) check the case, and fails with what it says.
    pub fn judge(&self, check: &str, arguments: &[&str]) {
        let said = self.ask(check, arguments);
        assert!(
            said.trim_end().ends_with("judged"),
            "{check}: the judge said nothing: {said}"
        );
    }

    /// What the judge answers.
    pub fn ask(&self, question: &str, arguments: &[&str]) -> String {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emission/judge.py");
        let run = Command::new(python())
            .arg(script)
            .arg(question)
            .arg(self.0.path())
            .args(arguments)
            .output();
        let run = run.unwrap_or_else(|e| {
            panic!(
                "{} does not start: {e}; set VITQ_PYTHON",
                python().display()
            )
        });
        let said = String::from_utf8_lossy(&run.stdout).into_owned();
        assert!(
            run.status.success(),
            "{question}: {said}{}",
            String::from_utf8_lossy(&run.stderr)
        );
        said
    }
}

/// Python with numpy, onnx and onnxruntime.
fn python() -> PathBuf {
    match std::env::var_os("VITQ_PYTHON") {
        Some(path) => path.into(),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../.venv/bin/python"),
    }
}

/// Text of an initialiser of zeros.
pub fn zeros(dtype: &str, name: &str, dims: &[usize]) -> String {
    let shape: Vec<_> = dims.iter().map(ToString::to_string).collect();
    let values = vec!["0"; dims.iter().product()];
    format!(
        "{dtype}[{}] {name} = {{{}}}",
        shape.join(","),
        values.join(",")
    )
}

/// Codes in `-most..=most` that look random, all of them taken where there is room.
pub fn codes(count: usize, most: i32) -> Vec<i8> {
    let spread = |i: usize| (i as u32).wrapping_mul(2_654_435_761) >> 16;
    let code = |i| (spread(i) % (2 * most as u32 + 1)) as i32 - most;
    (0..count).map(|i| code(i) as i8).collect()
}
