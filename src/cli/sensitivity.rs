//! `vitq sensitivity`

use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Instant;

use vitq::batches::Batches;
use vitq::calibrate::Scope;
use vitq::calibrate::sensitivity::measure;
use vitq::report::SensitivityReport;
use vitq::{CALIBRATION_SAMPLES, FloatModel, Quantizer, Source, output};

use super::calibration::ScopeName;
use super::progress::Bar;
use super::{Verdict, preprocessing, print, runtime, threads};

/// Measure what each site costs: quantised alone at each width, in dB at the model's outputs
///
/// For each site and width: weights alone, activation alone, both; everything else stays float and no guard mends.
/// The more dB, the less it costs. The table's paths are those that --keep-float of `vitq quantize` takes.
///
///   vitq sensitivity vit.onnx --calib images/calib --preprocess inception
///   vitq sensitivity vit.onnx --calib images/calib --widths 8,4 --scope all --json cost.json --plot cost.svg
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The float model
    model: PathBuf,
    /// Samples to calibrate on, as of `vitq quantize`; the outputs are compared on the first two
    #[arg(long, value_name = "PATH")]
    calib: PathBuf,
    /// How many of them, the first by path
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(CALIBRATION_SAMPLES).unwrap_or(NonZeroUsize::MIN))]
    samples: NonZeroUsize,
    /// Widths to measure at, 2 to 8 bits each
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "8,6,4", value_parser = clap::value_parser!(u32).range(2..=8))]
    widths: Vec<u32>,
    /// linear: every Linear; all: the patch embedding and both attention products as well
    #[arg(long, value_enum, default_value = "linear")]
    scope: ScopeName,
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
    let clock = Instant::now();
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
        let seconds = clock.elapsed().as_secs_f64();
        print::text(&format!("{report}{seconds:.1} s\n"))?;
    }
    Ok(Verdict::Met)
}

fn report(args: &Args) -> anyhow::Result<SensitivityReport> {
    let model = FloatModel::open(&args.model)?;
    let scope = Scope::from(args.scope);
    model.require_sites(scope)?;
    let source = Source {
        path: args.calib.clone(),
        classes: None,
        contract: args.preprocessing.contract(),
    };
    let dataset = source.open(&model)?;
    let feeds = Batches::new(&dataset, 0..args.samples.get(), model.batch());
    let widths = widest_first(&args.widths);
    let rotation = Quantizer::new().rotation(&model);
    let written = model.written(rotation)?;
    let measured = measure(
        written.graph(),
        written.structure(),
        &feeds,
        (scope, &widths),
        (&args.executor).into(),
        &Bar::new(args.quiet),
    )?;
    Ok(SensitivityReport::new(
        &model.path,
        feeds.describe(),
        (scope, widths),
        measured,
    )?)
}

fn widest_first(widths: &[u32]) -> Vec<u32> {
    let mut widths = widths.to_vec();
    widths.sort_unstable_by(|a, b| b.cmp(a));
    widths.dedup();
    widths
}

#[cfg(test)]
mod tests {
    #[test]
    fn widths_are_sorted_and_each_is_measured_once() {
        assert_eq!(super::widest_first(&[4, 8, 4, 6]), [8, 6, 4]);
    }
}
