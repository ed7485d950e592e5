//! `inspect`: what is in a pack, as tables and as a graph.

use crate::args::InspectArgs;
use crate::files::{Files, Written};
use crate::output::{Output, size, time};
use crate::text::fold;
use anyhow::Result;
use rockshard_manifest::{CoreId, Manifest, Model, Shard};
use rockshard_pack::Pack;
use std::fmt::Write;
use std::process::ExitCode;

/// `inspect`.
pub fn run(args: &InspectArgs, out: &Output) -> Result<ExitCode> {
    let pack = Pack::open(&args.pack)?;
    let manifest = pack.manifest();
    let mut files = Files::default();
    if let Some(path) = &args.graph {
        files.write("graph", path, dot(manifest))?;
    }
    out.result(&Written { value: manifest, written_files: &files }, || {
        let mut text = String::new();
        let c = &manifest.conversion;
        let _ = writeln!(
            text,
            "{} {}, for {}, sandwich {}, tile {}, shards {}, placement {}, optimise {}",
            manifest.generator.name,
            manifest.generator.version,
            manifest.target,
            c.sandwich,
            c.tile,
            c.shards,
            c.placement,
            c.optimise
        );
        for model in &manifest.models {
            let _ = write!(text, "\n{}", table(model));
            let _ = write!(text, "{}", compiled(model, args.layers));
            if args.why {
                let _ = write!(text, "{}", why(model));
            }
        }
        files.below(fold(text.trim_end()))
    });
    Ok(ExitCode::SUCCESS)
}

/// Columns of the names of shards, beyond which a name has a line of its own.
const NAMES: usize = 44;

/// What all of a model's shards are called before a number, which its tables leave out.
fn common(model: &Model) -> String {
    let size = model.resolution.map(|[w, h]| format!("-{w}x{h}")).unwrap_or_default();
    let start = format!("{}{size}-", model.name);
    let all = model.shards.iter().all(|s| s.name.starts_with(&start) && s.name.len() > start.len());
    if all { start } else { String::new() }
}

/// A row of a table: a name, and behind it or, if it is long, below it the figures.
fn row(text: &mut String, name: &str, width: usize, figures: &str) {
    let _ = match name.len() > width {
        true => writeln!(text, "  {name}\n  {:width$}  {figures}", ""),
        false => writeln!(text, "  {name:width$}  {figures}"),
    };
}

/// The width of a table's names.
fn width(model: &Model, start: &str) -> usize {
    let names = model.shards.iter().map(|s| s.name.len() - start.len());
    names.max().unwrap_or(0).clamp("shard".len(), NAMES)
}

fn table(model: &Model) -> String {
    let resolution = model.resolution.map(|[w, h]| format!(" {w}x{h}")).unwrap_or_default();
    let start = common(model);
    let shards = if start.is_empty() { String::new() } else { format!(", shards {start}...") };
    let mut text = format!("{}{resolution}{shards}\n", model.name);
    let width = width(model, &start);
    let heading =
        format!("{:6} {:>5} {:>9} {:>9} {:>9}", "core", "stage", "weights", "modelled", "internal");
    row(&mut text, "shard", width, &heading);
    for s in &model.shards {
        let on_host = s.core == CoreId::Host;
        let modelled = if on_host { "-".to_owned() } else { time(s.modelled.micros) };
        let internal = if on_host { "-".to_owned() } else { size(s.modelled.internal_bytes) };
        let figures = format!(
            "{:6} {:>5} {:>9} {modelled:>9} {internal:>9}",
            s.core.to_string(),
            s.stage,
            size(s.weight_bytes),
        );
        row(&mut text, &s.name[start.len()..], width, &figures);
        let operators = s.operators.iter().map(|(n, c)| format!("{n} {c}"));
        let did: Vec<String> = passes(s).into_iter().chain(operators).collect();
        let _ = writeln!(text, "    {}", did.join(", "));
    }
    text
}

