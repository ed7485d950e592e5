//! Opening the device that was named.

use crate::args::DeviceName;
use anyhow::Result;
use rockshard_device::Device;
use rockshard_device_cpu::CpuDevice;
use rockshard_device_sim::SimDevice;
use rockshard_runtime::{Devices, Variant};
use std::sync::Arc;

/// Variable with the path of librknnrt.
pub const RKNNRT: &str = "ROCKSHARD_RKNNRT";

/// The device of a name, with the CPU as the host's. Nothing falls back: a device that is not there is an error.
pub fn open(name: DeviceName) -> Result<Devices> {
    let host: Arc<dyn Device> = Arc::new(CpuDevice::new());
    Ok(match name {
        DeviceName::Sim => Devices { npu: Arc::new(SimDevice::default()), host, variant: Variant::Device },
        DeviceName::Cpu => Devices { npu: host.clone(), host, variant: Variant::Reference },
        DeviceName::Rknn => {
            let npu = rknn()?;
            Devices { variant: Variant::of(&*npu), npu, host }
        }
    })
}

/// The NPU; `ROCKSHARD_RKNNRT` is the path of a librknnrt that the system's loader does not find, or should not use.
#[cfg(feature = "rknn")]
fn rknn() -> Result<Arc<dyn Device>> {
    use anyhow::Context;
    let named = std::env::var_os(RKNNRT).is_some();
    let context = if named { "device rknn".to_owned() } else { format!("device rknn ({RKNNRT} may name the library's path)") };
    Ok(Arc::new(load_rknn().context(context)?))
}

/// The library that `ROCKSHARD_RKNNRT` or the system's loader gives.
#[cfg(feature = "rknn")]
pub fn load_rknn() -> Result<rockshard_device_rknn::RknnDevice, rockshard_device_rknn::LoadError> {
    let library = std::env::var_os(RKNNRT).map(std::path::PathBuf::from);
    rockshard_device_rknn::RknnDevice::load(library.as_deref())
}

#[cfg(not(feature = "rknn"))]
fn rknn() -> Result<Arc<dyn Device>> {
    anyhow::bail!(
        "device rknn: this build has no support for the real NPU (it needs the rknn feature and librknnrt); use --device sim or --device cpu"
    )
}
