//! `vitq targets`

use vitq_passes::target::{ONNX_RUNTIME, Target};

use super::{Verdict, print};

/// The runtimes that models are written for, and what each is said to want.
const TARGETS: [(Target, &str); 1] = [(
    ONNX_RUNTIME,
    "CPUs: uint8 activations, int8 weights with a scale per channel, int32 biases; tract runs it too",
)];

/// List the runtimes that models are written for
#[derive(clap::Args)]
pub struct Args {}

/// Runs the command.
pub fn run(_: &Args) -> anyhow::Result<Verdict> {
    let line = |(target, about): &(Target, &str)| {
        format!("{:<12} opset {}+  {about}\n", target.name, target.opset)
    };
    print::text(&TARGETS.iter().map(line).collect::<String>())?;
    Ok(Verdict::Met)
}

/// The target of a name.
pub fn parse(name: &str) -> Result<Target, String> {
    let known: Vec<&str> = TARGETS.iter().map(|(target, _)| target.name).collect();
    let found = TARGETS.iter().find(|(target, _)| target.name == name);
    found
        .map(|(target, _)| *target)
        .ok_or_else(|| format!("give one of {}", known.join(", ")))
}
