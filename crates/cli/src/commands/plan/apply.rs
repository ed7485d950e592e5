//! What to type to run a pack as planned, and to get a pack that suits the aim better.

use crate::remedy::{beside, word};
use crate::text::fold;
use rockshard::{Mode, Optimise, Pack, Placement};
use rockshard_manifest::{Family, Manifest};
use rockshard_plan::{Parallel, Plan};
use serde::Serialize;

/// A command, and what it is for. Words in capitals are the user's.
#[derive(Serialize)]
pub struct Command {
    what: String,
    command: String,
}

/// The commands: the pick, then other packs for the same aim.
pub fn commands(path: &str, pack: &Pack, plan: &Plan) -> Vec<Command> {
    let manifest = pack.manifest();
    let mut commands = Vec::new();
    if let Some((mode, cores)) = plan.together() {
        commands.push(picked(path, manifest, mode, cores, plan.optimise));
    }
    commands.extend(another(path, manifest, plan.optimise));
    commands
}

/// As text.
pub fn text(commands: &[Command]) -> String {
    let lines = commands.iter().map(|c| format!("{}:\n  {}", fold(&c.what), c.command));
    lines.collect::<Vec<_>>().join("\n")
}

/// How the pack is run as it was picked for all its models together.
fn picked(
    path: &str,
    manifest: &Manifest,
    mode: Parallel,
    cores: u8,
    optimise: Optimise,
) -> Command {
    let place = match (mode, cores) {
        (_, 1) => "one core".to_owned(),
        (mode, cores) => format!("{} on {cores} cores", mode.name()),
    };
    let what = format!("Best for {optimise} over all models together: {place}. To run it so");
    if mode == Parallel::Split && manifest.conversion.placement != Placement::Split {
        return Command { what, command: convert(path, manifest, "split", "--placement split") };
    }
    // The shards of a split pack are pinned to the cores that work on one item.
    let mode = if mode == Parallel::Replicate { Mode::Replicate } else { Mode::Pipeline };
    let pack = word(path);
    let runs = match manifest.family {
        Family::TextToImage if optimise == Optimise::Throughput => {
            format!("stream {pack} --prompt \"a red circle\" --frames 24 --to frames")
        }
        Family::TextToImage => format!("generate {pack} --prompt \"a red circle\""),
        Family::VisionLanguage => format!("caption {pack} IMAGE"),
        _ => {
            let model = manifest.models.first();
            let inputs = model.iter().flat_map(|m| &m.inputs);
            let inputs: String =
                inputs.map(|i| format!(" --input {}=FILE.npy", word(&i.name))).collect();
            let name = model.map(|m| word(&m.name)).unwrap_or_default();
            format!("run {pack} --model {name}{inputs}")
        }
    };
    Command { what, command: format!("rockshard {runs} --mode {mode} --cores {cores}") }
}

/// Another pack of the same model that is made for the aim; none where this one is.
fn another(path: &str, manifest: &Manifest, optimise: Optimise) -> Option<Command> {
    let made = &manifest.conversion;
    let (name, options, what) = match optimise {
        Optimise::Latency if made.placement != Placement::Split => (
            "split",
            "--placement split",
            "For one item sooner, a pack whose operators are divided over the cores; plan that one to see",
        ),
        Optimise::Throughput if made.placement != Placement::Replicate => (
            "replicate",
            "--placement replicate --shards 1",
            "For more items a second, a pack that is whole on each core; plan that one to see",
        ),
        Optimise::Memory if made.optimise != Optimise::Memory => (
            "small",
            "--optimise memory",
            "For less memory, a pack that is cut for it; plan that one to see",
        ),
        _ => return None,
    };
    Some(Command { what: what.into(), command: convert(path, manifest, name, options) })
}

/// Convert the model that a pack was made from, at the pack's sizes, into another pack.
fn convert(path: &str, manifest: &Manifest, name: &str, options: &str) -> String {
    let sizes = manifest.resolutions().into_iter().flatten();
    let sizes: String = match manifest.family {
        Family::TextToImage => sizes.map(|[w, h]| format!(" --resolution {w}x{h}")).collect(),
        _ => String::new(),
    };
    format!("rockshard convert MODEL --out {} {options}{sizes}", beside(path, name))
}
