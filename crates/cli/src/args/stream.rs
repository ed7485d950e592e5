//! Options of `stream`.

use super::DeviceArgs;
use super::values::size;
use crate::video::{From, To};
use clap::{Args, ValueEnum};
use rockshard::{CfgType, Vae};
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard stream PACK --from frames --to drawn --prompt "a watercolour"
  rockshard stream PACK --from walk.mp4 --to drawn.mp4 --prompt "a watercolour"
  rockshard stream PACK --from camera:/dev/video0 --to http:8080 --prompt "snow"
  rockshard stream PACK --to frames --frames 8 --prompt "a lighthouse""#;

/// Options of `stream`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StreamArgs {
    /// The pack.
    pub pack: PathBuf,
    /// Where frames come from: a directory of pictures; a video file; `-`, a pipe of y4m, or of raw RGB with --raw; `camera:/dev/video0`;
    /// `screen:WIDTHxHEIGHT+X+Y`, part of an X11 screen. Videos, y4m, cameras and screens need ffmpeg. Without it, frames are made of the
    /// prompt alone.
    #[arg(long, value_name = "SOURCE", value_parser = From::parse)]
    pub from: Option<From>,
    /// Where frames go: a directory, one PNG each; a video file ending in .mp4 (needs ffmpeg); `-`, raw RGB on standard output;
    /// `http:PORT`, MJPEG on the loopback address for a quick look.
    #[arg(long, value_name = "SINK", value_parser = To::parse)]
    pub to: To,
    /// Frames of a pipe are raw RGB, 8 bits a channel, of this size.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    pub raw: Option<[u32; 2]>,
    /// What to draw.
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        required_unless_present = "prompt_file"
    )]
    pub prompt: Option<String>,
    /// A file with the prompt, which may change while the stream runs.
    #[arg(long, value_name = "FILE", conflicts_with = "prompt")]
    pub prompt_file: Option<PathBuf>,
    /// What to keep away from, with --cfg full or initialize.
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, default_value = "")]
    pub negative: String,
    /// Levels that a frame goes through, as indices into 50 timesteps: a low first one changes more of the picture. Default: 32,45 for
    /// pictures, 0,16,32,45 without.
    #[arg(long, value_delimiter = ',', value_name = "I,J,...")]
    pub t_index: Option<Vec<usize>>,
    /// Guidance: none; full, each row once more with the negative prompt; self, residual guidance at no cost; initialize, residual guidance
    /// from the negative prompt for one row a frame.
    #[arg(long, value_enum, default_value = "none")]
    pub cfg: CfgName,
    /// Guidance scale; up to 1 there is none. With --cfg none, models that take the scale as an input are given it.
    #[arg(long, value_name = "SCALE", default_value_t = 1.2)]
    pub guidance: f64,
    /// Factor on the residual in residual guidance.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub delta: f64,
    /// Seed of the noise.
    #[arg(long, value_name = "N", default_value_t = 2)]
    pub seed: u64,
    /// Frames that enter together.
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub frame_buffer: usize,
    /// Draw frames strictly one after the other, each with noise of its own.
    #[arg(long)]
    pub sequential: bool,
    /// Add no noise between levels.
    #[arg(long)]
    pub no_add_noise: bool,
    /// Take the prediction itself as the picture (SD-Turbo), without the boundary condition of a consistency model.
    #[arg(long)]
    pub turbo: bool,
    /// Skip frames that are like the last one that was drawn, from this cosine on, at most so many in a row (10).
    #[arg(long, value_name = "THRESHOLD[:MAXSKIP]", value_parser = similarity)]
    pub similarity_filter: Option<(f64, usize)>,
    /// Frames a second: at most so many are read from pictures and pipes; cameras and screens are asked for so many; a video gets it.
    #[arg(long, value_name = "RATE")]
    pub fps: Option<f64>,
    /// Drop frames that have waited when newer ones come. Always on for cameras and screens.
    #[arg(long)]
    pub drop: bool,
    /// Stop after so many frames; needed without --from.
    #[arg(long, value_name = "N", required_unless_present = "from")]
    pub frames: Option<u64>,
    /// Picture size in pixels, one that the pack was converted for. Default: its first.
    #[arg(long, value_name = "WIDTHxHEIGHT", value_parser = size)]
    pub size: Option<[u32; 2]>,
    /// Encoder and decoder: auto is the tiny one where the pack has it.
    #[arg(long, value_enum, default_value = "auto")]
    pub vae: VaeName,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Kinds of guidance, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CfgName {
    None,
    Full,
    #[value(name = "self")]
    Own,
    Initialize,
}

impl CfgName {
    /// The kind.
    pub fn kind(self) -> CfgType {
        match self {
            CfgName::None => CfgType::None,
            CfgName::Full => CfgType::Full,
            CfgName::Own => CfgType::SelfNegative,
            CfgName::Initialize => CfgType::Initialize,
        }
    }
}

/// Encoder and decoder, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum VaeName {
    Auto,
    Tiny,
    Whole,
}

impl VaeName {
    /// The choice.
    pub fn chosen(self) -> Vae {
        match self {
            VaeName::Auto => Vae::Auto,
            VaeName::Tiny => Vae::Tiny,
            VaeName::Whole => Vae::Whole,
        }
    }
}

fn similarity(text: &str) -> Result<(f64, usize), String> {
    let (threshold, skip) = text.split_once(':').unwrap_or((text, "10"));
    let threshold = threshold.parse::<f64>().ok().filter(|t| (0.0..=1.0).contains(t));
    threshold
        .zip(skip.parse().ok())
        .ok_or_else(|| format!("{text:?} is not THRESHOLD[:MAXSKIP], e.g. 0.98:10"))
}
