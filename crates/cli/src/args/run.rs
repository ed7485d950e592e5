//! Options of `run`.

use super::DeviceArgs;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard run PACK --input pixel_values=image.npy --out results
  rockshard run PACK --model vae_decoder --input latent_sample=latents.npy
  rockshard run PACK --input x=x.npy --device cpu --rewritten"#;

/// Options of `run`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// The pack.
    pub pack: PathBuf,
    /// Model of the pack; may be left out when there is one.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// An input, in NumPy's format; repeatable.
    #[arg(long = "input", value_name = "NAME=FILE.npy")]
    pub inputs: Vec<String>,
    /// Directory for the outputs, NAME.npy each.
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    pub out: PathBuf,
    /// With --device cpu: compute the shards as they were rewritten for the NPU, in float32, instead of the unchanged reference pieces.
    /// Shows what the rewrites alone change.
    #[arg(long)]
    pub rewritten: bool,
    /// Write every shard's start, end, core and bytes as JSON in the Trace Event Format, for Perfetto.
    #[arg(long, value_name = "FILE.json")]
    pub trace: Option<PathBuf>,
    /// Where to run.
    #[command(flatten)]
    pub device: DeviceArgs,
}
