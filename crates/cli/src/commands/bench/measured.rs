//! Streams of a pack on this machine.

use super::{Way, settings};
use crate::args::BenchArgs;
use crate::devices;
use anyhow::{Context, Result};
use rockshard::{
    FrameSource, LoadedPack, Pack, Picture, QueueOptions, Role, RunOptions, StreamConfig,
    StreamModel, StreamOptions, TensorMap, Vae,
};
use serde::Serialize;
use std::time::Instant;

/// Frames of a still scene, and the most of them that are skipped in a row.
const STILL: u64 = 110;
const MAX_SKIP: usize = 10;

/// A pack that streams are measured of.
pub struct Measured {
    tiny: StreamModel,
    whole: StreamModel,
    unet: LoadedPack,
    name: String,
    row: TensorMap,
}

/// Times from one frame to the next.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Intervals {
    /// Microseconds, on average.
    pub average_us: f64,
    /// Least and most; frames that were drawn beside each other may leave at once.
    pub least_us: f64,
    /// See `least_us`.
    pub most_us: f64,
    /// Standard deviation.
    pub std_us: f64,
}

/// What the similarity filter leaves of a still scene.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Still {
    /// Frames that are given.
    pub given: u64,
    /// Of these, drawn.
    pub drawn: u64,
}

impl Measured {
    /// Load a pack.
    pub fn load(pack: &Pack, args: &BenchArgs) -> Result<Self> {
        let cores = devices::cores(&args.device)?;
        let mode = args.device.mode.chosen();
        let load = |vae| {
            let options = StreamOptions { vae, mode, ..StreamOptions::default() };
            StreamModel::load(&cores, pack, &options)
        };
        let (tiny, whole) = (load(Vae::Auto)?, load(Vae::Whole)?);
        let models = &pack.manifest().models;
        let unet = models.iter().find(|m| m.role == Role::Unet).context("the pack has no U-Net")?;
        let row = rockshard::random_inputs(&unet.inputs, 1);
        let loaded = cores.load(pack, tiny.mode(), |m| m.name == unet.name)?;
        Ok(Measured { tiny, whole, unet: loaded, name: unet.name.clone(), row })
    }

    /// Whether the pack has a tiny autoencoder.
    pub fn is_tiny(&self) -> bool {
        self.tiny.is_tiny()
    }

    /// Times of a stream of moving pictures.
    pub fn stream(&self, way: &Way, frames: u64) -> Result<Intervals> {
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
            let mut at = vec![Instant::now()];
            for _ in 0..frames {
                stream.next_frame().context("the stream ended")??;
                at.push(Instant::now());
            }
            Ok(Intervals::of(&at))
        })
    }

    /// Frames a second of a stream over those of its rows alone, the two in turn.
    pub fn hidden(&self, way: &Way, frames: u64) -> Result<f64> {
        let rows = frames as usize * way.steps;
        let alone = || -> Result<f64> {
            let start = Instant::now();
            let items = vec![self.row.clone(); rows];
            self.unet.run(&self.name, items, &RunOptions::default())?.outputs?;
            Ok(start.elapsed().as_secs_f64() * 1e6 / frames as f64)
        };
        let mut ratios = Vec::new();
        for _ in 0..3 {
            ratios.push(alone()? / self.stream(way, frames)?.average_us);
        }
        ratios.sort_by(f64::total_cmp);
        Ok(ratios[1])
    }

    /// A still scene with the similarity filter.
    pub fn still(&self, frames: u64) -> Result<Still> {
        let given = STILL.max(frames);
        let queue = QueueOptions::default();
        let stream = self.tiny.prepare(StreamConfig::default(), settings(&super::USUAL), queue)?;
        stream.enable_similar_image_filter(0.98, MAX_SKIP);
        for _ in 0..given {
            stream.img2img(moving(self.tiny.size(), 0))?;
        }
        stream.finish();
        while let Some(frame) = stream.next_frame() {
            frame?;
        }
        Ok(Still { given, drawn: stream.stats().drawn })
    }
}

impl Intervals {
    fn of(at: &[Instant]) -> Self {
        let us: Vec<f64> = at.windows(2).map(|w| (w[1] - w[0]).as_secs_f64() * 1e6).collect();
        let count = us.len().max(1) as f64;
        let average_us = us.iter().sum::<f64>() / count;
        Intervals {
            average_us,
            least_us: us.iter().copied().fold(f64::INFINITY, f64::min),
            most_us: us.iter().copied().fold(0.0, f64::max),
            std_us: (us.iter().map(|us| (us - average_us).powi(2)).sum::<f64>() / count).sqrt(),
        }
    }
}

/// A bar that moves over a grey picture.
fn moving([width, height]: [u32; 2], n: u64) -> Picture {
    let at = (n * 8 % u64::from(width)) as u32;
    let colour = |i: u32| if (i % width).abs_diff(at) < 8 { [200, 60, 60] } else { [128; 3] };
    let rgb = (0..width * height).flat_map(colour).collect();
    Picture { width, height, rgb, parameters: None }
}
