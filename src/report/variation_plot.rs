//! Sensitivity and outliers of every site as a picture, one below the other.

use std::io;

use plotters::prelude::*;

use super::plot::COLOURS;
use super::variation::{VariationReport, both_db};
use crate::calibrate::variation::SiteVariation;

/// Pixels that a site takes.
const SITE: u32 = 18;
/// dB above which a site costs nothing.
const CEILING_DB: f64 = 100.0;

/// What is drawn of a site.
type Curve = fn(&SiteVariation) -> Option<f64>;

/// An SVG of three charts over the sites in the network's order.
///
/// # Errors
/// The drawing library's, as text.
pub fn svg(report: &VariationReport) -> io::Result<String> {
    let mut svg = String::new();
    draw(report, &mut svg).map_err(|error| io::Error::other(error.to_string()))?;
    Ok(svg)
}

fn draw(report: &VariationReport, svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let width = 120 + SITE * (report.sites.len().max(36) as u32);
    let root = SVGBackend::with_string(svg, (width, 840)).into_drawing_area();
    root.fill(&WHITE)?;
    let charts: [(&str, Curve); 3] = [
        (
            "one site quantised alone: signal to error at the outputs, dB (the lower, the dearer)",
            |site| Some(both_db(site).clamp(0.0, CEILING_DB)),
        ),
        ("farthest weight, standard deviations", |site| {
            site.weight.map(|it| it.most)
        }),
        ("farthest activation, standard deviations", |site| {
            Some(site.activation.most)
        }),
    ];
    let areas = root.split_evenly((3, 1));
    for (i, (area, (caption, curve))) in areas.iter().zip(charts).enumerate() {
        let sites = report.sites.iter().enumerate();
        let points = sites.filter_map(|(x, site)| Some((x as f64, curve(site)?)));
        let points: Vec<(f64, f64)> = points.collect();
        let most = points.iter().map(|(_, y)| *y).fold(1.0, f64::max);
        let count = report.sites.len() as f64;
        let mut chart = ChartBuilder::on(area)
            .caption(caption, ("sans-serif", 16))
            .margin(10)
            .set_label_area_size(LabelAreaPosition::Left, 60)
            .set_label_area_size(LabelAreaPosition::Bottom, 30)
            .build_cartesian_2d(-0.5..count - 0.5, 0.0..1.1 * most)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_desc("site, in the order of the network")
            .draw()?;
        let bar = |(x, y)| Rectangle::new([(x - 0.3, 0.0), (x + 0.3, y)], COLOURS[i].filled());
        chart.draw_series(points.into_iter().map(bar))?;
    }
    root.present()?;
    Ok(())
}
