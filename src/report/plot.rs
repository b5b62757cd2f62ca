//! The cost of every site as a picture: sites from left to right, dB upwards, one colour a width.

use std::io;

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::SensitivityReport;
use super::sensitivity::together;

/// Pixels of title and axis, without the names below it.
const HEIGHT: u32 = 480;
/// Pixels that a site takes: room for its name, written upwards.
const SITE: u32 = 18;
/// Pixels that a letter of a site's name takes, about: the drawing library knows no fonts.
const LETTER: usize = 7;
/// Pixels at the right: room for the legend.
const LEGEND: u32 = 90;
/// Pixels at the left: room for numbers and the axis' description.
const NUMBERS: u32 = 60;
/// dB above which a site costs nothing, where the picture ends.
const CEILING_DB: f64 = 100.0;

/// Colours that colour-blind people tell apart too (Okabe and Ito), in the order of the widths.
pub(super) const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

/// An SVG of the sites' costs with weights and activation rounded.
///
/// # Errors
/// The drawing library's, as text.
pub fn svg(report: &SensitivityReport) -> io::Result<String> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(svg)
}

fn draw(report: &SensitivityReport, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let count = report.sites.len();
    let width = NUMBERS + LEGEND + SITE * (count.max(36) as u32);
    let root = SVGBackend::with_string(svg, (width, HEIGHT + names(report))).into_drawing_area();
    root.fill(&WHITE)?;
    let name = report.model.path.file_name().unwrap_or_default();
    let caption = format!(
        "{}: one site quantised, all else float",
        name.to_string_lossy()
    );
    let mut chart = ChartBuilder::on(&root)
        .caption(caption, ("sans-serif", 20))
        .margin(10)
        .margin_right(LEGEND)
        .set_label_area_size(LabelAreaPosition::Left, NUMBERS)
        .set_label_area_size(LabelAreaPosition::Bottom, names(report))
        .build_cartesian_2d(-0.5..count as f64 - 0.5, range(report))?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(0)
        .light_line_style(TRANSPARENT)
        .x_desc("site, in the order of the network")
        .y_desc("signal to error at the outputs, dB (the lower, the dearer)")
        .axis_desc_style(("sans-serif", 14))
        .label_style(("sans-serif", 12))
        .draw()?;
    write_names(report, &chart, &root)?;
    for (i, bits) in report.widths.iter().enumerate() {
        let colour = COLOURS[i % COLOURS.len()];
        let points: Vec<(f64, f64)> = report
            .sites
            .iter()
            .enumerate()
            .map(|(x, site)| (x as f64, shown(site.costs[i].both_db)))
            .collect();
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.mix(0.35)))?;
        let dot = |at| Circle::new(at, 4, colour.filled());
        chart.draw_series(points.into_iter().map(dot))?;
        // By hand, as the library's own legend lies upon the points.
        let (left, top) = ((width - LEGEND) as i32, 50 + 20 * i as i32);
        root.draw(&Circle::new((left, top), 4, colour.filled()))?;
        let style = ("sans-serif", 14)
            .into_font()
            .color(&BLACK)
            .pos(Pos::new(HPos::Left, VPos::Center));
        root.draw(&Text::new(together(*bits), (left + 10, top), style))?;
    }
    root.present()?;
    Ok(())
}

/// Pixels below the axis: room for the names of sites and the axis' description.
fn names(report: &SensitivityReport) -> u32 {
    let lengths = report.sites.iter().map(|site| site.path.chars().count());
    (lengths.max().unwrap_or(0) * LETTER + 30) as u32
}

/// Names below the axis, upwards, each with a faint line to its points.
fn write_names(
    report: &SensitivityReport,
    chart: &Chart<'_, '_>,
    root: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = chart.plotting_area();
    let range = range(report);
    let style = ("sans-serif", 12)
        .into_font()
        .transform(FontTransform::Rotate270)
        .color(&BLACK)
        .pos(Pos::new(HPos::Right, VPos::Center));
    for (x, site) in report.sites.iter().enumerate() {
        let x = x as f64;
        let line = vec![(x, range.start), (x, range.end)];
        area.draw(&PathElement::new(line, BLACK.mix(0.08)))?;
        let (left, top) = area.map_coordinate(&(x, range.start));
        root.draw(&Text::new(
            site.path.as_str(),
            (left, top + 8),
            style.clone(),
        ))?;
    }
    Ok(())
}

/// Whole tens of dB around all points.
fn range(report: &SensitivityReport) -> std::ops::Range<f64> {
    let costs = report.sites.iter().flat_map(|site| &site.costs);
    let (lo, hi) = costs.fold((CEILING_DB, 0.0f64), |(lo, hi), cost| {
        let db = shown(cost.both_db);
        (lo.min(db), hi.max(db))
    });
    let (start, end) = ((lo / 10.0).floor() * 10.0, (hi / 10.0).ceil() * 10.0);
    start..end.max(start + 10.0)
}

/// Infinite where the outputs are all zero, or nothing differs.
fn shown(db: f64) -> f64 {
    db.clamp(-CEILING_DB, CEILING_DB)
}
