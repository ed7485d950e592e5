//! Taking the cores of a device.

use crate::Error;
use rockshard_devices::{DeviceDefaults, DeviceName};
use rockshard_pack::Devices;
use rockshard_runtime::{Cores, CoresOptions};

/// All cores of a device, with the limits that are usual on it. A process needs one.
///
/// # Errors
/// The device is not there, or not in this build.
pub fn take_cores(device: DeviceName) -> Result<Cores, Error> {
    let devices = rockshard_devices::open(device)?;
    let DeviceDefaults { time_limit, memory_limit } = DeviceDefaults::of(device)?;
    let options = CoresOptions::new(devices.npu.cores());
    take_cores_with(&devices, CoresOptions { time_limit, memory_limit, ..options })
}

/// Cores of devices that were opened, used as `options` say.
///
/// # Errors
/// More cores than there are.
pub fn take_cores_with(devices: &Devices, options: CoresOptions) -> Result<Cores, Error> {
    Ok(Cores::new(devices, options)?)
}
