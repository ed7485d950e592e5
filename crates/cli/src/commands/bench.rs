//! `bench`: what each of StreamDiffusion's techniques brings, measured on this machine for one pack and modelled on the RK3588 for another,
//! side by side.

use crate::args::BenchArgs;
use crate::devices;
use crate::output::{Output, time};
use anyhow::{Context, Result};
use rockshard::{
    CfgType, FrameSource, GROUPS_BESIDE_CORES, Pack, Picture, QueueOptions, Rk3588, Role, Settings,
    StreamConfig, StreamModel, StreamOptions, Vae,
};
use rockshard_plan::{FrameCost, ModelCost, stream};
use serde_json::{Value as Json, json};
use std::process::ExitCode;
use std::time::Instant;

/// Levels of the usual stream, and of the baseline without a consistency model.
const STEPS: usize = 4;
const BASELINE_STEPS: usize = 50;
const BASELINE: &str =
    "one frame at a time, full guidance, 50 steps, whole VAE (modelled on one core)";
/// Frames of a still scene.
const STILL: u64 = 110;

/// A way to stream.
#[derive(Clone, Copy)]
struct Way {
    cfg: CfgType,
    steps: usize,
    /// Whether frames follow each other.
    batch: bool,
    whole_vae: bool,
    cores: u8,
}

const USUAL: Way =
    Way { cfg: CfgType::None, steps: STEPS, batch: true, whole_vae: false, cores: 3 };

/// `bench`.
pub fn run(args: &BenchArgs, out: &Output) -> Result<ExitCode> {
    let pack = Pack::open(&args.pack)?;
    let other = args.modelled.as_ref().map(|path| Pack::open(path)).transpose()?;
    let usual = Way { cores: args.device.cores, ..USUAL };
    let modelled = Modelled::read(other.as_ref().unwrap_or(&pack))?;
    let cores = devices::cores(&args.device)?;
    let load = |vae| {
        let mode = args.device.mode.chosen();
        StreamModel::load(&cores, &pack, &StreamOptions { vae, mode, ..StreamOptions::default() })
    };
    let measured =
        Measured { tiny: load(Vae::Auto)?, whole: load(Vae::Whole)?, frames: args.frames };
    let baseline =
        Way { cfg: CfgType::Full, steps: BASELINE_STEPS, batch: false, whole_vae: true, cores: 1 };
    let one = Way { batch: false, ..usual };
    let guided = |cfg| Way { cfg, ..usual };
    let steps = |steps| (Way { steps, ..one }, Way { steps, ..usual });
    let pairs: [(&str, &str, &str, Way, Way); 8] = [
        ("Stream Batch", "one frame at a time", "stream batch", one, usual),
        ("R-CFG", "full guidance", "self", guided(CfgType::Full), guided(CfgType::SelfNegative)),
        (
            "R-CFG",
            "full guidance",
            "initialize",
            guided(CfgType::Full),
            guided(CfgType::Initialize),
        ),
        ("VAE", "whole VAE", "as the pack has it", Way { whole_vae: true, ..usual }, usual),
        ("1 step", "one frame at a time", "stream", steps(1).0, steps(1).1),
        ("4 steps", "one frame at a time", "stream", steps(4).0, steps(4).1),
        ("10 steps", "one frame at a time", "stream", steps(10).0, steps(10).1),
        ("Combined", BASELINE, "stream batch, self", baseline, guided(CfgType::SelfNegative)),
    ];
    let mut rows = Vec::new();
    for (name, before, after, from, to) in pairs {
        // The baseline takes a hundred rows a frame: two frames tell.
        let frames = |way: &Way| if way.steps == BASELINE_STEPS { 2 } else { args.frames };
        let m = [measured.interval(&from, frames(&from))?, measured.interval(&to, frames(&to))?];
        let f = [modelled.interval(&from), modelled.interval(&to)];
        rows.push(json!({
            "name": name, "before": before, "after": after,
            "measured_us": m, "measured_ratio": m[0] / m[1],
            "modelled_us": f, "modelled_ratio": f[0] / f[1],
        }));
    }
    let (drawn, given) = measured.still()?;
    let still = json!({ "given": given, "drawn": drawn, "ratio": given as f64 / drawn as f64 });
    let floor = modelled.floor(&usual);
    let value = json!({
        "measured_pack": args.pack, "modelled_pack": args.modelled.as_ref().unwrap_or(&args.pack),
        "tiny_autoencoder": { "measured": measured.tiny.is_tiny(), "modelled": modelled.tiny.is_some() },
        "pairs": rows, "similarity_filter": still,
        "modelled_cores_busy_of_the_stream": floor,
    });
    out.result(&value, || text(&value));
    Ok(ExitCode::SUCCESS)
}

