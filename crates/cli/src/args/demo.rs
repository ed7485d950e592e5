//! Options of `demo`.

use super::device::ModeName;
use super::values::device;
use clap::Args;
use rockshard::DeviceName;
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard demo
  rockshard demo --prompt "a small yellow ring on a black background" --seed 3
  rockshard demo --device cpu"#;

/// Options of `demo`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct DemoArgs {
    /// Directory for the pack, the picture, the timeline and the report; the demo's own files in it are replaced.
    #[arg(long, value_name = "DIRECTORY", default_value = "out/demo")]
    pub out: PathBuf,
    /// What to draw.
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        default_value = "a large red circle at the left of a blue background"
    )]
    pub prompt: String,
    /// Seed of the noise.
    #[arg(long, value_name = "N", default_value_t = 7)]
    pub seed: u64,
    /// The model to convert instead of the bundled one.
    #[arg(long, value_name = "MODEL")]
    pub model: Option<PathBuf>,
    /// Device to draw and validate on.
    #[arg(long, value_parser = device(), default_value = "sim")]
    pub device: DeviceName,
    /// How the pictures go through the cores.
    #[arg(long, value_enum, default_value = "auto")]
    pub mode: ModeName,
    /// Python interpreter that has rknn-toolkit2, for a device that runs compiled shards only.
    #[arg(long, env = "ROCKSHARD_RKNN_PYTHON", default_value = "python3", value_name = "PATH")]
    pub rknn_python: PathBuf,
}
