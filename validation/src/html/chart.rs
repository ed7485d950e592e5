//! Geometry of the charts; the template draws them.

use crate::{Feeding, LayerReport, Metrics, ModelReport};
use serde::Serialize;

/// Least width of a layer in a chart, in pixels.
const LEAST_STEP: usize = 7;
/// Widths of the plot on wide and on narrow pages that the layers' numbers are chosen for, and the room of a number.
const WIDE: f64 = 1000.0;
const NARROW: f64 = 260.0;
const NUMBER: f64 = 24.0;
const TOP: f64 = 14.0;

/// `1 - agreement` of each layer on a logarithmic scale. Places from left to right are percents of the plot's width, those from top to
/// bottom pixels.
#[derive(Serialize)]
pub(crate) struct ErrorChart {
    /// Least width of the plot, in pixels.
    least: usize,
    top: f64,
    bottom: f64,
    /// Grid lines.
    ticks: Vec<Tick>,
    /// Height of the threshold line.
    threshold: f64,
    teacher_forced: Vec<Point>,
    cumulative: Vec<Point>,
    /// Corner points of the line through the cumulative values.
    cumulative_line: String,
    teacher_forced_line: String,
    /// Layers that were not compared.
    missing: Vec<f64>,
    /// Left edge and width of the band behind the first diverging layer.
    divergence: Option<[f64; 2]>,
    labels: Vec<Label>,
}

#[derive(Serialize)]
struct Tick {
    y: f64,
    text: String,
}

#[derive(Serialize)]
struct Point {
    x: f64,
    y: f64,
    fails: bool,
    title: String,
}

#[derive(Serialize)]
struct Label {
    x: f64,
    number: usize,
    /// Narrow pages have no room for it.
    wide: bool,
}

/// The layers, side by side.
struct Columns {
    count: usize,
}

impl Columns {
    /// Width of a layer.
    fn step(&self) -> f64 {
        100.0 / self.count.max(1) as f64
    }

    fn centre(&self, index: usize) -> f64 {
        (index as f64 + 0.5) * self.step()
    }

    /// Least width of the plot, in pixels.
    fn least(&self) -> usize {
        LEAST_STEP * self.count
    }

    /// Every how many layers there is room for a number, on a page that leaves the plot so many pixels.
    fn every(&self, pixels: f64) -> usize {
        let step = (pixels / self.count.max(1) as f64).max(LEAST_STEP as f64);
        [1, 5, 10, 50, 100].into_iter().find(|&n| n as f64 * step >= NUMBER).unwrap_or(100)
    }

    /// Number the layers so that the numbers do not touch.
    fn labels(&self) -> Vec<Label> {
        let [wide, narrow] = [WIDE, NARROW].map(|pixels| self.every(pixels));
        let numbers = (1..=self.count).filter(|number| number.is_multiple_of(wide));
        let label = |number: usize| Label {
            x: self.centre(number - 1),
            number,
            wide: !number.is_multiple_of(narrow),
        };
        numbers.map(label).collect()
    }
}

/// The error chart of a model.
pub(crate) fn error_chart(model: &ModelReport, threshold: f64) -> ErrorChart {
    let bottom = 244.0;
    let columns = Columns { count: model.layers.len() };
    let errors = || {
        model
            .layers
            .iter()
            .flat_map(|l| [error(l, Feeding::TeacherForced), error(l, Feeding::Cumulative)])
            .flatten()
    };
    let limit = (1.0 - threshold).max(1e-9);
    let lowest =
        errors().filter(|&e| e > 0.0).fold(limit, f64::min).log10().floor().clamp(-9.0, -1.0);
    let highest = errors().fold(limit, f64::max).log10().ceil().clamp(lowest + 1.0, 1.0);
    let y = |e: f64| {
        let share = (e.max(1e-300).log10().clamp(lowest, highest) - lowest) / (highest - lowest);
        bottom - share * (bottom - TOP)
    };
    let points = |mode: Feeding| -> Vec<Point> {
        let of = |(i, layer): (usize, &LayerReport)| {
            let (tensor, metrics) = layer.worst(mode)?;
            let (measure, value) = (metrics.measure(), metrics.agreement());
            let title = format!(
                "{}. {}: {mode} {measure} {value:.8} of {}",
                i + 1,
                layer.name,
                tensor.name
            );
            Some(Point {
                x: columns.centre(i),
                y: y(1.0 - value),
                fails: !metrics.passes(threshold),
                title,
            })
        };
        model.layers.iter().enumerate().filter_map(of).collect()
    };
    let line = |points: &[Point]| {
        points.iter().map(|p| format!("{:.2},{:.1} ", p.x, p.y)).collect::<String>()
    };
    let (teacher_forced, cumulative) =
        (points(Feeding::TeacherForced), points(Feeding::Cumulative));
    let ticks = (lowest as i32..=highest as i32)
        .map(|e| Tick { y: y(10f64.powi(e)), text: power(e) })
        .collect();
    let unseen = |l: &LayerReport| {
        l.worst(Feeding::TeacherForced).is_none() || l.worst(Feeding::Cumulative).is_none()
    };
    ErrorChart {
        least: columns.least(),
        top: TOP,
        bottom,
        ticks,
        threshold: y(limit),
        teacher_forced_line: line(&teacher_forced),
        cumulative_line: line(&cumulative),
        teacher_forced,
        cumulative,
        missing: model
            .layers
            .iter()
            .enumerate()
            .filter(|(_, l)| unseen(l))
            .map(|(i, _)| columns.centre(i))
            .collect(),
        divergence: model
            .first_divergence
            .as_ref()
            .map(|d| [columns.centre(d.index) - columns.step() / 2.0, columns.step()]),
        labels: columns.labels(),
    }
}

