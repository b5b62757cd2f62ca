//! `vitq apply`

use std::path::PathBuf;

use vitq::{FloatModel, Quantizer, output, plan_file};
use vitq_onnx::SaveOptions;
use vitq_passes::target::Target;

use super::{Verdict, targets};

/// Write the quantised model that a plan stands for
///
///   vitq apply vit.onnx vit.plan.json -o vit.int8.onnx
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The float model that the plan was made from
    model: PathBuf,
    /// A plan by `vitq plan`
    plan: PathBuf,
    /// Where the quantised model goes
    #[arg(long, short, value_name = "OUT")]
    out: PathBuf,
    /// The runtime that the model is written for; `vitq targets` lists them
    #[arg(long, value_name = "NAME", value_parser = targets::parse, default_value = "onnxruntime")]
    target: Target,
    /// Least operator set of the written model, as of `vitq quantize`
    #[arg(long, value_name = "N", value_parser = targets::opset())]
    opset: Option<i64>,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Verdict> {
    output::check(
        &args.out,
        &[&args.model, &args.plan, &plan_file::arrays_path(&args.plan)],
    )?;
    let plan = plan_file::load(&args.plan)?;
    let model = FloatModel::open(&args.model)?;
    plan_file::check_model(&plan, &args.plan, &model.path, &model.fingerprint)?;
    let quantised = Quantizer::new()
        .target(args.target.at_least(args.opset))
        .apply(&model, &plan)?;
    vitq_onnx::save(&quantised, &args.out, &SaveOptions::default())?;
    Ok(Verdict::Met)
}
