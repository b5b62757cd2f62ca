//! Where learning keeps what it has.

use std::path::{Path, PathBuf};

use anyhow::ensure;
use vitq::learn::Checkpoint;
use vitq::output;

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
    /// The checkpoint of a command that `learns` something, in files that are none of those `taken`.
    pub fn checkpoint(&self, learns: bool, taken: &[&Path]) -> anyhow::Result<Option<Checkpoint>> {
        let Some(path) = self.checkpoint.clone() else {
            return Ok(None);
        };
        ensure!(
            learns,
            "--checkpoint keeps what is learned, and nothing is: give --method reconstruct or aiqvit, or use `vitq train`"
        );
        let resume = self.resume;
        let checkpoint = Checkpoint { path, resume };
        let files = [&checkpoint.path, &checkpoint.of_blocks().path];
        output::check_all(files.map(PathBuf::as_path), taken)?;
        Ok(Some(checkpoint))
    }
}