fn error(layer: &LayerReport, mode: Feeding) -> Option<f64> {
    layer.worst(mode).map(|(_, m)| 1.0 - m.agreement())
}

/// `10` to a power, as text.
fn power(exponent: i32) -> String {
    match exponent {
        -2..=1 => format!("{}", 10f64.powi(exponent)),
        _ => {
            let raised = |c| match c {
                '-' => '⁻',
                '1' => '¹',
                '2' => '²',
                '3' => '³',
                other => char::from_u32(0x2070 + other as u32 - '0' as u32).unwrap_or(other),
            };
            format!("10{}", exponent.to_string().chars().map(raised).collect::<String>())
        }
    }
}

/// Shares of values that float16 loses, as bars; measured as in [`ErrorChart`].
#[derive(Serialize)]
pub(crate) struct ShareChart {
    /// Least width of the plot, in pixels.
    least: usize,
    bottom: f64,
    ticks: Vec<Tick>,
    overflow: Vec<Bar>,
    subnormal: Vec<Bar>,
    flushed: Vec<Bar>,
    labels: Vec<Label>,
}

#[derive(Serialize)]
struct Bar {
    x: f64,
    y: f64,
    width: f64,
    height: f64,
    title: String,
}

/// The largest share over a layer's tensors, teacher-forced (cumulative where only that was run).
fn share(layer: &LayerReport, pick: fn(&crate::RealMetrics) -> f64) -> f64 {
    let metrics =
        layer.tensors.iter().filter_map(|t| t.teacher_forced.as_ref().or(t.cumulative.as_ref()));
    let shares = metrics.filter_map(|m| match m {
        Metrics::Real(m) => Some(pick(m)),
        Metrics::Integer(_) => None,
    });
    shares.fold(0.0, f64::max)
}

/// The share chart of a model; `None` when no layer loses anything.
pub(crate) fn share_chart(model: &ModelReport) -> Option<ShareChart> {
    let picks: [fn(&crate::RealMetrics) -> f64; 3] =
        [|m| m.non_finite, |m| m.subnormal, |m| m.flushed];
    let names = ["overflow", "subnormal", "flushed to zero"];
    let highest = model.layers.iter().flat_map(|l| picks.map(|p| share(l, p))).fold(0.0, f64::max);
    if highest == 0.0 {
        return None;
    }
    let top = [1e-4, 1e-3, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
        .into_iter()
        .find(|&t| highest <= t)
        .unwrap_or(1.0);
    let bottom = 144.0;
    let columns = Columns { count: model.layers.len() };
    let width = columns.step() * 0.8 / 3.0;
    let bars = |kind: usize| -> Vec<Bar> {
        let of = |(i, layer): (usize, &LayerReport)| {
            let value = share(layer, picks[kind]);
            // A share above zero stays visible however small it is.
            let height = (value / top * (bottom - TOP)).max(1.5);
            let x = columns.centre(i) + (kind as f64 - 1.5) * width;
            let title =
                format!("{}. {}: {:.4} % {}", i + 1, layer.name, value * 100.0, names[kind]);
            (value > 0.0).then_some(Bar { x, y: bottom - height, width, height, title })
        };
        model.layers.iter().enumerate().filter_map(of).collect()
    };
    let ticks = [0.0, 0.5, 1.0].map(|t| Tick {
        y: bottom - t * (bottom - TOP),
        text: format!("{} %", round(t * top * 100.0)),
    });
    Some(ShareChart {
        least: columns.least(),
        bottom,
        ticks: ticks.into(),
        overflow: bars(0),
        subnormal: bars(1),
        flushed: bars(2),
        labels: columns.labels(),
    })
}

fn round(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_written_as_text() {
        assert_eq!([1, 0, -1, -2, -3, -9].map(power), ["10", "1", "0.1", "0.01", "10⁻³", "10⁻⁹"]);
    }

    #[test]
    fn numbers_have_room_and_a_narrow_page_shows_some_of_them() {
        for count in [1, 7, 39, 96, 300, 2000] {
            let labels = Columns { count }.labels();
            let plot = |pixels: f64| pixels.max((LEAST_STEP * count) as f64);
            for (pixels, narrow) in [(WIDE, false), (NARROW, true)] {
                let shown: Vec<f64> = labels
                    .iter()
                    .filter(|l| !(narrow && l.wide))
                    .map(|l| l.x / 100.0 * plot(pixels))
                    .collect();
                assert!(!shown.is_empty(), "{count} layers on {pixels} pixels");
                assert!(
                    shown.windows(2).all(|w| w[1] - w[0] >= NUMBER - 0.01),
                    "{count}: {shown:?}"
                );
            }
        }
    }
}
