//! Where learning keeps what it has.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use vitq::learn::Checkpoint;

/// Long work that can be interrupted.
#[derive(clap::Args)]
#[group(skip)]
pub struct Args {
    /// Keep what was learned so far in this file: at each of twenty checks of `vitq train`, behind each block with --method
    /// reconstruct or aiqvit (in FILE.blocks with both)
    #[arg(long, value_name = "FILE")]
    checkpoint: Option<PathBuf>,
    /// Go on from the checkpoint of the same command
    #[arg(long, requires = "checkpoint")]
    resume: bool,
}

impl Args {
    /// The file that is given.
    pub fn path(&self) -> Option<&Path> {
        self.checkpoint.as_deref()
    }

    /// The checkpoint of a command that `learns` something.
    pub fn checkpoint(&self, learns: bool) -> anyhow::Result<Option<Checkpoint>> {
        ensure!(
            learns || self.checkpoint.is_none(),
            "--checkpoint keeps what is learned, and nothing is: give --method reconstruct or aiqvit, or use `vitq train`"
        );
        Ok(self.checkpoint.clone().map(|path| Checkpoint {
            path,
            resume: self.resume,
        }))
    }
}