fn text(value: &Json) -> String {
    let mut text = String::new();
    let micros = |v: &Json| time(v.as_f64().unwrap_or(0.0));
    for row in value["pairs"].as_array().into_iter().flatten() {
        text += &format!("=== {} ===\n", row["name"].as_str().unwrap_or_default());
        for (i, side) in ["before", "after"].into_iter().enumerate() {
            text += &format!(
                "{}: measured {} a frame, modelled {} a frame\n",
                row[side].as_str().unwrap_or_default(),
                micros(&row["measured_us"][i]),
                micros(&row["modelled_us"][i]),
            );
        }
        text += &format!(
            "Speedup: measured {:.2}x, modelled {:.2}x\n\n",
            row["measured_ratio"].as_f64().unwrap_or(0.0),
            row["modelled_ratio"].as_f64().unwrap_or(0.0),
        );
    }
    let still = &value["similarity_filter"];
    text += &format!(
        "=== Similarity filter ===\nA still scene: {} of {} frames drawn, {:.2}x less work for the U-Net (counted)\n\n",
        still["drawn"],
        still["given"],
        still["ratio"].as_f64().unwrap_or(0.0)
    );
    let tiny = |side: &str| if value["tiny_autoencoder"][side] == true { "tiny" } else { "whole" };
    text + &format!(
        "Measured on this machine with the simulator: {} ({} VAE). Modelled for the RK3588: {} ({} VAE).",
        value["measured_pack"].as_str().unwrap_or_default(),
        tiny("measured"),
        value["modelled_pack"].as_str().unwrap_or_default(),
        tiny("modelled"),
    )
}

/// Streams of a pack on this machine.
struct Measured {
    tiny: StreamModel,
    whole: StreamModel,
    frames: u64,
}

impl Measured {
    /// Measured microseconds from one frame to the next.
    fn interval(&self, way: &Way, frames: u64) -> Result<f64> {
        let model = if way.whole_vae { &self.whole } else { &self.tiny };
        let config = StreamConfig { use_denoising_batch: way.batch, ..StreamConfig::default() };
        let stream = model.prepare(config, settings(way), QueueOptions::default())?;
        let frame = |n: u64| FrameSource::Picture(moving(model.size(), n));
        let warm = if way.batch { stream.warm_up() as u64 + 1 } else { 1 };
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for n in 0..frames + warm {
                    if stream.push(frame(n)).is_err() {
                        break;
                    }
                }
                stream.finish();
            });
            for _ in 0..warm {
                stream.next_frame().context("the stream ended")??;
            }
            let start = Instant::now();
            for _ in 0..frames {
                stream.next_frame().context("the stream ended")??;
            }
            Ok(start.elapsed().as_secs_f64() * 1e6 / frames as f64)
        })
    }

    /// Frames of a still scene that are drawn, of those that are given.
    fn still(&self) -> Result<(u64, u64)> {
        let given = STILL.max(self.frames);
        let queue = QueueOptions::default();
        let stream = self.tiny.prepare(StreamConfig::default(), settings(&USUAL), queue)?;
        stream.enable_similar_image_filter(0.98, 10);
        for _ in 0..given {
            stream.img2img(moving(self.tiny.size(), 0))?;
        }
        stream.finish();
        while let Some(frame) = stream.next_frame() {
            frame?;
        }
        Ok((stream.stats().drawn, given))
    }
}

fn settings(way: &Way) -> Settings {
    Settings {
        t_index_list: (0..way.steps).map(|i| i * 50 / way.steps).collect(),
        cfg_type: way.cfg,
        guidance_scale: 1.4,
        ..Settings::new("a large red circle on a blue background")
    }
}

/// A bar that moves over a grey picture.
fn moving([width, height]: [u32; 2], n: u64) -> Picture {
    let at = (n * 8 % u64::from(width)) as u32;
    let colour = |i: u32| if (i % width).abs_diff(at) < 8 { [200, 60, 60] } else { [128; 3] };
    let rgb = (0..width * height).flat_map(colour).collect();
    Picture { width, height, rgb, parameters: None }
}

/// What a pack's networks take on the chip.
struct Modelled {
    chip: Rk3588,
    unet: ModelCost,
    whole: [ModelCost; 2],
    tiny: Option<[ModelCost; 2]>,
}

impl Modelled {
    fn read(pack: &Pack) -> Result<Self> {
        let chip = Rk3588::default();
        let find = |role| pack.manifest().models.iter().find(|m| m.role == role);
        let read = |role: Role| -> Result<ModelCost> {
            let model =
                find(role).with_context(|| format!("{} has no {role}", pack.root().display()))?;
            Ok(ModelCost::read(pack.root(), model, &chip)?)
        };
        let tiny = match find(Role::TinyDecoder) {
            Some(_) => Some([read(Role::TinyEncoder)?, read(Role::TinyDecoder)?]),
            None => None,
        };
        let whole = [read(Role::VaeEncoder)?, read(Role::VaeDecoder)?];
        Ok(Modelled { unet: read(Role::Unet)?, whole, tiny, chip })
    }

    fn frame(&self, way: &Way) -> FrameCost<'_> {
        let [encoder, decoder] = match &self.tiny {
            Some(tiny) if !way.whole_vae => tiny,
            _ => &self.whole,
        };
        let steer = settings(way).steer(&StreamConfig::default());
        let rows = (0..way.steps).map(|step| steer.rows(step)).collect();
        FrameCost { encoder: Some(encoder), unet: &self.unet, decoder, rows }
    }

    /// Modelled microseconds from one frame to the next.
    fn interval(&self, way: &Way) -> f64 {
        self.figures(way).interval_us
    }

    /// Cores that are busy on average: the stream is as near to the most that the cores can do as this is to their number.
    fn floor(&self, way: &Way) -> f64 {
        self.figures(way).busy
    }

    fn figures(&self, way: &Way) -> rockshard_plan::StreamFigures {
        let on_their_way = if way.batch { usize::from(way.cores) + GROUPS_BESIDE_CORES } else { 1 };
        stream(&self.frame(way), way.cores, on_their_way, self.chip.memory())
    }
}
