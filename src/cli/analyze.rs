//! `vitq analyze`

use std::num::NonZeroUsize;
use std::path::PathBuf;

use vitq::batches::Batches;
use vitq::calibrate::Scope;
use vitq::calibrate::variation::measure;
use vitq::report::VariationReport;
use vitq::{CALIBRATION_SAMPLES, FloatModel, Source, output};

use super::progress::Bar;
use super::{Verdict, preprocessing, print, runtime, threads};

/// See what makes a model hard to quantise: how much its modules and heads differ, and how far its outliers stand out
///
/// Three variations make vision transformers hard to quantise (Quantization Variation, arXiv 2307.00331). Two are properties of
/// the model and measured here, site by site:
///   sensitivity  the site alone quantised, and each head of an attention product alone: dB at the model's outputs
///   outliers     the farthest value in standard deviations, and kurtosis, of weights and activations; the widest input channel
///                next to the median one
/// The third, weights that go back and forth between two codes, appears only while they learn: `vitq train --log FILE` has it.
///
///   vitq analyze vit.onnx --calib images/calib --preprocess inception
///   vitq analyze vit.onnx --calib images/calib --bits 3 --json variation.json --plot variation.svg
///
/// Dear sites are those for --keep-float or more bits (`vitq sensitivity` measures several widths, --budget chooses them).
/// Outliers in activations are what folds, migration and rotation are for (`vitq ablate` shows what each is worth).
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The float model
    model: PathBuf,
    /// Samples to look at, as of `vitq quantize`; the outputs are compared on the first two
    #[arg(long, value_name = "PATH")]
    calib: PathBuf,
    /// How many of them, the first by path
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(CALIBRATION_SAMPLES).unwrap_or(NonZeroUsize::MIN))]
    samples: NonZeroUsize,
    /// Width of the site that is quantised, 2 to 8 bits
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..=8))]
    bits: u32,
    /// Write all figures as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw the figures as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Only errors: no bar, no table
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    executor: runtime::Executor,
    #[command(flatten)]
    threads: threads::Args,
    #[command(flatten)]
    preprocessing: preprocessing::Args,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Verdict> {
    args.threads.apply()?;
    let files = [&args.json, &args.plot].into_iter().flatten();
    output::check_all(files.map(PathBuf::as_path), &[&args.model])?;
    let report = report(args)?;
    if let Some(path) = &args.json {
        report.write(path)?;
    }
    if let Some(path) = &args.plot {
        report.write_plot(path)?;
    }
    if !args.quiet {
        print::text(&report.to_string())?;
    }
    Ok(Verdict::Met)
}

fn report(args: &Args) -> anyhow::Result<VariationReport> {
    let model = FloatModel::open(&args.model)?;
    model.require_sites(Scope::All)?;
    let source = Source {
        path: args.calib.clone(),
        classes: None,
        contract: args.preprocessing.contract(),
    };
    let dataset = source.open(&model)?;
    let feeds = Batches::new(&dataset, 0..args.samples.get(), model.batch());
    let (graph, structure) = (&model.graph, &model.structure);
    let measured = measure(
        graph,
        structure,
        &feeds,
        args.bits,
        (&args.executor).into(),
        &Bar::new(args.quiet),
    )?;
    let calibration = feeds.describe();
    Ok(VariationReport::new(
        &model.path,
        calibration,
        args.bits,
        measured,
    )?)
}
