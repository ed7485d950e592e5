//! `inspect`: what is in a pack, as tables and as a graph.

use crate::args::InspectArgs;
use crate::output::{Output, size, time};
use anyhow::{Context, Result};
use rockshard_manifest::{CoreId, Manifest, Model, Shard};
use rockshard_pack::Pack;
use std::fmt::Write;
use std::process::ExitCode;

/// `inspect`.
pub fn run(args: &InspectArgs, out: &Output) -> Result<ExitCode> {
    let pack = Pack::open(&args.pack)?;
    let manifest = pack.manifest();
    if let Some(path) = &args.graph {
        std::fs::write(path, dot(manifest)).with_context(|| path.display().to_string())?;
    }
    out.result(manifest, || {
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
        text.trim_end().to_owned()
    });
    Ok(ExitCode::SUCCESS)
}

fn table(model: &Model) -> String {
    let resolution = model.resolution.map(|[w, h]| format!(" {w}x{h}")).unwrap_or_default();
    let mut text = format!("{}{resolution}\n", model.name);
    let width = model.shards.iter().map(|s| s.name.len()).max().unwrap_or(4).max(5);
    let _ = writeln!(
        text,
        "  {:width$}  {:6} {:>5} {:>10} {:>12} {:>10}  {:<18} operators",
        "shard", "core", "stage", "weights", "modelled", "internal", "sandwich, tiling"
    );
    for s in &model.shards {
        let modelled =
            if s.core == CoreId::Host { "-".to_owned() } else { time(s.modelled.micros) };
        let internal =
            if s.core == CoreId::Host { "-".to_owned() } else { size(s.modelled.internal_bytes) };
        let operators =
            s.operators.iter().map(|(n, c)| format!("{n} {c}")).collect::<Vec<_>>().join(", ");
        let _ = writeln!(
            text,
            "  {:width$}  {:6} {:>5} {:>10} {modelled:>12} {internal:>10}  {:<18} {operators}",
            s.name,
            s.core.to_string(),
            s.stage,
            size(s.weight_bytes),
            passes(s)
        );
    }
    text
}

/// What the vendor's compiler made of a model's shards; with `layers`, each with the compiler's table.
fn compiled(model: &Model, layers: bool) -> String {
    let mut text = String::new();
    let width = model.shards.iter().map(|s| s.name.len()).max().unwrap_or(0).max(5);
    for (shard, compiled) in model.shards.iter().filter_map(|s| Some((s, s.compiled.as_ref()?))) {
        if text.is_empty() {
            let _ = writeln!(
                text,
                "  rknn-toolkit2 {}\n  {:width$}  {:>10} {:>10} {:>12} {:>6}  {:<10} warnings and layers on the CPU",
                compiled.toolkit, "shard", "weights", "internal", "cycles", "layers", "cosine"
            );
        }
        let cosine = compiled.verified.map_or("-".to_owned(), |v| format!("{:.6}", v.cosine));
        let on_cpu = compiled.on_cpu().map(|l| format!("{} {} on the CPU", l.op, l.name));
        let notes: Vec<String> = compiled.warnings.iter().cloned().chain(on_cpu).collect();
        let _ = writeln!(
            text,
            "  {:width$}  {:>10} {:>10} {:>12} {:>6}  {cosine:<10} {}",
            shard.name,
            size(compiled.weight_bytes),
            size(compiled.internal_bytes),
            compiled.cycles(),
            compiled.layers.len(),
            if notes.is_empty() { "-".to_owned() } else { notes.join("; ") }
        );
        for layer in compiled.layers.iter().filter(|_| layers) {
            let [memory, arithmetic, total] = layer.cycles;
            let _ = writeln!(
                text,
                "    {:<16} {:<4} {:<20} {memory:>10} {arithmetic:>10} {total:>10} {:>10}  {}",
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

fn passes(shard: &Shard) -> String {
    let mut list: Vec<String> = shard.sandwich.iter().map(|r| format!("x{}", r.factor)).collect();
    list.extend(shard.attention.iter().map(|a| a.lowering.clone()));
    list.dedup();
    if list.is_empty() { "-".to_owned() } else { list.join(" ") }
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
