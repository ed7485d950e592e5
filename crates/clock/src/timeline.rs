//! A schedule as one self-contained SVG: a lane a core, a bar a task, waits as gaps. Bars are written straight to the text, as there may
//! be thousands of them and each is one line.
//!
//! Places along the time are shares of the drawing's width and letters have sizes of their own, so a page can make the drawing as wide as it
//! is, and it stays readable. What stands in a bar is chosen for two widths, of which the style shows one.

use crate::label::{escape, label};
use crate::{Schedule, Task};
use std::collections::HashSet;
use std::fmt::Write;

/// Width of the drawing where nothing else is asked for, and the least width that the wide and the narrow names in bars are made for.
const WIDTH: f64 = 1200.0;
const WIDE: f64 = 1020.0;
const NARROW: f64 = 300.0;
/// Height of a bar, and of a lane: a line of text with the bar below.
const BAR: f64 = 36.0;
const LANE: f64 = 64.0;
/// What the title takes, a row of the legend, and the axis.
const TITLE: f64 = 32.0;
const ROW: f64 = 20.0;
const AXIS: f64 = 38.0;
/// Entries of the legend in a row, and the room that each has.
const ENTRIES: usize = 2;
/// Width below which bars have no edge, which would hide them.
const EDGED: f64 = 2.0;
/// One colour a model, on which black letters can be read.
const COLOURS: [&str; 6] = ["#7ba6d6", "#f5a352", "#7cc271", "#c79bbb", "#ee8a8b", "#8fd0cb"];

/// A schedule as a self-contained SVG, its times called `word` (modelled or measured): a lane a core and one for the host's work, a bar a task with a tooltip, idle time left
/// empty, and the tasks that decide the end underlined.
pub fn timeline_svg(title: &str, word: &str, tasks: &[Task], schedule: &Schedule) -> String {
    let total = schedule.total_us().max(1.0);
    let critical: HashSet<usize> = schedule.critical_path(tasks).into_iter().collect();
    let mut cores: Vec<u8> = tasks.iter().flat_map(|t| t.cores.iter().copied()).collect();
    cores.sort_unstable();
    cores.dedup();
    let hosted = tasks.iter().any(|t| t.cores.is_empty());
    let mut models: Vec<&str> = Vec::new();
    for task in tasks {
        if !models.contains(&task.model.as_str()) {
            models.push(&task.model);
        }
    }
    let mut lanes: Vec<(String, String)> = Vec::new();
    for core in &cores {
        let busy = schedule.busy_us(tasks, *core, 0.0, total);
        let (share, idle) = (busy / total * 100.0, (total - busy) / 1e3);
        lanes.push((format!("core {core}"), format!("{share:.0} % busy, idle {idle:.1} ms")));
    }
    if hosted {
        lanes.push(("host".into(), "time not modelled".into()));
    }
    let top = TITLE + ROW * (models.len() + 1).div_ceil(ENTRIES) as f64;
    let height = top + LANE * lanes.len() as f64 + AXIS;
    let heading = escape(&format!("{title}: {:.2} ms {word}", total / 1e3));
    let spoken: Vec<String> = lanes.iter().map(|(name, note)| format!("{name} {note}")).collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"cores-timeline\" width=\"{WIDTH}\" height=\"{height}\" role=\"img\" aria-label=\"{heading}; {}\"><style>{}</style><rect class=\"paper\" width=\"100%\" height=\"100%\"/><text class=\"title\" x=\"0.5%\" y=\"20\">{heading}</text>",
        spoken.join("; "),
        include_str!("timeline.css"),
    );
    legend(&mut svg, &models);
    for (lane, (name, note)) in lanes.iter().enumerate() {
        let y = top + lane as f64 * LANE;
        let _ = write!(
            svg,
            "<text x=\"0.5%\" y=\"{:.0}\"><tspan class=\"core\">{name}</tspan> {note}</text><rect class=\"lane\" x=\"0.5%\" width=\"99%\" y=\"{:.0}\" height=\"{BAR}\"/>",
            y + 16.0,
            y + LANE - BAR - 4.0,
        );
    }
    for span in &schedule.spans {
        let task = &tasks[span.task];
        let rows: Vec<usize> = match &task.cores[..] {
            [] => vec![cores.len()],
            some => some.iter().filter_map(|c| cores.iter().position(|k| k == c)).collect(),
        };
        let model = models.iter().position(|m| *m == task.model).unwrap_or(0);
        let tip = format!(
            "{} item {}: {word} {:.3} ms to {:.3} ms{}",
            escape(&task.name),
            task.item,
            span.start_us / 1e3,
            span.end_us / 1e3,
            if critical.contains(&span.task) { ", on the critical path" } else { "" },
        );
        for row in rows {
            let bar = Bar {
                start: span.start_us / total,
                width: (span.end_us - span.start_us) / total,
                y: top + (row + 1) as f64 * LANE - BAR - 4.0,
                colour: COLOURS[model % COLOURS.len()],
            };
            bar.draw(&mut svg, task, &tip, critical.contains(&span.task));
        }
    }
    ticks(&mut svg, height, total);
    svg.push_str("</svg>\n");
    svg
}

