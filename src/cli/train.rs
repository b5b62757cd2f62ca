//! `vitq train`

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail, ensure};
use vitq::learn::Options;
use vitq::{Budget, output};

use super::{Verdict, quantize};

/// Quantise, then let the quantised model learn to decide as the float one does: for 4 bits and fewer
///
///   vitq train vit.onnx --calib images/calib --bits w4a4 --scope all -o vit.w4a4.onnx --plot course.svg
///
/// Images need no labels: the float model is the teacher, on random crops. One in eight is held out, to tell whether learning
/// helps; where it does not, the numbers from before are kept.
/// Everything else is as in `vitq quantize`.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Steps of learning
    #[arg(long, value_name = "N", default_value_t = Options::default().steps)]
    steps: usize,
    /// Crops a step
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(Options::default().batch).unwrap_or(NonZeroUsize::MIN))]
    batch: NonZeroUsize,
    /// How many samples of --calib to learn from, the first by path [default: nine of ten; verification takes the others where there is no --eval]
    #[arg(long, value_name = "N")]
    learn_samples: Option<NonZeroUsize>,
    /// Pace of learning, next to what is usual: try 0.5 where the course goes up and down
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = positive)]
    rate: f32,
    /// Write loss, loss held out, agreement and oscillation over the steps as CSV
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Draw them as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    quantize: quantize::Args,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Verdict> {
    if let Some(verdict) = in_one_thread_each()? {
        return Ok(verdict);
    }
    check_outputs(args)?;
    let options = options(args);
    let calibration = &args.quantize.calibration;
    ensure!(
        !matches!(calibration.budget, Some(Budget::Drop(_) | Budget::Sqnr(_))),
        "--budget drop= and sqnr= are judged on samples of --calib that learning sees; give size= or speedup=, or use `vitq quantize`"
    );
    let quantizer = calibration
        .quantizer()
        .learning(options, args.learn_samples.map(NonZeroUsize::get));
    let report = quantize::quantise(&args.quantize, &quantizer)?;
    let Some(course) = &report.learned else {
        return Ok(Verdict::Met);
    };
    if let Some(path) = &args.log {
        course.write_log(path)?;
    }
    if let Some(path) = &args.plot {
        course.write_plot(path)?;
    }
    Ok(Verdict::Met)
}

fn check_outputs(args: &Args) -> Result<(), vitq::Error> {
    let quantize = &args.quantize;
    let mut taken: Vec<&Path> = vec![&quantize.model, &quantize.out];
    taken.extend(quantize.report.as_deref());
    for path in [&args.log, &args.plot].into_iter().flatten() {
        output::check(path, &taken)?;
        taken.push(path);
    }
    Ok(())
}

fn options(args: &Args) -> Options {
    let usual = Options::default();
    Options {
        steps: args.steps,
        batch: args.batch.get(),
        seed: args.quantize.calibration.seed,
        rates: usual.rates.times(args.rate),
        ..usual
    }
}

fn positive(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|factor: &f32| *factor > 0.0 && *factor <= 100.0)
        .ok_or_else(|| "a factor above 0, at most 100".into())
}

/// candle's own threads spin while they wait for each other, which took half of the time where samples already run side by
/// side. Their number is only read from the environment, so the command runs once more with it set.
fn in_one_thread_each() -> anyhow::Result<Option<Verdict>> {
    const THREADS: &str = "CANDLE_NUM_THREADS";
    if std::env::var_os(THREADS).is_some() {
        return Ok(None);
    }
    let program = std::env::current_exe().context("the program's own file is not known")?;
    let status = Command::new(program)
        .args(std::env::args_os().skip(1))
        .env(THREADS, "1")
        .status()?;
    match status.code() {
        Some(0) => Ok(Some(Verdict::Met)),
        Some(1) => Ok(Some(Verdict::Missed)),
        Some(code) => std::process::exit(code),
        None => bail!("the command was ended from outside"),
    }
}
