//! How many threads work.

use std::num::NonZeroUsize;

use anyhow::Context;

#[cfg(feature = "learn")]
use super::Verdict;

/// Threads of a command that runs models.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// Threads that work at once [default: one a core]. The result doesn't depend on it
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
}

impl Args {
    /// Sets the pool up; to be called once.
    pub fn apply(&self) -> anyhow::Result<()> {
        let Some(threads) = self.threads else {
            return Ok(());
        };
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get());
        pool.build_global().with_context(|| {
            format!("cannot start {threads} threads; give --threads a smaller number")
        })
    }
}

/// candle's own threads spin while they wait for each other, which took half of the time where samples already run side by
/// side; and pages that the allocator gives back between two steps are cleared by the kernel when the next one takes them, which took a
/// tenth. Both are only told by the environment, so a command that learns runs once more with it set.
#[cfg(feature = "learn")]
pub fn again(learns: bool) -> anyhow::Result<Option<Verdict>> {
    const THREADS: &str = "CANDLE_NUM_THREADS";
    const PURGE: &str = "MIMALLOC_PURGE_DELAY";
    if !learns || std::env::var_os(THREADS).is_some() {
        return Ok(None);
    }
    let program = std::env::current_exe().context("the program's own file is not known")?;
    let mut command = std::process::Command::new(program);
    command.args(std::env::args_os().skip(1)).env(THREADS, "1");
    if std::env::var_os(PURGE).is_none() {
        command.env(PURGE, "-1");
    }
    let status = command.status()?;
    match status.code() {
        Some(0) => Ok(Some(Verdict::Met)),
        Some(1) => Ok(Some(Verdict::Missed)),
        Some(code) => std::process::exit(code),
        None => anyhow::bail!("the command was ended from outside"),
    }
}
