//! `plan`: what a pack takes in each parallel mode, as a table, and a timeline; what the words mean, and how to run it so.

mod apply;
mod words;

use crate::args::PlanArgs;
use crate::files::Files;
use crate::output::{Output, size, time};
use anyhow::{Context, Result};
use rockshard::Rk3588;
use rockshard_clock::{chrome_trace, simulate, timeline_svg};
use rockshard_pack::Pack;
use rockshard_plan::{Figures, ModelPlan, Plan, picture_tasks, tasks};
use serde_json::json;
use std::process::ExitCode;

/// `plan`.
pub fn run(args: &PlanArgs, out: &Output) -> Result<ExitCode> {
    let pack = Pack::open(&args.pack)?;
    let chip = Rk3588::from_environment()?;
    let plan = Plan::of(pack.root(), pack.manifest(), &chip, args.cores, args.optimise)?;
    let memory = chip.memory();
    let sizes = pack.manifest().resolutions();
    let pictures: Vec<_> = sizes
        .iter()
        .filter_map(|&s| Some((s, picture_tasks(&plan, s, usize::from(args.steps))?)))
        .collect();
    let modelled: Vec<(String, f64)> = (pictures.iter())
        .map(|(s, tasks)| {
            (
                s.map_or("a picture".to_owned(), |[w, h]| format!("a picture of {w}x{h}")),
                simulate(tasks, memory).total_us(),
            )
        })
        .collect();
    let (title, shown) = match pictures.into_iter().next() {
        Some((_, tasks)) => (format!("a picture, {} steps", args.steps), tasks),
        None => {
            let (model, cost) =
                plan.models.first().zip(plan.costs.first()).context("the pack has no models")?;
            let best = model.best();
            (
                format!("{}, {} on {} cores", model.model, best.mode.name(), best.cores),
                tasks(cost, best.mode, best.cores, 1),
            )
        }
    };
    let schedule = simulate(&shown, memory);
    let mut files = Files::default();
    if let Some(path) = &args.timeline {
        files.write("timeline", path, timeline_svg(&title, "modelled", &shown, &schedule))?;
    }
    if let Some(path) = &args.trace {
        let text = serde_json::to_string(&chrome_trace(&shown, &schedule))?;
        files.write("trace", path, text)?;
    }
    let apply = apply::commands(&args.pack.display().to_string(), &pack, &plan);
    let value = json!({
        "time": "modelled", "optimise": plan.optimise, "models": plan.models, "steps": args.steps,
        "pictures_us": modelled.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
        "apply": apply, "written_files": files,
    });
    out.result(&value, || {
        let mut lines = vec!["All times are modelled.".to_owned()];
        lines.extend(plan.models.iter().map(table));
        lines.extend(modelled.iter().map(|(name, us)| {
            format!("{name}, {} steps, one at a time: {} modelled", args.steps, time(*us))
        }));
        lines.push(words::words());
        lines.push(apply::text(&apply));
        files.below(lines.join("\n\n"))
    });
    Ok(ExitCode::SUCCESS)
}

/// A model's figures. Rows have 99 columns at most.
fn table(model: &ModelPlan) -> String {
    let resolution = model.resolution.map(|[w, h]| format!(" at {w}x{h}")).unwrap_or_default();
    let mut lines = vec![
        format!("{}{resolution}", model.model),
        row("", "mode", "cores", ["one item", "times", "stream", "times", "busy %", "resident"])
            + &words::SHARES.map(|(word, _)| format!(" {word:>4}")).concat(),
    ];
    if let Some(us) = model.unchanged_us {
        let us = time(us);
        lines.push(row("", "unchanged", "1", [&us, "1.00", &us, "1.00", "", ""]));
    }
    for (i, f) in model.figures.iter().enumerate() {
        let name = if f.cores == 1 { "one core" } else { f.mode.name() };
        let mark = if i == model.picked { "*" } else { "" };
        lines.push(figures(mark, name, f, model.baseline_us()));
    }
    lines.join("\n")
}

/// A row of a table, without its shares.
fn row(mark: &str, mode: &str, cores: &str, cells: [&str; 6]) -> String {
    let [item, item_times, stream, stream_times, busy, resident] = cells;
    let text = format!(
        "{mark:1} {mode:9} {cores:>5} {item:>9} {item_times:>6} {stream:>9} {stream_times:>6} {busy:>11} {resident:>9}"
    );
    text.trim_end().to_owned()
}

fn figures(mark: &str, name: &str, f: &Figures, baseline_us: f64) -> String {
    let busy: Vec<String> = f.busy.iter().map(|b| format!("{:.0}", b * 100.0)).collect();
    let s = &f.shares;
    let shares = [s.compute, s.moving, s.calls, s.memory, s.idle];
    let times = |us: f64| format!("{:.2}", baseline_us / us);
    let cells = [
        &time(f.latency_us),
        &times(f.latency_us),
        &time(f.interval_us),
        &times(f.interval_us),
        &busy.join(" "),
        &size(f.resident_bytes),
    ];
    row(mark, name, &f.cores.to_string(), cells.map(String::as_str))
        + &shares.map(|share| format!(" {:>4.1}", share * 100.0)).concat()
}
