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

/// Starts the program anew, in its own place, with what only the environment can tell, unless that is set there already:
///
/// - Memory stays with the program. What the allocator gives back while calibration or learning goes from site to site, the kernel clears
///   before it is handed out again: 6 to 8 % of the time (ViT-B with 128 images, ViT-Tiny with 100), against 6 to 7 % less memory.
/// - candle's own threads spin while they wait for each other, which took half of the time where samples already run side by side.
///
/// Where a program cannot be replaced so, the work goes on without.
pub fn again(learns: bool) {
    let mut wanted = vec![("MIMALLOC_PURGE_DELAY", "-1")];
    if learns {
        wanted.push(("CANDLE_NUM_THREADS", "1"));
    }
    wanted.retain(|(name, _)| std::env::var_os(name).is_none());
    #[cfg(unix)]
    if let (false, Ok(program)) = (wanted.is_empty(), std::env::current_exe()) {
        use std::os::unix::process::CommandExt;
        let mut command = std::process::Command::new(program);
        let _cannot = command
            .args(std::env::args_os().skip(1))
            .envs(wanted)
            .exec();
    }
}
