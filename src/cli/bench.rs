//! `vitq bench`

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::bail;
use clap::ValueEnum;
use vitq::bench::{self, Benchmark, Settings, bench};
use vitq::run::Runtime;
use vitq_passes::target::{ONNX_RUNTIME, PORTABLE, TRACT, Target};

use super::progress::Bar;
use super::runtime::RuntimeName;
use super::{Verdict, print};

/// How often every model has its turn, unless told otherwise.
const ROUNDS: usize = 15;

/// Compare the speed, size and memory of a float model and quantised ones on this machine
///
/// The models run in turn, round by round; the speed-up is the median over the rounds. It warns where a quantised model is not
/// faster, and names quantised products that the runtime multiplies in float.
///
///   vitq bench vit.onnx vit.int8.onnx vit.w4.onnx --threads 2
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct Args {
    /// The float model
    float: PathBuf,
    /// Models made from it
    quantised: Vec<PathBuf>,
    /// What runs the models: ONNX Runtime, or tract with the crate vitq-tract [default: onnxruntime, or tract in a build without it]
    #[arg(long, value_enum, default_value_t = fastest(), hide_default_value = true)]
    runtime: RuntimeName,
    /// Run the models in tract as it is, without vitq-tract
    #[arg(long)]
    stock: bool,
    /// Threads of one run in ONNX Runtime; tract has one
    #[arg(long, value_name = "N", default_value = "1")]
    threads: NonZeroUsize,
    /// Samples of one run, where the models leave it free [default: 1]
    #[arg(long, value_name = "N")]
    batch: Option<NonZeroUsize>,
    /// Height and width of the image, where the models leave them free
    #[arg(long, value_name = "N")]
    size: Option<NonZeroUsize>,
    /// How often every model has its turn of five runs
    #[arg(long, value_name = "N", default_value_t = NonZeroUsize::new(ROUNDS).unwrap_or(NonZeroUsize::MIN))]
    rounds: NonZeroUsize,
    /// For programs
    #[arg(long)]
    json: bool,
    /// Print the peak memory of loading FLOAT and running it once, nothing else
    #[arg(long, hide = true)]
    peak: bool,
}

/// Runs the command.
pub fn run(args: &Args) -> anyhow::Result<Verdict> {
    let settings = settings(args)?;
    if args.peak {
        let peak = bench::peak_memory(&args.float, &settings)?;
        print::json(&peak)?;
        return Ok(Verdict::Met);
    }
    let benchmark = measured(&args.float, &args.quantised, &settings, args.json)?;
    if args.json {
        print::json(&benchmark)?;
    } else {
        print::text(&benchmark.to_string())?;
    }
    Ok(Verdict::Met)
}

/// Times the models and measures the peak memory of each.
pub fn measured(
    float: &Path,
    quantised: &[PathBuf],
    settings: &Settings,
    quiet: bool,
) -> anyhow::Result<Benchmark> {
    let mut benchmark = bench(float, quantised, settings, &Bar::new(quiet))?;
    for model in &mut benchmark.models {
        model.peak_bytes = peak(&model.file.path, settings);
    }
    Ok(benchmark)
}

/// How `vitq quantize --bench` measures: on one thread of the runtime that the target is for.
pub fn settings_for(target: &Target, size: Option<u32>) -> anyhow::Result<Settings> {
    let runtime = match (*target, fastest()) {
        (TRACT, _) => Runtime::Tract,
        (ONNX_RUNTIME | PORTABLE, RuntimeName::Onnxruntime) => Runtime::OnnxRuntime,
        (ONNX_RUNTIME | PORTABLE, RuntimeName::Tract) => bail!(
            "--bench measures in ONNX Runtime, which this build is without: build vitq with --features onnxruntime, or run `vitq bench --runtime tract` on the result"
        ),
        _ => bail!(
            "--bench measures in ONNX Runtime and tract, and the target {} is for another runtime: leave it out",
            target.name
        ),
    };
    Ok(Settings {
        runtime,
        stock: *target == TRACT,
        threads: 1,
        batch: None,
        size: size.and_then(|it| it.try_into().ok()),
        rounds: ROUNDS,
    })
}

fn fastest() -> RuntimeName {
    if cfg!(feature = "onnxruntime") {
        RuntimeName::Onnxruntime
    } else {
        RuntimeName::Tract
    }
}

fn settings(args: &Args) -> anyhow::Result<Settings> {
    let runtime = Runtime::from(args.runtime);
    if runtime == Runtime::Tract && args.threads.get() > 1 {
        bail!(
            "tract runs a model on one thread: leave --threads out, or use --runtime onnxruntime"
        );
    }
    if runtime != Runtime::Tract && args.stock {
        bail!("--stock is for --runtime tract");
    }
    Ok(Settings {
        runtime,
        stock: args.stock,
        threads: args.threads.get(),
        batch: args.batch.map(NonZeroUsize::get),
        size: args.size.map(NonZeroUsize::get),
        rounds: args.rounds.get(),
    })
}

/// Peak memory of a model, measured in a process of its own; `None` where that doesn't work.
fn peak(model: &Path, settings: &Settings) -> Option<u64> {
    let runtime = RuntimeName::from(settings.runtime).to_possible_value()?;
    let mut command = Command::new(std::env::current_exe().ok()?);
    command.args(["bench", "--peak", "--runtime", runtime.get_name()]);
    command.args(["--threads", &settings.threads.to_string()]);
    command.args(settings.stock.then_some("--stock"));
    for (option, value) in [("--batch", settings.batch), ("--size", settings.size)] {
        command.args(value.map(|it| format!("{option}={it}")));
    }
    let output = command.arg("--").arg(model).output().ok()?;
    serde_json::from_slice(&output.stdout).ok()?
}
