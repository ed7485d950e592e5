//! `plan`: what a pack takes in each parallel mode, as a table, and a timeline.

use crate::args::PlanArgs;
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
    if let Some(path) = &args.timeline {
        std::fs::write(path, timeline_svg(&title, "modelled", &shown, &schedule))
            .with_context(|| path.display().to_string())?;
    }
    if let Some(path) = &args.trace {
        let text = serde_json::to_string(&chrome_trace(&shown, &schedule))?;
        std::fs::write(path, text).with_context(|| path.display().to_string())?;
    }
    let value = json!({
        "time": "modelled", "optimise": plan.optimise, "models": plan.models, "steps": args.steps,
        "pictures_us": modelled.iter().cloned().collect::<std::collections::BTreeMap<_, _>>(),
    });
    out.result(&value, || {
        let mut lines = vec!["All times are modelled.".to_owned()];
        lines.extend(plan.models.iter().map(table));
        lines.extend(modelled.iter().map(|(name, us)| {
            format!("{name}, {} steps, one at a time: {} modelled", args.steps, time(*us))
        }));
        lines.join("\n\n")
    });
    Ok(ExitCode::SUCCESS)
}

fn table(model: &ModelPlan) -> String {
    let resolution = model.resolution.map(|[w, h]| format!(" at {w}x{h}")).unwrap_or_default();
    let mut lines = vec![format!(
        "{}{resolution}\n  {:9} {:>5} {:>10} {:>7} {:>12} {:>7} {:>15} {:>10}  {}",
        model.model,
        "mode",
        "cores",
        "one item",
        "times",
        "of a stream",
        "times",
        "busy %",
        "resident",
        "cores' time: compute, moves, calls, memory, idle"
    )];
    if let Some(us) = model.unchanged_us {
        let us = time(us);
        lines.push(format!(
            "  {:9} {:>5} {us:>10} {:>7} {us:>12} {:>7}",
            "unchanged", 1, "1.00", "1.00"
        ));
    }
    for (i, f) in model.figures.iter().enumerate() {
        let name = if f.cores == 1 { "one core" } else { f.mode.name() };
        lines.push(format!(
            "{}{}",
            row(name, f, model.baseline_us()),
            if i == model.picked { "  <- picked" } else { "" }
        ));
    }
    lines.join("\n")
}

fn row(name: &str, f: &Figures, baseline_us: f64) -> String {
    let busy: Vec<String> = f.busy.iter().map(|b| format!("{:.0}", b * 100.0)).collect();
    let s = &f.shares;
    let shares: Vec<String> = [s.compute, s.moving, s.calls, s.memory, s.idle]
        .iter()
        .map(|x| format!("{:4.1}", x * 100.0))
        .collect();
    format!(
        "  {name:9} {:>5} {:>10} {:>7.2} {:>12} {:>7.2} {:>15} {:>10}  {} %",
        f.cores,
        time(f.latency_us),
        baseline_us / f.latency_us,
        time(f.interval_us),
        baseline_us / f.interval_us,
        busy.join(" "),
        size(f.resident_bytes),
        shares.join(" ")
    )
}
