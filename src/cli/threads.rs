//! How many threads work.

use std::num::NonZeroUsize;

use anyhow::Context;

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
