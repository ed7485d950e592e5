//! From typed options to cores.

use crate::args::DeviceArgs;
use anyhow::Result;
use rockshard_devices::{DeviceDefaults, DeviceName};
use rockshard_runtime::CoresOptions;
use std::time::Duration;

/// How the cores are to be used.
pub fn options(args: &DeviceArgs) -> Result<CoresOptions> {
    let usual = own_options(args.device, args.cores)?;
    Ok(CoresOptions {
        time_limit: args.time_limit.map_or(usual.time_limit, Duration::from_secs),
        memory_limit: args.memory_limit.or(usual.memory_limit),
        ..usual
    })
}

/// What is usual on a device, for what the program runs by itself.
pub fn own_options(device: DeviceName, cores: u8) -> Result<CoresOptions> {
    let DeviceDefaults { time_limit, memory_limit } = DeviceDefaults::of(device)?;
    Ok(CoresOptions { time_limit, memory_limit, ..CoresOptions::new(cores) })
}