/// Where a share of the time is, as a share of the drawing.
fn place(share: f64) -> f64 {
    0.5 + share * 99.0
}

/// A task on one lane; start and width are shares of the time.
struct Bar {
    start: f64,
    width: f64,
    y: f64,
    colour: &'static str,
}

impl Bar {
    fn draw(&self, svg: &mut String, task: &Task, tip: &str, critical: bool) {
        let Bar { y, colour, .. } = self;
        let (x, width) = (place(self.start), (self.width * 99.0).max(0.04));
        let edge = if self.width * WIDE >= EDGED { " class=\"bar\"" } else { "" };
        let _ = write!(
            svg,
            "<rect{edge} x=\"{x:.3}%\" y=\"{y:.0}\" width=\"{width:.3}%\" height=\"{BAR}\" fill=\"{colour}\"><title>{tip}</title></rect>",
        );
        for (class, pixels) in [("wide", WIDE), ("narrow", NARROW)] {
            if let Some(text) = label(task, self.width * pixels) {
                let _ = write!(
                    svg,
                    "<text class=\"name {class}\" x=\"{x:.3}%\" dx=\"3\" y=\"{:.0}\">{}</text>",
                    y + 21.0,
                    escape(&text)
                );
            }
        }
        if critical {
            let _ = write!(
                svg,
                "<rect class=\"critical\" x=\"{x:.3}%\" y=\"{:.1}\" width=\"{width:.3}%\" height=\"3\"/>",
                y + BAR
            );
        }
    }
}

/// The models' colours, and the mark of the critical path, some in a row.
fn legend(svg: &mut String, models: &[&str]) {
    let colours = models.iter().enumerate().map(|(i, model)| {
        let colour = COLOURS[i % COLOURS.len()];
        (format!("fill=\"{colour}\" height=\"12\""), 12.0, *model)
    });
    let critical = ("class=\"critical\" height=\"3\"".to_owned(), 3.0, "critical path");
    for (i, (mark, height, text)) in colours.chain([critical]).enumerate() {
        let y = TITLE + ROW * (i / ENTRIES) as f64 + 12.0;
        let x = if i % ENTRIES == 0 { "0.5%" } else { "50%" };
        let _ = write!(
            svg,
            "<svg x=\"{x}\" y=\"{:.0}\" overflow=\"visible\"><rect y=\"{}\" width=\"12\" {mark}/><text x=\"18\" y=\"11\">{}</text></svg>",
            y - 12.0,
            12.0 - height,
            escape(text)
        );
    }
}

/// The axis of time. The first and the last number stand within the drawing, and every second mark has one on narrow pages.
fn ticks(svg: &mut String, height: f64, total: f64) {
    const LAST: u8 = 8;
    for tick in 0..=LAST {
        let share = f64::from(tick) / f64::from(LAST);
        let anchor = match tick {
            0 => "start",
            LAST => "end",
            _ => "middle",
        };
        let class = if tick % 4 == 0 { "" } else { " class=\"wide\"" };
        let _ = write!(
            svg,
            "<line class=\"tick\" x1=\"{x:.2}%\" x2=\"{x:.2}%\" y1=\"{:.0}\" y2=\"{:.0}\"/><text{class} x=\"{x:.2}%\" y=\"{:.0}\" text-anchor=\"{anchor}\">{:.1} ms</text>",
            height - AXIS + 3.0,
            height - AXIS + 9.0,
            height - 12.0,
            total / 1e3 * share,
            x = place(share),
        );
    }
}
