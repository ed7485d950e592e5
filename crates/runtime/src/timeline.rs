use crate::Trace;
use rockshard_manifest::CoreId;
use std::collections::BTreeMap;
use std::fmt::Write;

const LANE: f64 = 44.0;
const LEFT: f64 = 64.0;
const WIDTH: f64 = 1000.0;
const TOP: f64 = 52.0;
/// One colour a model, readable on light and dark grounds.
const COLOURS: [&str; 6] = ["#4e79a7", "#f28e2b", "#59a14f", "#b07aa1", "#e15759", "#76b7b2"];

/// The timeline as a self-contained SVG: one lane a core, one bar a shard run, with a tooltip each. It is the modelled one, or the measured
/// one where the device models nothing.
pub fn timeline_svg(trace: &Trace) -> String {
    let (word, scheduled) = if trace.is_modelled() { ("modelled", trace.modelled()) } else { ("measured", trace.measured()) };
    let title = if trace.is_modelled() { "Modelled" } else { "Measured" };
    let total = scheduled.iter().map(|s| s.end_us).fold(1.0, f64::max);
    let mut cores: Vec<u8> = trace.runs.iter().filter_map(|r| if let CoreId::Npu(n) = r.core { Some(n) } else { None }).collect();
    cores.sort_unstable();
    cores.dedup();
    let mut models: Vec<&str> = Vec::new();
    for run in &trace.runs {
        if !models.contains(&run.model.as_str()) {
            models.push(&run.model);
        }
    }
    let height = TOP + LANE * cores.len() as f64 + 36.0;
    let mut busy: BTreeMap<u8, f64> = BTreeMap::new();
    let mut bars = String::new();
    for s in &scheduled {
        let run = &trace.runs[s.run];
        let CoreId::Npu(core) = run.core else { continue };
        *busy.entry(core).or_default() += s.end_us - s.start_us;
        let lane = cores.iter().position(|&c| c == core).unwrap_or(0) as f64;
        let x = LEFT + s.start_us / total * WIDTH;
        let width = ((s.end_us - s.start_us) / total * WIDTH).max(0.4);
        let colour = COLOURS[models.iter().position(|m| *m == run.model).unwrap_or(0) % COLOURS.len()];
        let _ = write!(
            bars,
            "<rect x=\"{x:.2}\" y=\"{:.1}\" width=\"{width:.2}\" height=\"{:.1}\" fill=\"{colour}\" stroke=\"#fff\" stroke-width=\"0.3\"><title>{} item {} on core {core}: {word} {:.3} ms to {:.3} ms</title></rect>",
            TOP + lane * LANE + 6.0,
            LANE - 12.0,
            escape(&run.shard),
            run.item,
            s.start_us / 1e3,
            s.end_us / 1e3,
        );
    }
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" font-family=\"system-ui, sans-serif\" font-size=\"13\" role=\"img\" aria-label=\"{word} timeline of the NPU cores\"><rect width=\"100%\" height=\"100%\" fill=\"#fbfbfa\"/><text x=\"{LEFT}\" y=\"20\" fill=\"#222\" font-size=\"15\">{title} timeline: {:.2} ms</text>",
        LEFT + WIDTH + 90.0,
        total / 1e3
    );
    let mut x = LEFT;
    for (i, model) in models.iter().enumerate() {
        let _ = write!(
            svg,
            "<rect x=\"{x:.0}\" y=\"30\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{:.0}\" y=\"41\" fill=\"#333\">{}</text>",
            COLOURS[i % COLOURS.len()],
            x + 17.0,
            escape(model)
        );
        x += 40.0 + 8.0 * model.len() as f64;
    }
    for (lane, core) in cores.iter().enumerate() {
        let y = TOP + lane as f64 * LANE;
        let share = busy.get(core).copied().unwrap_or(0.0) / total * 100.0;
        let _ = write!(
            svg,
            "<rect x=\"{LEFT}\" y=\"{:.1}\" width=\"{WIDTH}\" height=\"{:.1}\" fill=\"#ececea\"/><text x=\"8\" y=\"{:.1}\" fill=\"#333\">core {core}</text><text x=\"{:.0}\" y=\"{:.1}\" fill=\"#333\">{share:.0} % busy</text>",
            y + 6.0,
            LANE - 12.0,
            y + LANE / 2.0 + 4.0,
            LEFT + WIDTH + 8.0,
            y + LANE / 2.0 + 4.0,
        );
    }
    svg.push_str(&bars);
    for tick in 0..=10 {
        let x = LEFT + WIDTH * f64::from(tick) / 10.0;
        let _ = write!(
            svg,
            "<line x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{:.1}\" stroke=\"#999\"/><text x=\"{x:.1}\" y=\"{:.1}\" fill=\"#555\" text-anchor=\"middle\">{:.1} ms</text>",
            height - 34.0,
            height - 29.0,
            height - 14.0,
            total / 1e3 * f64::from(tick) / 10.0
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
