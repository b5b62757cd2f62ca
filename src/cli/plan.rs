//! `vitq plan`

use std::path::PathBuf;

use anyhow::ensure;
use vitq::report::SitesReport;
use vitq::{FloatModel, output, plan_file};

#[cfg(feature = "learn")]
use super::checkpoint;
use super::progress::Bar;
use super::threads;
use super::{Verdict, calibration, print};

/// Calibrate only: write every decision as a plan, which `vitq apply` turns into a model
///
/// A plan is JSON with its arrays beside it: `-o vit.plan.json` also writes vit.plan.safetensors.
///
///   vitq plan vit.onnx --calib images/calib -o vit.plan.json
///   vitq apply vit.onnx vit.plan.json -o vit.int8.onnx
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The float model
    model: PathBuf,
    /// Where the plan goes, a .json file
    #[arg(long, short, value_name = "PLAN")]
    out: PathBuf,
    #[command(flatten)]
    calibration: calibration::Args,
    #[cfg(feature = "learn")]
    #[command(flatten)]
    checkpoint: checkpoint::Args,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Verdict> {
    let calibration = &args.calibration;
    calibration.check_device()?;
    threads::again(calibration.learns());
    calibration.threads.apply()?;
    let arrays = plan_file::arrays_path(&args.out);
    ensure!(
        arrays != args.out,
        "{}: a plan's arrays take this name; name the plan .json",
        args.out.display()
    );
    output::check(&args.out, &[&args.model])?;
    output::check(&arrays, &[&args.model])?;
    let quantizer = calibration.quantizer();
    #[cfg(feature = "learn")]
    let quantizer = {
        let taken = [&args.model, &args.out, &arrays].map(PathBuf::as_path);
        quantizer.checkpoint(args.checkpoint.checkpoint(calibration.learns(), &taken)?)
    };
    let model = FloatModel::open(&args.model)?;
    let samples = calibration.source().open(&model)?;
    let outcome = quantizer.plan(&model, &samples, &Bar::new(calibration.quiet))?;
    plan_file::save(&outcome.plan, &args.out)?;
    if !calibration.quiet {
        let (json, arrays) = (args.out.display(), arrays.display());
        print::text(&format!(
            "{json} and {arrays}\n{}",
            SitesReport::new(&model, &outcome, &calibration.target)
        ))?;
    }
    Ok(Verdict::Met)
}
