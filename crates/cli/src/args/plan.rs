//! Options of `plan`.

use clap::Args;
use rockshard::Optimise;
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard plan PACK
  rockshard plan PACK --optimise throughput --cores 2
  rockshard plan PACK --steps 20 --timeline picture.svg --trace picture.json"#;

/// Options of `plan`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PlanArgs {
    /// The pack.
    pub pack: PathBuf,
    /// What the picks aim at: latency (one item), throughput (a stream), memory.
    #[arg(long, default_value = "latency")]
    pub optimise: Optimise,
    /// NPU cores to plan for, 1 to 3.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub cores: u8,
    /// Sampling steps of a picture.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub steps: u16,
    /// Write the modelled timeline as SVG: of a picture where the pack makes pictures, else of one item of its first model.
    #[arg(long, value_name = "FILE.svg")]
    pub timeline: Option<PathBuf>,
    /// Write the same as JSON in the Trace Event Format, for Perfetto.
    #[arg(long, value_name = "FILE.json")]
    pub trace: Option<PathBuf>,
}
