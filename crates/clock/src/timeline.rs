//! A schedule as one self-contained SVG: a lane a core, a bar a task, waits as gaps. Bars are written straight to the text, as there may
//! be thousands of them and each is one line.

use crate::{Schedule, Task};
use std::collections::HashSet;
use std::fmt::Write;

const LANE: f64 = 48.0;
const LEFT: f64 = 64.0;
const WIDTH: f64 = 1000.0;
const TOP: f64 = 56.0;
/// Width below which a bar has no room for a name, and of a character.
const NAMED: f64 = 36.0;
const CHARACTER: f64 = 5.6;
/// One colour a model, readable on light and dark grounds.
const COLOURS: [&str; 6] = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2"];
const CRITICAL: &str = "#b3001b";

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
    let lanes = cores.len() + usize::from(hosted);
    let height = TOP + LANE * lanes as f64 + 40.0;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\" aria-label=\"{word} timeline of the NPU cores\"><rect width=\"100%\" height=\"100%\" fill=\"#fbfbfa\"/><text x=\"{LEFT}\" y=\"20\" fill=\"#222\" font-size=\"15\">{}</text>",
        LEFT + WIDTH + 150.0,
        escape(&format!("{title}: {:.2} ms {word}", total / 1e3)),
    );
    legend(&mut svg, &models);
    for (lane, core) in cores.iter().enumerate() {
        let busy = schedule.busy_us(tasks, *core, 0.0, total);
        let share =
            format!("{:.0} % busy, idle {:.1} ms", busy / total * 100.0, (total - busy) / 1e3);
        ground(&mut svg, lane, &format!("core {core}"), &share);
    }
    if hosted {
        ground(&mut svg, cores.len(), "host", "time not modelled");
    }
    for span in &schedule.spans {
        let task = &tasks[span.task];
        let rows: Vec<usize> = match &task.cores[..] {
            [] => vec![cores.len()],
            some => some.iter().filter_map(|c| cores.iter().position(|k| k == c)).collect(),
        };
        let x = LEFT + span.start_us / total * WIDTH;
        let width = ((span.end_us - span.start_us) / total * WIDTH).max(0.4);
        let colour =
            COLOURS[models.iter().position(|m| *m == task.model).unwrap_or(0) % COLOURS.len()];
        for row in rows {
            let y = TOP + row as f64 * LANE + 6.0;
            let _ = write!(
                svg,
                "<rect x=\"{x:.2}\" y=\"{y:.1}\" width=\"{width:.2}\" height=\"{:.1}\" fill=\"{colour}\" stroke=\"#fff\" stroke-width=\"0.3\"><title>{} item {}: {word} {:.3} ms to {:.3} ms{}</title></rect>",
                LANE - 12.0,
                escape(&task.name),
                task.item,
                span.start_us / 1e3,
                span.end_us / 1e3,
                if critical.contains(&span.task) { ", on the critical path" } else { "" },
            );
            if width >= NAMED {
                let room = ((width - 6.0) / CHARACTER) as usize;
                let skip = task.name.chars().count().saturating_sub(room);
                let short: String = task.name.chars().skip(skip).collect();
                let _ = write!(
                    svg,
                    "<text x=\"{:.1}\" y=\"{:.1}\" fill=\"#fff\" font-size=\"10\">{}</text>",
                    x + 3.0,
                    y + 21.0,
                    escape(&short)
                );
            }
            if critical.contains(&span.task) {
                let _ = write!(
                    svg,
                    "<rect x=\"{x:.2}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"2.5\" fill=\"{CRITICAL}\"/>",
                    y + LANE - 12.0
                );
            }
        }
    }
    ticks(&mut svg, height, total);
    svg.push_str("</svg>\n");
    svg
}

fn legend(svg: &mut String, models: &[&str]) {
    let mut x = LEFT;
    let mut entry = |colour: &str, height: f64, text: &str| {
        let _ = write!(
            svg,
            "<rect x=\"{x:.0}\" y=\"{:.1}\" width=\"12\" height=\"{height}\" fill=\"{colour}\"/><text x=\"{:.0}\" y=\"41\" fill=\"#333\">{}</text>",
            42.0 - height,
            x + 17.0,
            escape(text)
        );
        x += 40.0 + 8.0 * text.len() as f64;
    };
    for (i, model) in models.iter().enumerate() {
        entry(COLOURS[i % COLOURS.len()], 12.0, model);
    }
    entry(CRITICAL, 2.5, "critical path");
}

fn ground(svg: &mut String, lane: usize, name: &str, note: &str) {
    let y = TOP + lane as f64 * LANE;
    let _ = write!(
        svg,
        "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{WIDTH}\" height=\"{:.1}\" fill=\"#ececea\"/><text x=\"8\" y=\"{middle:.1}\" fill=\"#333\">{name}</text><text x=\"{:.0}\" y=\"{middle:.1}\" fill=\"#333\" font-size=\"11\">{note}</text>",
        y + 6.0,
        LANE - 12.0,
        LEFT + WIDTH + 8.0,
        middle = y + LANE / 2.0 + 4.0,
    );
}

fn ticks(svg: &mut String, height: f64, total: f64) {
    for tick in 0..=10 {
        let share = f64::from(tick) / 10.0;
        let x = LEFT + WIDTH * share;
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#999\"/><text x=\"{x:.1}\" y=\"{:.1}\" fill=\"#555\" text-anchor=\"middle\">{:.1} ms</text>",
            height - 34.0,
            height - 29.0,
            height - 14.0,
            total / 1e3 * share
        );
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
