//! Options of `bench`.

use super::DeviceArgs;
use clap::Args;
use std::path::PathBuf;

/// Options of `bench`.
#[derive(Debug, Args)]
pub struct BenchArgs {
    /// The pack whose streams are measured on this machine.
    pub pack: PathBuf,
    /// The pack whose streams are modelled for the RK3588. Default: recorded costs of SD 1.5 LCM with TAESD at 512x512.
    #[arg(long, value_name = "PACK")]
    pub modelled: Option<PathBuf>,
    /// Frames of each measurement.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u64).range(8..))]
    pub frames: u64,
    /// Draw the speed-ups as a chart.
    #[arg(long, value_name = "FILE.svg")]
    pub chart: Option<PathBuf>,
    /// Where to measure.
    #[command(flatten)]
    pub device: DeviceArgs,
}
