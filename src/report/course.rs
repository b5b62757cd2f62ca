//! How learning went, step by step: for the report, as a table (CSV) and as a picture.

use std::fmt;
use std::io;
use std::path::Path;

use plotters::prelude::*;
use serde::{Deserialize, Serialize};

use super::plot::COLOURS;
use crate::error::Error;
use crate::output;

/// How far learning was at a check.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Check {
    /// Steps taken.
    pub step: usize,
    /// Mean loss on views since the last check; none at the start.
    pub loss: Option<f64>,
    /// Mean loss on samples held out, as they are.
    pub held_out: f64,
    /// Share of them on which both networks decide alike, where they decide.
    pub agreement: Option<f64>,
    /// Weights whose code changed back against its last change since the last check, of all (oscillation).
    pub oscillation: f64,
}

/// What was seen while learning.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Course {
    /// From before the first step to the last one.
    pub checks: Vec<Check>,
    /// Step whose numbers were chosen: the last one, or the best one where learning had patience.
    pub chosen: usize,
    /// Whether what was learned was kept, rather than the numbers from before.
    pub kept: bool,
    /// Samples learned from, and held out.
    pub samples: (usize, usize),
}

/// What is drawn of a check.
type Curve = fn(&Check) -> Option<f64>;

impl Course {
    /// Writes the checks as CSV, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_log(&self, path: &Path) -> Result<(), Error> {
        output::write(path, self.csv().as_bytes()).map_err(failed(path))
    }

    /// Writes them as SVG, whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_plot(&self, path: &Path) -> Result<(), Error> {
        output::write_svg(path, self.svg())
    }

    /// The checks as CSV.
    pub fn csv(&self) -> String {
        let mut csv = String::from("step,loss,held_out,agreement,oscillation\n");
        let number = |value: Option<f64>| value.map_or_else(String::new, |v| v.to_string());
        for check in &self.checks {
            csv += &format!(
                "{},{},{},{},{}\n",
                check.step,
                number(check.loss),
                check.held_out,
                number(check.agreement),
                check.oscillation
            );
        }
        csv
    }

    /// Loss held out, loss and oscillation over the steps, as SVG.
    ///
    /// # Errors
    /// The drawing library's, as text.
    pub fn svg(&self) -> io::Result<String> {
        let mut svg = String::new();
        self.draw(&mut svg)
            .map_err(|error| io::Error::other(error.to_string()))?;
        Ok(svg)
    }

    fn draw(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
        let root = SVGBackend::with_string(svg, (760, 720)).into_drawing_area();
        root.fill(&WHITE)?;
        let curves: [(&str, Curve); 3] = [
            ("loss on samples held out", |c| Some(c.held_out)),
            ("loss on views", |c| c.loss),
            ("share of weights that oscillate", |c| Some(c.oscillation)),
        ];
        for (i, (area, (caption, value))) in
            root.split_evenly((3, 1)).iter().zip(curves).enumerate()
        {
            let points = self.checks.iter();
            let points: Vec<(f64, f64)> = points
                .filter_map(|check| Some((check.step as f64, value(check)?)))
                .collect();
            let most = points.iter().map(|(_, y)| *y).fold(1e-9, f64::max);
            let last = self.checks.last().map_or(1, |check| check.step.max(1)) as f64;
            let mut chart = ChartBuilder::on(area)
                .caption(caption, ("sans-serif", 16))
                .margin(10)
                .set_label_area_size(LabelAreaPosition::Left, 70)
                .set_label_area_size(LabelAreaPosition::Bottom, 30)
                .build_cartesian_2d(0.0..last, 0.0..1.1 * most)?;
            chart.configure_mesh().x_desc("step").draw()?;
            chart.draw_series(LineSeries::new(points, COLOURS[i].stroke_width(2)))?;
        }
        root.present()?;
        Ok(())
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    |source| Error::Write {
        path: path.into(),
        source,
    }
}

impl fmt::Display for Course {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chosen = self.checks.iter().find(|check| check.step == self.chosen);
        let (Some(first), Some(last)) = (self.checks.first(), chosen) else {
            return Ok(());
        };
        let (learned, held_out) = self.samples;
        write!(
            f,
            "learned for {} steps from {learned} samples: loss on {held_out} others {:.3} → {:.3}",
            last.step, first.held_out, last.held_out
        )?;
        if let (Some(before), Some(after)) = (first.agreement, last.agreement) {
            let (before, after) = (100.0 * before, 100.0 * after);
            write!(f, ", agreement {before:.1} → {after:.1} %")?;
        }
        if self.kept {
            writeln!(f)
        } else {
            writeln!(f, "; nothing gained, so the closed-form numbers were kept")
        }
    }
}
