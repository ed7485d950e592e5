//! `bench`: what streaming brings, measured on this machine and modelled for the RK3588, side by side.

mod chart;
mod measured;
mod modelled;
mod report;

use crate::args::BenchArgs;
use crate::files::{Files, Written};
use crate::output::Output;
use crate::text::fold;
use anyhow::{Context, Result};
use measured::Measured;
use modelled::Modelled;
use rockshard::{CfgType, Pack, Settings};
use rockshard_plan::StreamCosts;
use serde::Serialize;
use std::process::ExitCode;

/// Levels of the usual stream, and steps of the baseline without a consistency model.
const STEPS: usize = 4;
const BASELINE_STEPS: usize = 50;
/// Levels at which encoding and decoding are a small part of a frame on this machine too.
const MANY_STEPS: usize = 25;
/// Rows that are measured at least, where frames are long.
const ROWS: u64 = 200;

/// A way to stream.
#[derive(Clone, Copy)]
struct Way {
    cfg: CfgType,
    steps: usize,
    /// Whether frames follow each other.
    batch: bool,
    whole_vae: bool,
    /// The modelled graph is the one that the pack was made of, and one core has it.
    unchanged: bool,
}

const USUAL: Way =
    Way { cfg: CfgType::None, steps: STEPS, batch: true, whole_vae: false, unchanged: false };

impl Way {
    /// Frames that are measured where `asked` are: fewer where they are long, but no fewer than the baseline's two.
    fn frames(&self, asked: u64) -> u64 {
        asked.min(ROWS / self.steps as u64).max(2)
    }
}

/// A block of the report: two ways of one thing.
struct Pair {
    name: &'static str,
    words: [&'static str; 2],
    ways: [Way; 2],
}

/// What a pair takes a frame, and what the second way brings.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    words: [&'static str; 2],
    measured_us: [f64; 2],
    measured_ratio: f64,
    modelled_us: [f64; 2],
    modelled_ratio: f64,
    /// The first modelled way is the unchanged graph on one core; measured is the pack itself.
    unchanged_on_one_core: bool,
}

/// `bench`.
pub fn run(args: &BenchArgs, out: &Output) -> Result<ExitCode> {
    let pack = Pack::open(&args.pack)?;
    let modelled = Modelled::new(costs(args)?, args.device.cores);
    let measured = Measured::load(&pack, args)?;
    let mut rows = Vec::new();
    for pair in pairs() {
        let us = |way: &Way| {
            Ok::<_, anyhow::Error>(measured.stream(way, way.frames(args.frames))?.average_us)
        };
        let measured_us = [us(&pair.ways[0])?, us(&pair.ways[1])?];
        let modelled_us = pair.ways.map(|way| modelled.figures(&way).interval_us);
        rows.push(Row {
            name: pair.name,
            words: pair.words,
            measured_us,
            measured_ratio: measured_us[0] / measured_us[1],
            modelled_us,
            modelled_ratio: modelled_us[0] / modelled_us[1],
            unchanged_on_one_core: pair.ways[0].unchanged,
        });
    }
    let report = report::Report {
        measured_pack: args.pack.display().to_string(),
        measured_tiny: measured.is_tiny(),
        modelled_pack: modelled.title().to_owned(),
        modelled_tiny: modelled.is_tiny(),
        cores: args.device.cores,
        rows,
        still: measured.still(args.frames)?,
        hidden: [STEPS, MANY_STEPS]
            .map(|steps| {
                let way = Way { steps, ..USUAL };
                let measured = measured.hidden(&way, way.frames(args.frames))?;
                Ok(report::Hidden { steps, measured, modelled: modelled.hidden(&way) })
            })
            .into_iter()
            .collect::<Result<_>>()?,
        throughput: throughput(&measured, &modelled, args.frames)?,
        roofs: [1, STEPS, 10].map(|steps| modelled.roof(steps)).into(),
    };
    let mut files = Files::default();
    if let Some(path) = &args.chart {
        let svg = chart::svg(&report).with_context(|| path.display().to_string())?;
        files.write("chart", path, svg)?;
    }
    out.result(&Written { value: &report, written_files: &files }, || {
        files.below(fold(&report.text()))
    });
    Ok(ExitCode::SUCCESS)
}

/// The costs that are modelled: of a pack, or recorded ones.
fn costs(args: &BenchArgs) -> Result<StreamCosts> {
    let Some(path) = &args.modelled else { return Ok(StreamCosts::sd15()) };
    let pack = Pack::open(path)?;
    StreamCosts::read(pack.root(), pack.manifest(), &rockshard::Rk3588::default())
        .with_context(|| path.display().to_string())
}

/// One frame after the other, as StreamDiffusion's `benchmark/single` does it, and a stream, as `benchmark/multi` does.
fn throughput(
    measured: &Measured,
    modelled: &Modelled,
    frames: u64,
) -> Result<Vec<report::Throughput>> {
    let two = Way { steps: 2, ..USUAL };
    let ways = [
        ("single", Way { batch: false, cfg: CfgType::Initialize, ..two }),
        ("multi", Way { cfg: CfgType::SelfNegative, ..two }),
    ];
    ways.into_iter()
        .map(|(name, way)| {
            let (measured, modelled) = (measured.stream(&way, frames)?, modelled.figures(&way));
            Ok(report::Throughput { name, measured, modelled })
        })
        .collect()
}

fn pairs() -> Vec<Pair> {
    let one = Way { batch: false, ..USUAL };
    let guided = |cfg| Way { cfg, ..USUAL };
    let full = guided(CfgType::Full);
    let steps = |name, steps| Pair {
        name,
        words: ["Sequential, unchanged graph", "Stream"],
        ways: [Way { steps, unchanged: true, ..one }, Way { steps, ..USUAL }],
    };
    let baseline = Way {
        cfg: CfgType::Full,
        steps: BASELINE_STEPS,
        batch: false,
        whole_vae: true,
        unchanged: true,
    };
    vec![
        Pair { name: "Stream Batch", words: ["Sequential", "Stream Batch"], ways: [one, USUAL] },
        Pair {
            name: "R-CFG",
            words: ["Standard CFG", "Self-Negative R-CFG"],
            ways: [full, guided(CfgType::SelfNegative)],
        },
        Pair {
            name: "R-CFG, 25 steps",
            words: ["Standard CFG", "Self-Negative R-CFG"],
            ways: [CfgType::Full, CfgType::SelfNegative]
                .map(|cfg| Way { steps: MANY_STEPS, ..guided(cfg) }),
        },
        Pair {
            name: "R-CFG, initialize",
            words: ["Standard CFG", "Onetime-Negative R-CFG"],
            ways: [full, guided(CfgType::Initialize)],
        },
        Pair {
            name: "Tiny autoencoder",
            words: ["Whole VAE", "Tiny autoencoder"],
            ways: [Way { whole_vae: true, ..USUAL }, USUAL],
        },
        steps("1 step", 1),
        steps("4 steps", STEPS),
        steps("10 steps", 10),
        Pair {
            name: "Combined Pipeline",
            words: ["Baseline: full guidance, 50 steps, whole VAE", "Stream, self, 4 steps"],
            ways: [baseline, guided(CfgType::SelfNegative)],
        },
    ]
}

/// Settings of a way.
fn settings(way: &Way) -> Settings {
    Settings {
        t_index_list: (0..way.steps).map(|i| i * 50 / way.steps).collect(),
        cfg_type: way.cfg,
        guidance_scale: 1.4,
        ..Settings::new("a large red circle on a blue background")
    }
}
