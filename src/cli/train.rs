//! `vitq train`

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use anyhow::ensure;
use vitq::learn::{Objective, Options};
use vitq::{Budget, Learning, output};

use super::{Verdict, quantize, threads};

/// Quantise, then let the quantised model learn to decide as the float one does: for 4 bits and fewer
///
///   vitq train vit.onnx --calib images/calib --bits w4a4 --scope all -o vit.w4a4.onnx --plot course.svg
///
/// Images need no labels: the float model is the teacher, on random views of them (crops, boxes of other images, other
/// colours). One in eight is held out, to tell whether learning helps; where it does not, the numbers from before are kept.
/// With --checkpoint what was learned so far is kept at each of twenty checks, and the same command with --resume goes on from there.
/// Everything else is as in `vitq quantize`. With --method the blocks learn first, one by one; after aiqvit the rounded weights stay as
/// they are here too, and branches, biases and steps learn: on few images at 4 bits that is as good.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// Steps of learning
    #[arg(long, value_name = "N", default_value_t = Options::default().steps)]
    steps: usize,
    /// Views a step
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(Options::default().batch).unwrap_or(NonZeroUsize::MIN))]
    batch: NonZeroUsize,
    /// How many samples of --calib to learn from, the first by path [default: nine of ten; verification takes the others where there is no --eval]
    #[arg(long, value_name = "N")]
    learn_samples: Option<NonZeroUsize>,
    /// Pace of learning, next to what is usual: try 0.5 where the course goes up and down
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0, value_parser = positive)]
    rate: f32,
    /// What is learned: the float model's values, at the outputs and behind each block; or its decisions alone, as if they were
    /// labels, which is what training without distillation does
    #[arg(long, value_enum, default_value = "values")]
    objective: ObjectiveName,
    /// How strongly weights are drawn to their levels towards the end, so that fewer go back and forth between two: 0.2 halves that
    #[arg(long, value_name = "SHARE", default_value_t = Options::default().damping, value_parser = share)]
    damping: f32,
    /// Let the levels of the weights' codebooks learn too (no gain on the digits model: weights that learn find their levels)
    #[arg(long)]
    learn_levels: bool,
    /// Stop after so many checks (of twenty) without a better one on the samples held out, and keep the best one's numbers
    #[arg(long, value_name = "CHECKS")]
    patience: Option<NonZeroUsize>,
    /// Write loss, loss held out, agreement and oscillation over the steps as CSV
    #[arg(long, value_name = "FILE")]
    log: Option<PathBuf>,
    /// Draw them as SVG
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    #[command(flatten)]
    quantize: quantize::Args,
}

/// What is learned.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum ObjectiveName {
    Values,
    Decisions,
}

impl From<ObjectiveName> for Objective {
    fn from(name: ObjectiveName) -> Self {
        match name {
            ObjectiveName::Values => Objective::Values,
            ObjectiveName::Decisions => Objective::Decisions,
        }
    }
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Verdict> {
    threads::again(true);
    let taken = files(args)?;
    let learning = Learning {
        options: options(args),
        samples: args.learn_samples.map(NonZeroUsize::get),
    };
    let calibration = &args.quantize.calibration;
    ensure!(
        !matches!(calibration.budget, Some(Budget::Drop(_) | Budget::Sqnr(_))),
        "--budget drop= and sqnr= are judged on samples of --calib that learning sees; give size= or speedup=, or use `vitq quantize`"
    );
    let checkpoint = args.quantize.checkpoint.checkpoint(true, &taken)?;
    let quantizer = calibration.quantizer().learning(learning);
    let quantizer = quantizer.checkpoint(checkpoint);
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

/// The files that the command reads and writes, but for checkpoints; checked.
fn files(args: &Args) -> Result<Vec<&Path>, vitq::Error> {
    let mut taken = quantize::files(&args.quantize);
    let own = [args.log.as_deref(), args.plot.as_deref()];
    let own = own.into_iter().flatten();
    output::check_all(own.clone(), &taken)?;
    taken.extend(own);
    Ok(taken)
}

fn options(args: &Args) -> Options {
    let usual = Options::default();
    let mut rates = usual.rates;
    if args.quantize.calibration.is_aiqvit() {
        rates = rates.with_frozen_weights();
    }
    if args.learn_levels {
        rates = rates.with_levels();
    }
    Options {
        steps: args.steps,
        batch: args.batch.get(),
        seed: args.quantize.calibration.seed,
        rates: rates.times(args.rate),
        objective: args.objective.into(),
        damping: args.damping,
        patience: args.patience.map(NonZeroUsize::get),
        device: args.quantize.calibration.device(),
    }
}

fn share(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|share| (0.0..=1.0).contains(share))
        .ok_or_else(|| "a number from 0 to 1".into())
}

fn positive(text: &str) -> Result<f32, String> {
    text.parse()
        .ok()
        .filter(|factor: &f32| *factor > 0.0 && *factor <= 100.0)
        .ok_or_else(|| "a factor above 0, at most 100".into())
}
