//! `vitq targets`

use clap::builder::RangedI64ValueParser;
use vitq_passes::simplify::upgrade;
use vitq_passes::target::{ALL, ONNX_RUNTIME, Target};

use super::{Verdict, print};

/// List the runtimes that models are written for, with what is written for each and why
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> anyhow::Result<Verdict> {
    let described: Vec<String> = ALL.iter().map(described).collect();
    print::text(&described.join("\n"))?;
    Ok(Verdict::Met)
}

fn described(target: &Target) -> String {
    let opsets = match target.newest_opset {
        Some(newest) => format!("{} to {newest}", target.opset),
        None => format!("{} and newer", target.opset),
    };
    let mut text = format!("{}: {}\n", target.name, target.about);
    text.push_str(&format!("  operator sets {opsets}\n"));
    let reasons = target.reasons.iter();
    text.extend(reasons.map(|reason| format!("  {reason}\n")));
    if !target.measured {
        text.push_str("  written by the runtime's documentation; it was not run in it\n");
    }
    text
}

/// Reads an operator set that models can be raised to.
pub fn opset() -> RangedI64ValueParser {
    RangedI64ValueParser::new().range(ONNX_RUNTIME.opset..=upgrade::NEWEST)
}

/// The target of a name.
pub fn parse(name: &str) -> Result<Target, String> {
    let known: Vec<&str> = ALL.iter().map(|target| target.name).collect();
    let found = ALL.into_iter().find(|target| target.name == name);
    found.ok_or_else(|| format!("give one of {}", known.join(", ")))
}
