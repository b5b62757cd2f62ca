//! `vitq ablate`

use std::path::PathBuf;

use serde::Serialize;
use vitq::calibrate::Part;
use vitq::input::Dataset;
use vitq::verify::Verification;
use vitq::{FloatModel, Source};

use super::progress::Bar;
use super::threads;
use super::{Verdict, calibration, print};

/// See what each part of the recipe is worth on your model: quantise with all of them, then without each in turn
///
///   vitq ablate vit.onnx --calib images/calib --eval images/test --bits w4a4 --scope all
///
/// Nothing is written. Samples of --calib that calibration leaves over are verified on where there is no --eval.
/// A part that is worth nothing on the model in hand may be left out: `vitq quantize --without PART`.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The float model
    model: PathBuf,
    /// Samples to verify on, all of them
    #[arg(long, value_name = "PATH")]
    eval: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    calibration: calibration::Args,
}

/// One quantisation.
#[derive(Serialize)]
struct Row {
    /// The part that was left out; `null` in the first row.
    without: Option<Part>,
    /// SQNR of the first output, dB; `null` where nothing differs.
    sqnr_db: Option<f64>,
    /// Share of samples decided as in float, percent; `null` where the output is no classifier's.
    agreement: Option<f64>,
    /// Sites that the guard left float.
    float_sites: usize,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Verdict> {
    let calibration = &args.calibration;
    calibration.check_device()?;
    threads::again(calibration.learns());
    calibration.threads.apply()?;
    let model = FloatModel::open(&args.model)?;
    let samples = calibration.source().open(&model)?;
    let evaluation = args.eval.as_ref().map(|path| {
        let contract = calibration.preprocessing.contract();
        let path = path.clone();
        Source {
            path,
            classes: None,
            contract,
        }
        .open(&model)
    });
    let data = Data {
        model: &model,
        samples: &samples,
        evaluation: evaluation.transpose()?,
    };
    let mut rows = Vec::new();
    for without in [None].into_iter().chain(calibration.parts().map(Some)) {
        rows.push(row(args, &data, without)?);
    }
    if args.json {
        print::text(&serde_json::to_string_pretty(&rows)?)?;
    } else {
        print::text(&table(&rows))?;
    }
    Ok(Verdict::Met)
}

struct Data<'a> {
    model: &'a FloatModel,
    samples: &'a Dataset,
    evaluation: Option<Dataset>,
}

fn row(args: &Args, data: &Data<'_>, without: Option<Part>) -> anyhow::Result<Row> {
    let quantizer = args.calibration.quantizer_without(without);
    let bar = Bar::new(args.calibration.quiet);
    let (outcome, verification) =
        quantizer.try_out(data.model, data.samples, data.evaluation.as_ref(), &bar)?;
    let Verification {
        outputs,
        classifier,
        ..
    } = verification;
    // Sites out of scope are float too, but without a note of the guard's.
    let left_float = outcome
        .sites
        .iter()
        .filter(|site| site.form == "float" && site.note.is_some());
    Ok(Row {
        without,
        sqnr_db: outputs.first().and_then(|output| output.sqnr_db),
        agreement: classifier.map(|classifier| classifier.agreement),
        float_sites: left_float.count(),
    })
}

fn table(rows: &[Row]) -> String {
    let whole = rows.first().and_then(|row| row.sqnr_db);
    let mut text = format!(
        "{:<12} {:>7} {:>7} {:>10} {:>6}\n",
        "without", "dB", "worth", "agreement", "float"
    );
    for row in rows {
        let number = |value: Option<f64>, digits| {
            value.map_or_else(|| "–".into(), |value| format!("{value:.digits$}"))
        };
        let worth = whole.zip(row.sqnr_db).map(|(whole, db)| whole - db);
        let name = row.without.map_or("(all parts)", Part::name);
        text += &format!(
            "{name:<12} {:>7} {:>7} {:>10} {:>6}  {}\n",
            number(row.sqnr_db, 2),
            row.without.map_or_else(String::new, |_| number(worth, 2)),
            number(row.agreement, 1),
            row.float_sites,
            row.without.map_or("", Part::describe),
        );
    }
    text
}
