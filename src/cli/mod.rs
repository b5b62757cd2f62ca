//! The command line: one file a command.

mod ablate;
mod analyze;
mod apply;
mod bench;
mod calibration;
#[cfg(feature = "learn")]
mod checkpoint;
mod inspect;
#[cfg(feature = "learn")]
mod method;
mod plan;
mod preprocessing;
mod print;
mod progress;
mod quantize;
mod runtime;
mod sensitivity;
mod targets;
mod threads;
#[cfg(feature = "learn")]
mod train;
mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

/// Quantise an exported vision transformer (ONNX) and prove that it still does its job.
///
/// The main job:
///
///   vitq quantize vit.onnx --calib images/calib --eval images/test -o vit.int8.onnx
///
/// Exit codes: 0 done, 1 the result misses a bar that you set, 2 wrong input or usage.
/// RUST_LOG=info shows what happens inside.
#[derive(Parser)]
#[command(name = "vitq", version, verbatim_doc_comment)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Inspect(inspect::Args),
    Quantize(Box<quantize::Args>),
    #[cfg(feature = "learn")]
    Train(Box<train::Args>),
    Plan(Box<plan::Args>),
    Apply(apply::Args),
    Verify(Box<verify::Args>),
    Sensitivity(Box<sensitivity::Args>),
    Analyze(Box<analyze::Args>),
    Bench(bench::Args),
    Targets(targets::Args),
    Ablate(Box<ablate::Args>),
}

/// How a command ended that came to its end.
enum Verdict {
    /// Done, and every bar is met.
    Met,
    /// Done, but the result misses a bar.
    Missed,
}

/// Runs what the arguments ask for.
pub fn run() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .init();
    let done = match Cli::parse().command {
        Command::Inspect(args) => inspect::run(&args),
        Command::Quantize(args) => quantize::run(&args),
        #[cfg(feature = "learn")]
        Command::Train(args) => train::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Apply(args) => apply::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Analyze(args) => analyze::run(&args),
        Command::Sensitivity(args) => sensitivity::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Targets(args) => targets::run(&args),
        Command::Ablate(args) => ablate::run(&args),
    };
    match done {
        Ok(Verdict::Met) => ExitCode::SUCCESS,
        Ok(Verdict::Missed) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error}");
            // A source that the message already quotes is not said twice.
            let said = error.to_string();
            error
                .chain()
                .skip(1)
                .map(ToString::to_string)
                .filter(|cause| !said.contains(cause))
                .for_each(|cause| eprintln!("  because: {cause}"));
            ExitCode::from(2)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    #[test]
    fn the_arguments_fit_together() {
        super::Cli::command().debug_assert();
    }
}
