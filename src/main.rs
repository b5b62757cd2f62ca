//! The `vitq` program: a dispatch to one file a command.

mod cli;

use std::process::ExitCode;

/// Buffers of many megabytes come and go at every site: the system's allocator gives each back to the kernel, whose page
/// faults then cost more than the loops (measured: a fifth of the time).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    cli::run()
}
