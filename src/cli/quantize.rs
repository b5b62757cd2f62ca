//! `vitq quantize`

use std::path::{Path, PathBuf};

use vitq::report::Report;
use vitq::{Job, Quantizer, Source, output};

#[cfg(feature = "learn")]
use super::checkpoint;
use super::progress::Bar;
use super::threads;
use super::{Verdict, bench, calibration, print};

/// Quantise a float model: calibrate on images, write the quantised ONNX, verify it
///
///   vitq quantize vit.onnx --calib images/calib -o vit.int8.onnx
///   vitq quantize vit.onnx --calib images/calib --eval images/test --classes classes.txt \
///       --preprocess inception -o vit.int8.onnx --report vit.json
///   vitq quantize vit.onnx --calib inputs.npz -o vit.w4.onnx --bits w4a8
///
/// Without --eval the model is verified on samples of --calib that calibration left over, if there are any.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
#[group(skip)]
pub struct Args {
    /// The float model
    pub model: PathBuf,
    /// Where the quantised model goes
    #[arg(long, short, value_name = "OUT")]
    pub out: PathBuf,
    /// Samples to verify on, all of them; sub-folders are labels
    #[arg(long, value_name = "PATH")]
    eval: Option<PathBuf>,
    /// Line i (from 0) names the folder of --eval whose images are output i of the model
    #[arg(long, value_name = "FILE", requires = "eval")]
    classes: Option<PathBuf>,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    pub report: Option<PathBuf>,
    /// Measure what was gained on this machine, as `vitq bench` does on one thread: in ONNX Runtime (in a build with it), in
    /// stock tract for --target tract
    #[arg(long)]
    bench: bool,
    #[command(flatten)]
    pub calibration: calibration::Args,
    #[cfg(feature = "learn")]
    #[command(flatten)]
    pub checkpoint: checkpoint::Args,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Verdict> {
    args.calibration.check_device()?;
    threads::again(args.calibration.learns());
    let quantizer = args.calibration.quantizer();
    #[cfg(feature = "learn")]
    let quantizer = {
        let learns = args.calibration.learns();
        quantizer.checkpoint(args.checkpoint.checkpoint(learns, &files(args))?)
    };
    quantise(args, &quantizer)?;
    Ok(Verdict::Met)
}

/// Does the job with a quantiser, and says how it went.
pub fn quantise(args: &Args, quantizer: &Quantizer) -> anyhow::Result<Report> {
    let calibration = &args.calibration;
    calibration.threads.apply()?;
    if let Some(report) = &args.report {
        output::check(report, &[&args.model, &args.out])?;
    }
    let measure = || bench::settings_for(&calibration.target, calibration.preprocessing.crop);
    let measure = args.bench.then(measure).transpose()?;
    let evaluation = args.eval.as_deref().map(|path| evaluation(args, path));
    let job = Job {
        model: &args.model,
        calibration: &calibration.source(),
        evaluation: evaluation.as_ref(),
        out: &args.out,
    };
    let mut report = quantizer.quantize(&job, &Bar::new(calibration.quiet))?;
    if let Some(settings) = measure {
        let out = std::slice::from_ref(&args.out);
        let measured = bench::measured(&args.model, out, &settings, calibration.quiet)?;
        report.bench = Some(measured);
    }
    if let Some(path) = &args.report {
        report.write(path)?;
    }
    if !calibration.quiet {
        print::text(&report.to_string())?;
    }
    Ok(report)
}

/// The files that the command reads and writes.
#[cfg(feature = "learn")]
pub fn files(args: &Args) -> Vec<&Path> {
    let files = [Some(&args.model), Some(&args.out), args.report.as_ref()];
    files.into_iter().flatten().map(PathBuf::as_path).collect()
}

fn evaluation(args: &Args, path: &Path) -> Source {
    let contract = args.calibration.preprocessing.contract();
    Source {
        path: path.into(),
        classes: args.classes.clone(),
        contract,
    }
}
