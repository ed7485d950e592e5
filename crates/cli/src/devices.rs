//! Opening the device that was named.

use crate::args::DeviceName;
use anyhow::{Result, bail};
use rockshard_device::Device;
use rockshard_device_cpu::CpuDevice;
use rockshard_device_sim::SimDevice;
use rockshard_runtime::{Devices, Variant};
use std::sync::Arc;

/// The device of a name, with the CPU as the host's. Nothing falls back: a device that is not there is an error.
pub fn open(name: DeviceName) -> Result<Devices> {
    let host: Arc<dyn Device> = Arc::new(CpuDevice::new());
    Ok(match name {
        DeviceName::Sim => Devices { npu: Arc::new(SimDevice::default()), host, variant: Variant::Device },
        DeviceName::Cpu => Devices { npu: host.clone(), host, variant: Variant::Reference },
        DeviceName::Rknn => bail!(
            "device rknn: this build has no support for the real NPU (it needs the rknn feature and librknnrt); use --device sim or --device cpu"
        ),
    })
}
