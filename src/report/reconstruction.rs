//! How learning block by block went.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What was seen while the blocks learned.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Reconstruction {
    /// Steps of each block.
    pub steps: usize,
    /// In the order of the network.
    pub blocks: Vec<BlockReport>,
    /// Error of the network on samples held out: the mean of `‖x̂ - x‖²/‖x‖²` at its outputs, before learning.
    pub before: f64,
    /// The same after it.
    pub after: f64,
    /// Share of those samples on which both networks decide alike, before and after, where they decide.
    pub agreement: Option<(f64, f64)>,
    /// Whether what was learned was kept, rather than the numbers from before.
    pub kept: bool,
    /// Samples learned from, and held out.
    pub samples: (usize, usize),
}

/// What one block learned.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct BlockReport {
    /// As a person says it: `blocks.7`.
    pub name: String,
    /// Its error on samples held out, `‖x̂ - x‖²/‖x‖²`, before it learned; the blocks before it have learned already.
    pub before: f64,
    /// The same after it.
    pub after: f64,
    /// Whether what it learned was kept.
    pub kept: bool,
}

/// Signal to error, dB, of an error relative to its signal.
fn db(error: f64) -> f64 {
    -10.0 * error.max(f64::MIN_POSITIVE).log10()
}

impl fmt::Display for Reconstruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (learned, held_out) = self.samples;
        write!(
            f,
            "{} blocks learned for {} steps each from {learned} samples: {:.1} → {:.1} dB on {held_out} others",
            self.blocks.len(),
            self.steps,
            db(self.before),
            db(self.after)
        )?;
        if let Some((before, after)) = self.agreement {
            let (before, after) = (100.0 * before, 100.0 * after);
            write!(f, ", agreement {before:.1} → {after:.1} %")?;
        }
        if !self.kept {
            return writeln!(f, "; nothing gained, so the closed-form numbers were kept");
        }
        writeln!(f)?;
        for block in &self.blocks {
            let note = if block.kept { "" } else { ": not kept" };
            let (name, before, after) = (&block.name, db(block.before), db(block.after));
            writeln!(f, "  {name}: {before:.1} → {after:.1} dB{note}")?;
        }
        Ok(())
    }
}
