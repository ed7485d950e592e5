//! Options of `bench`.

use super::DeviceArgs;
use clap::Args;
use std::path::PathBuf;

const EXAMPLES: &str = r#"Examples:
  rockshard bench PACK
  rockshard bench PACK --frames 100 --chart speed.svg
  rockshard bench PACK --modelled FULL-SIZE-PACK"#;

/// Options of `bench`.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// The pack whose streams are measured on this machine.
    pub pack: PathBuf,
    /// The pack whose streams are modelled for the RK3588. Default: recorded costs of SD 1.5 LCM with TAESD at 512x512.
    #[arg(long, value_name = "PACK")]
    pub modelled: Option<PathBuf>,
    /// Frames of each measurement.
    #[arg(long, value_name = "N", default_value_t = 24, value_parser = clap::value_parser!(u64).range(8..))]
    pub frames: u64,
    /// Draw the speed-ups as a chart.
    #[arg(long, value_name = "FILE.svg")]
    pub chart: Option<PathBuf>,
    /// Where to measure.
    #[command(flatten)]
    pub device: DeviceArgs,
}
