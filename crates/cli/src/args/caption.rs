//! Options of `caption` and `chat`.

use super::DeviceArgs;
use clap::Args;
use rockshard::{CaptionerOptions, Sampling};
use std::path::PathBuf;

/// Options of `caption`.
#[derive(Debug, Args)]
pub struct CaptionArgs {
    /// The pack of a vision-language model.
    pub pack: PathBuf,
    /// Images, as the question is about them: PNG, JPEG or WebP.
    #[arg(required = true)]
    pub images: Vec<PathBuf>,
    /// What to ask.
    #[arg(long, default_value = "Describe this image.")]
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
pub struct WordArgs {
    /// Most views a side of an image's grid: 1 looks at the whole image only, the model's own (4 for SmolVLM) at 17 views at most.
    #[arg(long, value_name = "N")]
    pub tiles: Option<usize>,
    /// Most tokens of an answer.
    #[arg(long, default_value_t = 256, value_name = "N")]
    pub max_tokens: usize,
    /// How wild the choice of words is; 0 takes the likeliest.
    #[arg(long, default_value_t = 0.0)]
    pub temperature: f64,
    /// Choose among so many of the likeliest tokens; 0 is all.
    #[arg(long, default_value_t = 0)]
    pub top_k: usize,
    /// Choose among the likeliest tokens that together have this probability.
    #[arg(long, default_value_t = 1.0)]
    pub top_p: f64,
    /// Above 1, tokens that were there are less likely.
    #[arg(long, default_value_t = 1.0)]
    pub repetition_penalty: f64,
    /// Seed of the choice.
    #[arg(long, default_value_t = 0)]
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
