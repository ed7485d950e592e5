//! Options of `generate`.

use super::DeviceArgs;
use super::values::{sampler, size, strength};
use clap::Args;
use rockshard::SamplerName;
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard generate PACK --prompt "a yellow ring on a black background"
  rockshard generate PACK --prompt "a lighthouse" --negative people --steps 20
  rockshard generate PACK --prompt "a lighthouse" --init-image photo.jpg
  rockshard generate PACK --prompt "a lighthouse" --count 4 --device rknn"#;

/// Options of `generate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct GenerateArgs {
    /// The pack.
    pub pack: PathBuf,
    /// What to draw.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: String,
    /// What to keep away from (models with classifier-free guidance).
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub negative: Option<String>,
    /// Sampler. Default: the one that the model's scheduler names.
    #[arg(long, value_parser = sampler())]
    pub sampler: Option<SamplerName>,
    /// Sampling steps. Default: 4 with lcm and tcd, 20 with the others.
    #[arg(long, value_name = "N")]
    pub steps: Option<usize>,
    /// Seed of the first picture; the next ones count up.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Guidance scale; 1 is none. Default: 2 with lcm, 1 with tcd, 7.5 with the others.
    #[arg(long, value_name = "SCALE")]
    pub guidance: Option<f64>,
    /// Picture size in pixels; one the pack was converted for. Default: its first.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    pub size: Option<[u32; 2]>,
    /// Picture to start from: PNG, JPEG or WebP, scaled to the size that is drawn.
    #[arg(long, value_name = "IMAGE")]
    pub init_image: Option<PathBuf>,
    /// How much of the starting picture may change, above 0 up to 1.
    #[arg(long, value_name = "SHARE", default_value_t = 0.6, value_parser = strength)]
    pub strength: f64,
    /// Number of pictures.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub count: u32,
    /// PNG to write; with --count, `-0`, `-1`, ... go before the ending.
    #[arg(long, value_name = "FILE.png", default_value = "picture.png")]
    pub out: PathBuf,
    /// Write the modelled timeline as SVG.
    #[arg(long, value_name = "FILE.svg")]
    pub timeline: Option<PathBuf>,
    /// Decode latents in overlapping, blended tiles of N x N latent values with the pack's decoder of that size. Default: where the
    /// pack has no decoder of the picture's size, or none that fits the memory limit.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub vae_tile: Option<u32>,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
}
