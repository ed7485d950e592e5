//! Opening the device that was named.

use crate::args::{DeviceArgs, DeviceName};
use anyhow::Result;
use rockshard_cost::Rk3588;
use rockshard_device::Device;
use rockshard_device_cpu::CpuDevice;
use rockshard_device_sim::{Numerics, SimDevice};
use rockshard_pack::{Devices, Variant};
use rockshard_runtime::CoresOptions;
use std::sync::Arc;
use std::time::Duration;

/// Longest time for one shard that is computed on this machine, whose speed nobody knows.
const COMPUTED_HERE: Duration = Duration::from_secs(3600);

/// Variable with the path of librknnrt.
pub const RKNNRT: &str = "ROCKSHARD_RKNNRT";
/// Variable that says who has the NPU's memory of inputs, outputs and activations: `shared`, as where it is not set, or `runtime`.
#[cfg(feature = "rknn")]
const RKNN_MEMORY: &str = "ROCKSHARD_RKNN_MEMORY";

/// The device of a name, with the CPU as the host's. Nothing falls back: a device that is not there is an error.
pub fn open(name: DeviceName) -> Result<Devices> {
    let host: Arc<dyn Device> = Arc::new(CpuDevice::new());
    Ok(match name {
        DeviceName::Sim => Devices {
            npu: Arc::new(SimDevice::new(Numerics::default(), Rk3588::from_environment()?)),
            host,
            variant: Variant::Device,
        },
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
    let context = if named {
        "device rknn".to_owned()
    } else {
        format!("device rknn ({RKNNRT} may name the library's path)")
    };
    Ok(Arc::new(load_rknn().context(context)?))
}

/// The library that `ROCKSHARD_RKNNRT` or the system's loader gives, used as `ROCKSHARD_RKNN_MEMORY` says.
#[cfg(feature = "rknn")]
pub fn load_rknn() -> Result<rockshard_device_rknn::RknnDevice> {
    let library = std::env::var_os(RKNNRT).map(std::path::PathBuf::from);
    let device = rockshard_device_rknn::RknnDevice::load(library.as_deref())?;
    match std::env::var_os(RKNN_MEMORY) {
        None => Ok(device),
        Some(shared) if shared == "shared" => Ok(device),
        Some(runtime) if runtime == "runtime" => Ok(device.copying()),
        Some(other) => {
            anyhow::bail!("{RKNN_MEMORY}={} is neither shared nor runtime", other.display())
        }
    }
}

#[cfg(not(feature = "rknn"))]
fn rknn() -> Result<Arc<dyn Device>> {
    anyhow::bail!(
        "device rknn: this build has no support for the real NPU (it needs the rknn feature and librknnrt); use --device sim or --device cpu"
    )
}

/// How the cores are to be used.
pub fn options(args: &DeviceArgs) -> Result<CoresOptions> {
    let cpu = args.device == DeviceName::Cpu;
    let space = if cpu { None } else { Some(Rk3588::from_environment()?.address_space) };
    let real = args.device == DeviceName::Rknn;
    let usual = if real { CoresOptions::TIME_LIMIT } else { COMPUTED_HERE };
    Ok(CoresOptions {
        cores: args.cores,
        time_limit: args.time_limit.map_or(usual, Duration::from_secs),
        memory_limit: args.memory_limit.or(space),
    })
}

/// Options for what the program runs by itself, on a device that computes on this machine.
pub fn own_options(cores: u8) -> CoresOptions {
    CoresOptions { time_limit: COMPUTED_HERE, ..CoresOptions::new(cores) }
}
