//! `vitq verify`

use std::path::PathBuf;

use vitq::batches::Batches;
use vitq::verify::{Candidate, Verification, verify};
use vitq::{Error, FloatModel, Source};

use super::progress::Bar;
use super::runtime::RuntimeName;
use super::{Verdict, preprocessing, print, threads};

/// Compare a quantised model with its float model on images: outputs, layers, decisions
///
/// Ends with exit code 1 where a bar is missed.
///
///   vitq verify vit.onnx vit.int8.onnx --data images/test --classes classes.txt --min-agreement 96
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The float model
    float: PathBuf,
    /// The quantised model
    quantised: PathBuf,
    /// A folder of images, a tree of labelled folders, or preprocessed arrays (.npy, .npz, .safetensors)
    #[arg(long, value_name = "PATH")]
    data: PathBuf,
    /// Line i (from 0) names the folder whose images are output i of the model
    #[arg(long, value_name = "FILE")]
    classes: Option<PathBuf>,
    /// How many samples, the first by path [default: all]
    #[arg(long, value_name = "N")]
    samples: Option<usize>,
    /// What runs the models
    #[arg(long, value_enum, default_value = "tract")]
    runtime: RuntimeName,
    /// The least share of samples on which both models must decide alike, in percent, as in 96
    #[arg(long, value_name = "PERCENT", value_parser = percent)]
    min_agreement: Option<f64>,
    /// The least SQNR of every output, in dB
    #[arg(long, value_name = "DB", allow_hyphen_values = true)]
    min_sqnr: Option<f64>,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Only errors: no bar, no summary
    #[arg(long, short)]
    quiet: bool,
    #[command(flatten)]
    threads: threads::Args,
    #[command(flatten)]
    preprocessing: preprocessing::Args,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Verdict> {
    args.threads.apply()?;
    let model = FloatModel::open(&args.float)?;
    let message = vitq_onnx::load(&args.quantised).map_err(Error::from)?.model;
    let contract = args.preprocessing.contract();
    let source = Source {
        path: args.data.clone(),
        classes: args.classes.clone(),
        contract,
    };
    let dataset = source.open(&model)?;
    let data = Batches::new(
        &dataset,
        0..args.samples.unwrap_or(usize::MAX),
        model.batch(),
    );
    let quantised = Candidate {
        path: &args.quantised,
        message: &message,
    };
    let result = verify(
        &model,
        quantised,
        &data,
        args.runtime.into(),
        &Bar::new(args.quiet),
    )?;
    let missed = missed_bars(args, &result)?;
    if args.json {
        print::json(&result)?;
    } else if !args.quiet {
        print::text(&result.to_string())?;
    }
    missed.iter().for_each(|line| eprintln!("missed: {line}"));
    Ok(if missed.is_empty() {
        Verdict::Met
    } else {
        Verdict::Missed
    })
}

/// One line a bar that the result misses.
fn missed_bars(args: &Args, result: &Verification) -> Result<Vec<String>, Error> {
    let mut missed = Vec::new();
    if let Some(bar) = args.min_agreement {
        let Some(classifier) = &result.classifier else {
            return Err(Error::NoMeasure(
                "--min-agreement needs a classifier: the first output is no [batch, classes]; use --min-sqnr".into(),
            ));
        };
        if classifier.agreement < bar {
            missed.push(format!(
                "top-1 agreement is {:.2} %, --min-agreement is {bar}",
                classifier.agreement
            ));
        }
    }
    if let Some(bar) = args.min_sqnr {
        // An output without a figure is equal to the float model's: the comparison refuses those that are not finite.
        let below = result
            .outputs
            .iter()
            .filter_map(|output| Some((&output.name, output.sqnr_db?)));
        let below = below.filter(|(_, db)| *db < bar);
        missed.extend(below.map(|(name, db)| {
            format!("SQNR of output `{name}` is {db:.2} dB, --min-sqnr is {bar}")
        }));
    }
    Ok(missed)
}

fn percent(text: &str) -> Result<f64, String> {
    let value: f64 = text.parse().map_err(|_| format!("`{text}` is no number"))?;
    // A bar of one percent or less is a fraction by mistake, and would let everything pass.
    if value > 1.0 && value <= 100.0 {
        return Ok(value);
    }
    Err("give percent, more than 1 and at most 100: 96 for 96 %".into())
}
