//! Speed-ups as an SVG: two bars a block, measured and modelled, on a logarithmic axis.

use super::report::Report;
use anyhow::{Result, anyhow};
use plotters::prelude::*;

const SIZE: (u32, u32) = (960, 520);
const MEASURED: RGBColor = RGBColor(78, 121, 167);
const MODELLED: RGBColor = RGBColor(242, 142, 43);

/// The chart.
pub fn svg(report: &Report) -> Result<String> {
    let mut text = String::new();
    draw(report, &mut text).map_err(|error| anyhow!("the chart: {error}"))?;
    Ok(text)
}

fn draw(report: &Report, text: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(text, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let rows = &report.rows;
    let ratios = rows.iter().flat_map(|r| [r.measured_ratio, r.modelled_ratio]);
    let most = ratios.fold(10.0, f64::max) * 1.6;
    let title = format!(
        "Speed-up: {} measured here, {} modelled for {} cores",
        name(&report.measured_pack),
        name(&report.modelled_pack),
        report.cores
    );
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(150)
        .build_cartesian_2d((0.5..most).log_scale(), 0.0..rows.len() as f64)?;
    let label = |y: &f64| {
        let row = rows.len().checked_sub(y.floor() as usize + 1).and_then(|at| rows.get(at));
        if y.fract() == 0.5 {
            row.map_or(String::new(), |r| r.name.to_owned())
        } else {
            String::new()
        }
    };
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(2 * rows.len() + 1)
        .y_label_formatter(&label)
        .x_label_formatter(&|x| format!("{x}x"))
        .x_desc("frames a second, second way over first")
        .draw()?;
    for (word, colour, low, of) in [
        ("measured", MEASURED, 0.5, (|r| r.measured_ratio) as fn(&super::Row) -> f64),
        ("modelled", MODELLED, 0.15, |r| r.modelled_ratio),
    ] {
        let bars = rows.iter().enumerate().map(|(at, row)| {
            let bottom = (rows.len() - 1 - at) as f64 + low;
            Rectangle::new([(0.5, bottom), (of(row), bottom + 0.33)], colour.filled())
        });
        chart
            .draw_series(bars)?
            .label(word)
            .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
        chart.draw_series(rows.iter().enumerate().map(|(at, row)| {
            let middle = (rows.len() - 1 - at) as f64 + low + 0.26;
            let ratio = of(row);
            Text::new(format!(" {ratio:.2}x"), (ratio, middle), ("sans-serif", 12))
        }))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .border_style(BLACK.mix(0.3))
        .background_style(WHITE)
        .draw()?;
    area.present()?;
    drop(chart);
    Ok(())
}

/// The last part of a path.
fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}
