//! The report on a terminal.

use std::fmt::{self, Display, Formatter};

use super::{LeftFloat, Report, SitesReport};
use crate::budget::{Kept, Trial};
use crate::verify::{Classifier, Score, Verification};

/// Layers that are named as the least exact ones.
const WORST_LAYERS: usize = 3;

/// Sites that are named for a reason they share.
const SHOWN_PATHS: usize = 4;

impl Display for Report {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let (before, after) = (self.model.bytes, self.output.bytes);
        writeln!(
            f,
            "{}: {} → {} ({:.1} times smaller), for {}",
            self.output.path.display(),
            Bytes(before),
            Bytes(after),
            before as f64 / after as f64,
            self.target
        )?;
        if !self.widened.is_empty() {
            let narrow = self.widened.join(" and ");
            writeln!(
                f,
                "{narrow} was widened to float32; what is not quantised is float32 now"
            )?;
        }
        write!(f, "{}", self.sites)?;
        writeln!(f, "calibrated on {}", self.calibration)?;
        if let Some(reconstruction) = &self.reconstructed {
            write!(f, "{reconstruction}")?;
        }
        if let Some(course) = &self.learned {
            write!(f, "{course}")?;
        }
        writeln!(f, "{:.1} s", self.seconds)?;
        match &self.verification {
            Some(verification) => write!(f, "{verification}")?,
            None => writeln!(
                f,
                "not verified: --calib holds no further samples; give --eval PATH, or run `vitq verify`"
            )?,
        }
        match &self.bench {
            Some(bench) => write!(f, "\n{bench}"),
            None => Ok(()),
        }
    }
}

impl Display for SitesReport {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let summary = &self.summary;
        let quantised = summary.linears - summary.left_float;
        writeln!(
            f,
            "{quantised} of {} Linears quantised, {} norms folded",
            summary.linears, summary.folded_norms
        )?;
        for (form, count) in summary.forms.iter().filter(|(form, _)| *form != "float") {
            writeln!(f, "  {count:>4} × {form}")?;
        }
        if let Some(kept) = &self.budget {
            write!(f, "{kept}")?;
        }
        if let Some(advice) = summary.weight_only {
            writeln!(f, "note: {advice}")?;
        }
        self.write_expected(f)?;
        self.write_branches(f)?;
        self.write_float_sites(f)?;
        let noted: Vec<_> = self
            .sites
            .iter()
            .filter_map(|site| Some((&site.path, site.note.as_ref()?)))
            .collect();
        if !noted.is_empty() {
            writeln!(f, "notes:")?;
        }
        noted
            .iter()
            .try_for_each(|(path, note)| writeln!(f, "  {path}: {note}"))
    }
}

impl Display for Kept {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let widths = self.widths.iter();
        let widths: Vec<String> = widths
            .map(|(width, count)| format!("{count} × {width}"))
            .collect();
        write!(
            f,
            "budget {}: {}, {}; predicted SQNR {:.1} dB, at most {:.1} dB with other widths",
            self.budget,
            Bytes(self.bytes),
            widths.join(", "),
            self.predicted_sqnr_db,
            self.bound_sqnr_db
        )?;
        match self.predicted_speedup {
            Some(speedup) => writeln!(f, "; predicted speed {speedup:.2} times the float model's")?,
            None => writeln!(f)?,
        }
        if let Some(held_out) = &self.held_out {
            writeln!(f, "  tried on {held_out}")?;
        }
        self.trials
            .iter()
            .try_for_each(|trial| writeln!(f, "  {trial}"))
    }
}

impl Display for Trial {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: predicted {:.1} dB",
            Bytes(self.bytes),
            self.predicted_sqnr_db
        )?;
        match self.sqnr_db {
            Some(db) => write!(f, ", measured {db:.1} dB")?,
            None => write!(f, ", no difference")?,
        }
        if let Some(agreement) = self.agreement {
            write!(f, ", agreement {agreement:.2} %")?;
        }
        write!(f, "{}", if self.kept { ": kept" } else { ": missed" })
    }
}

