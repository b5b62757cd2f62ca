//! `vitq inspect`

use std::path::PathBuf;

use serde::Serialize;
use vitq::FloatModel;
use vitq_passes::structure::StructureSummary;

use super::{Verdict, print};

/// Show what vitq sees in a model: blocks, sites, and every candidate that it declines, with the reason
///
/// The names and paths printed are those that --keep-float takes.
///
///   vitq inspect vit.onnx
///   vitq inspect vit.onnx --json | jq '.structure.declined'
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// An ONNX file
    model: PathBuf,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Inspection<'a> {
    model: &'a PathBuf,
    fingerprint: &'a str,
    opset: i64,
    /// Element types that are widened to float32.
    widened: Vec<String>,
    inputs: Vec<Input<'a>>,
    structure: StructureSummary,
}

#[derive(Serialize)]
struct Input<'a> {
    name: &'a str,
    /// `null` where it is symbolic.
    shape: &'a [Option<usize>],
    element: String,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Verdict> {
    let model = FloatModel::open(&args.model)?;
    if args.json {
        print::json(&inspection(&model))?;
    } else {
        let inputs: String = inspection(&model)
            .inputs
            .iter()
            .map(|it| format!("input {} {} {}\n", it.name, shape(it.shape), it.element))
            .collect();
        let opset = model.graph.opset();
        print::text(&format!(
            "{}: opset {opset}{}\n{inputs}{}",
            args.model.display(),
            widened(&model),
            model.structure
        ))?;
    }
    Ok(Verdict::Met)
}

fn inspection(model: &FloatModel) -> Inspection<'_> {
    let inputs = model.inputs.iter().map(|it| Input {
        name: &it.name,
        shape: &it.dims,
        element: it.element.to_string(),
    });
    Inspection {
        model: &model.path,
        fingerprint: &model.fingerprint,
        opset: model.graph.opset(),
        widened: model.widened.types(),
        inputs: inputs.collect(),
        structure: model.structure.summary(),
    }
}

/// `, float16 (widened to float32)`
fn widened(model: &FloatModel) -> String {
    match model.widened.types().join(" and ") {
        narrow if narrow.is_empty() => narrow,
        narrow => format!(", {narrow} (widened to float32)"),
    }
}

fn shape(dims: &[Option<usize>]) -> String {
    let dims: Vec<String> = dims
        .iter()
        .map(|dim| dim.map_or_else(|| "?".to_owned(), |d| d.to_string()))
        .collect();
    format!("[{}]", dims.join(", "))
}
