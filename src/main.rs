//! The `vitq` program: a dispatch to one file a command.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::run()
}
