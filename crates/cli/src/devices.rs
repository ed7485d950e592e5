//! From typed options to cores.

use crate::args::DeviceArgs;
use anyhow::Result;
use rockshard::{Cores, CoresOptions, DeviceDefaults, DeviceName, Devices};
use std::time::Duration;

/// The cores of the device that was named.
pub fn cores(args: &DeviceArgs) -> Result<Cores> {
    Ok(take(&rockshard::open_devices(args.device)?, args)?)
}

/// The cores of devices that were opened, as the options say.
pub fn take(devices: &Devices, args: &DeviceArgs) -> Result<Cores, rockshard::Error> {
    let usual = usual(args.device, args.cores)?;
    let options = CoresOptions {
        time_limit: args.time_limit.map_or(usual.time_limit, Duration::from_secs),
        memory_limit: args.memory_limit.or(usual.memory_limit),
        ..usual
    };
    rockshard::take_cores_with(devices, options)
}

/// What is usual on a device.
pub fn usual(device: DeviceName, cores: u8) -> Result<CoresOptions, rockshard::Error> {
    let DeviceDefaults { time_limit, memory_limit } = DeviceDefaults::of(device)?;
    Ok(CoresOptions { time_limit, memory_limit, ..CoresOptions::new(cores) })
}
