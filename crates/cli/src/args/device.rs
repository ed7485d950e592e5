//! Where a pack runs.

use super::values::{bytes, device};
use clap::{Args, ValueEnum};
use rockshard::{DeviceName, Mode};

/// How items go through the cores, as typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ModeName {
    /// The one that is modelled to be sooner.
    Auto,
    /// Each item through all cores, each shard on the core that it is pinned to.
    Pipeline,
    /// Each item through one core; every core holds every shard.
    Replicate,
}

impl ModeName {
    /// The mode, unless the planner is to choose.
    pub fn chosen(self) -> Option<Mode> {
        match self {
            ModeName::Auto => None,
            ModeName::Pipeline => Some(Mode::Pipeline),
            ModeName::Replicate => Some(Mode::Replicate),
        }
    }
}

/// Options of commands that run a pack.
#[derive(Debug, Args)]
#[command(next_help_heading = "Device")]
pub struct DeviceArgs {
    /// Device to run on.
    #[arg(long, value_parser = device(), default_value = "sim")]
    pub device: DeviceName,
    /// NPU cores to use, 1 to 3.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u8).range(1..=3))]
    pub cores: u8,
    /// How several items go through the cores.
    #[arg(long, value_enum, default_value = "auto")]
    pub mode: ModeName,
    /// Most device memory, as modelled, for models that are open together, e.g. 2GB or 900MB; models
    /// take turns where they do not fit. Default: the NPU's address space; none with --device cpu.
    #[arg(long, value_name = "SIZE", value_parser = bytes)]
    pub memory_limit: Option<u64>,
    /// Longest time that one shard may take before its core counts as hanging. Default: 30 for the
    /// real NPU, an hour elsewhere.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub time_limit: Option<u64>,
}