/// What the vendor's compiler made of a model's shards; with `layers`, each with the compiler's table.
fn compiled(model: &Model, layers: bool) -> String {
    let mut text = String::new();
    let start = common(model);
    let width = width(model, &start);
    for (shard, compiled) in model.shards.iter().filter_map(|s| Some((s, s.compiled.as_ref()?))) {
        if text.is_empty() {
            let _ = writeln!(text, "  rknn-toolkit2 {}", compiled.toolkit);
            let heading = format!(
                "{:>9} {:>9} {:>12} {:>6}  cosine",
                "weights", "internal", "cycles", "layers"
            );
            row(&mut text, "shard", width, &heading);
        }
        let cosine = compiled.verified.map_or("-".to_owned(), |v| format!("{:.6}", v.cosine));
        let figures = format!(
            "{:>9} {:>9} {:>12} {:>6}  {cosine}",
            size(compiled.weight_bytes),
            size(compiled.internal_bytes),
            compiled.cycles(),
            compiled.layers.len(),
        );
        row(&mut text, &shard.name[start.len()..], width, &figures);
        let on_cpu = compiled.on_cpu().map(|l| format!("{} {} on the CPU", l.op, l.name));
        for note in compiled.warnings.iter().cloned().chain(on_cpu) {
            let _ = writeln!(text, "    {note}");
        }
        if layers && !compiled.layers.is_empty() {
            let _ = writeln!(
                text,
                "    {:<16} {:<4} {:<20} {:>11} {:>10} {:>10} {:>9}",
                "layer", "on", "output", "DDR cycles", "NPU cycles", "cycles", "moved"
            );
        }
        for layer in compiled.layers.iter().filter(|_| layers) {
            let [memory, arithmetic, total] = layer.cycles;
            let _ = writeln!(
                text,
                "    {:<16} {:<4} {:<20} {memory:>11} {arithmetic:>10} {total:>10} {:>9}\n      {}",
                layer.op,
                layer.target,
                layer.output,
                size(layer.moved_bytes),
                layer.name
            );
        }
    }
    text
}

/// How a shard's values are scaled and its attentions lowered.
fn passes(shard: &Shard) -> Vec<String> {
    let scaled = shard.sandwich.iter().map(|r| format!("sandwich x{}", r.factor));
    let lowered = shard.attention.iter().map(|a| format!("attention {}", a.lowering));
    let mut list: Vec<String> = scaled.chain(lowered).collect();
    list.dedup();
    list
}

fn why(model: &Model) -> String {
    let mut text: String = model.passes.iter().map(|line| format!("  {line}\n")).collect();
    for shard in &model.shards {
        for r in &shard.sandwich {
            let _ = writeln!(
                text,
                "  {}: values from {} to {} are stored times {}: {} reaches {:.3e}; float16 would lose {:.2} % of it, now {:.2} %",
                shard.name,
                r.nodes[0],
                r.nodes[1],
                r.factor,
                r.worst_value,
                r.worst_magnitude,
                r.lost_before * 100.0,
                r.lost_after * 100.0
            );
        }
        for a in &shard.attention {
            let [heads, queries, keys, channels] = a.shape;
            let _ = writeln!(
                text,
                "  {}: attention of {heads} heads, {queries} queries, {keys} keys, {channels} channels is {}: modelled peak {} instead of {}",
                shard.name,
                a.lowering,
                size(a.peak_after),
                size(a.peak_before)
            );
        }
    }
    for line in &model.notes {
        let _ = writeln!(text, "  {line}");
    }
    for line in &model.declined {
        let _ = writeln!(text, "  declined: {line}");
    }
    if text.is_empty() {
        text.push_str("  no pass did or declined anything\n");
    }
    text
}

/// The shards of all models as Graphviz dot, one cluster a model, coloured by core.
fn dot(manifest: &Manifest) -> String {
    let colour = |core: CoreId| match core {
        CoreId::Npu(0) => "#a6cee3",
        CoreId::Npu(1) => "#b2df8a",
        CoreId::Npu(_) => "#fdbf6f",
        CoreId::Host => "#dddddd",
    };
    let mut text =
        "digraph pack {\n  rankdir=LR; node [shape=box, style=filled, fontname=\"sans-serif\"];\n"
            .to_owned();
    for (m, model) in manifest.models.iter().enumerate() {
        let _ = writeln!(text, "  subgraph cluster_{m} {{ label={:?};", model.name);
        for shard in &model.shards {
            let _ = writeln!(
                text,
                "    {:?} [fillcolor=\"{}\", label=\"{}\\n{}\"];",
                shard.name,
                colour(shard.core),
                shard.name,
                shard.core
            );
        }
        text.push_str("  }\n");
        for (i, shard) in model.shards.iter().enumerate() {
            for earlier in &model.shards[..i] {
                let shared: Vec<_> = earlier
                    .outputs
                    .iter()
                    .filter(|o| shard.inputs.iter().any(|t| t.name == o.name))
                    .collect();
                if !shared.is_empty() {
                    let bytes: u64 =
                        shared.iter().map(|t| (t.shape.iter().product::<usize>() * 2) as u64).sum();
                    let _ = writeln!(
                        text,
                        "  {:?} -> {:?} [label=\"{}\"];",
                        earlier.name,
                        shard.name,
                        size(bytes)
                    );
                }
            }
        }
    }
    text.push_str("}\n");
    text
}