impl SitesReport {
    /// What the cost model expects, and the sites that gain most.
    fn write_expected(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(speedup) = self.summary.expected_speedup else {
            return Ok(());
        };
        let gains = self.sites.iter();
        let mut gains: Vec<(&str, f64)> = gains
            .filter_map(|site| Some((site.path.as_str(), site.expected_gain?)))
            .collect();
        if gains.is_empty() {
            return Ok(());
        }
        gains.sort_by(|a, b| b.1.total_cmp(&a.1));
        let shown = gains.iter().take(SHOWN_PATHS);
        let shown: Vec<String> = shown
            .map(|(path, gain)| format!("{path} {gain:.1} %"))
            .collect();
        writeln!(
            f,
            "expected: {speedup:.2} times as fast as float (a prediction; `vitq bench` measures); most is saved at {}",
            shown.join(", ")
        )
    }

    /// What low-rank branches cost and give.
    fn write_branches(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Some(low_rank) = &self.summary.low_rank else {
            return Ok(());
        };
        writeln!(
            f,
            "low rank: {} branches, ranks {} to {}; {:.1} % of the Linears' multiply-adds, in float; they should take {:.1} dB off the error at a site's output (median)",
            low_rank.branches, low_rank.least, low_rank.most, low_rank.macs, low_rank.gain_db
        )
    }

    /// Reasons, each with the sites that share it.
    fn write_float_sites(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
        for LeftFloat { path, reason } in &self.summary.float_sites {
            match reasons.iter_mut().find(|(known, _)| known == reason) {
                Some((_, paths)) => paths.push(path),
                None => reasons.push((reason, vec![path])),
            }
        }
        // What befell few sites is the more telling.
        reasons.sort_by_key(|(_, paths)| paths.len());
        for (reason, paths) in reasons {
            let shown = paths.len().min(SHOWN_PATHS);
            let more = match paths.len() - shown {
                0 => String::new(),
                more => format!(" and {more} more"),
            };
            writeln!(f, "float: {}{more}: {reason}", paths[..shown].join(", "))?;
        }
        Ok(())
    }
}

impl Display for Verification {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "verified in {} on {} ({:.1} s)",
            self.runtime, self.data, self.seconds
        )?;
        for output in &self.outputs {
            writeln!(f, "  {}: {}", output.name, Figures(output))?;
        }
        if let Some(classifier) = &self.classifier {
            writeln!(f, "  {classifier}")?;
        }
        let mut worst: Vec<&Score> = self
            .layers
            .iter()
            .filter(|layer| layer.sqnr_db.is_some())
            .collect();
        worst.sort_by(|a, b| {
            a.sqnr_db
                .unwrap_or(f64::INFINITY)
                .total_cmp(&b.sqnr_db.unwrap_or(f64::INFINITY))
        });
        let worst: Vec<String> = worst
            .iter()
            .take(WORST_LAYERS)
            .map(|it| format!("{} {}", it.name, Figures(it)))
            .collect();
        if !worst.is_empty() {
            writeln!(f, "  least exact layers: {}", worst.join("; "))?;
        }
        self.notes
            .iter()
            .try_for_each(|note| writeln!(f, "  note: {note}"))
    }
}

impl Display for Classifier {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "top-1 agreement {:.2} %", self.agreement)?;
        match (self.float, self.quantised) {
            (Some(float), Some(after)) => write!(
                f,
                "; top-1 {:.2} → {:.2} %, top-5 {:.2} → {:.2} %",
                float.top1, after.top1, float.top5, after.top5
            ),
            _ => Ok(()),
        }
    }
}

struct Figures<'a>(&'a Score);

impl Display for Figures<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0.sqnr_db {
            Some(db) => write!(f, "SQNR {db:.1} dB")?,
            None => write!(f, "no difference")?,
        }
        self.0
            .cosine
            .map_or(Ok(()), |cosine| write!(f, ", cosine {cosine:.5}"))
    }
}

/// A number of bytes as people read it.
pub(crate) struct Bytes(pub(crate) u64);

impl Display for Bytes {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            0..10_000 => write!(f, "{} bytes", self.0),
            10_000..10_000_000 => write!(f, "{:.0} kB", self.0 as f64 / 1e3),
            _ => write!(f, "{:.1} MB", self.0 as f64 / 1e6),
        }
    }
}
