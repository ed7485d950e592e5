//! Options of `validate`.

use super::values::{cosine, device};
use clap::Args;
use rockshard::DeviceName;
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard validate PACK --report report.html
  rockshard validate PACK --threshold 0.9999 --prompt "a lighthouse"
  rockshard validate PACK --input unet.sample=x.npy --original MODEL
  rockshard validate PACK --golden --device rknn"#;

/// Options of `validate`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ValidateArgs {
    /// The pack.
    pub pack: PathBuf,
    /// Smallest cosine that passes, -1 to 1.
    #[arg(long, value_name = "COSINE", default_value_t = 0.999, value_parser = cosine)]
    pub threshold: f64,
    /// Write the report as HTML; the same as JSON goes beside it.
    #[arg(long, value_name = "FILE.html")]
    pub report: Option<PathBuf>,
    /// Prompt whose run gives the networks' inputs.
    #[arg(
        long,
        value_name = "TEXT",
        allow_hyphen_values = true,
        default_value = "a small green square at the top right of a white background"
    )]
    pub prompt: String,
    /// Picture that a vision encoder gets, and that the words are about. Default: a red disc on blue.
    #[arg(long, value_name = "IMAGE")]
    pub image: Option<PathBuf>,
    /// An input instead, in NumPy's format; repeatable. Parts without any get seeded noise.
    #[arg(long = "input", value_name = "[PART.]NAME=FILE.npy")]
    pub inputs: Vec<String>,
    /// The model that the pack was made from, to be run whole by the reference engine's own reading of it and compared: a judge of what
    /// `convert` read. Default: what `convert --check` found.
    #[arg(long, value_name = "MODEL")]
    pub original: Option<PathBuf>,
    /// Compare with the tensors that `convert --golden` recorded, on the inputs recorded with them, instead of running the reference.
    #[arg(long, conflicts_with_all = ["prompt", "image", "inputs"])]
    pub golden: bool,
    /// Device to judge.
    #[arg(long, value_parser = device(), default_value = "sim")]
    pub device: DeviceName,
}
