//! Options of `caption` and `chat`.

use super::DeviceArgs;
use clap::Args;
use rockshard::{CaptionerOptions, Sampling};
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard caption PACK photo.jpg
  rockshard caption PACK first.png second.png --prompt "What is different?"
  rockshard caption PACK photo.jpg --tiles 1 --device rknn"#;

const CHAT_EXAMPLES: &str = r#"Example:
  rockshard chat PACK

Then type questions, `/image photo.jpg` to show an image, and Ctrl-D to end."#;

/// Options of `caption`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CaptionArgs {
    /// The pack of a vision-language model.
    pub pack: PathBuf,
    /// Images, as the question is about them: PNG, JPEG or WebP.
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// What to ask.
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        default_value = "Describe this image."
    )]
    pub prompt: String,
    /// How words are chosen.
    #[command(flatten)]
    pub words: WordArgs,
    /// Where views are looked at.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Options of `chat`.
#[derive(Debug, Args)]
#[command(after_help = CHAT_EXAMPLES)]
pub struct ChatArgs {
    /// The pack of a vision-language model.
    pub pack: PathBuf,
    /// How words are chosen.
    #[command(flatten)]
    pub words: WordArgs,
    /// Where views are looked at.
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// How words are chosen, and how much of an image is looked at.
#[derive(Debug, Args)]
#[command(next_help_heading = "Words")]
pub struct WordArgs {
    /// Most views a side of an image's grid: 1 looks at the whole image only, the model's own (4 for SmolVLM) at 17 views at most.
    #[arg(long, value_name = "N")]
    pub tiles: Option<usize>,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub max_tokens: usize,
    /// How wild the choice of words is; 0 takes the likeliest.
    #[arg(long, value_name = "T", default_value_t = 0.0)]
    pub temperature: f64,
    /// Choose among so many of the likeliest tokens; 0 is all.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub top_k: usize,
    /// Choose among the likeliest tokens that together have this probability, above 0 up to 1.
    #[arg(long, value_name = "P", default_value_t = 1.0)]
    pub top_p: f64,
    /// Above 1, tokens that were there are less likely.
    #[arg(long, value_name = "FACTOR", default_value_t = 1.0)]
    pub repetition_penalty: f64,
    /// Seed of the choice.
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub seed: u64,
    /// Threads of the language model. Default: one a core of the host.
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
}

impl WordArgs {
    /// How words are chosen.
    pub fn sampling(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed,
        }
    }

    /// How a pack is loaded.
    pub fn options(&self, device: &DeviceArgs) -> CaptionerOptions {
        CaptionerOptions { grid: self.tiles, mode: device.mode.chosen(), threads: self.threads }
    }
}
