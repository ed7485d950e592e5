//! From a name to the devices that a pack runs on. The host's device is the CPU, whatever the NPU's is.

use crate::DeviceName;
use rockshard_cost::{DescriptionError, Rk3588};
use rockshard_device::Device;
use rockshard_device_cpu::CpuDevice;
use rockshard_device_sim::{Numerics, SimDevice};
use rockshard_pack::{Devices, Variant};
use std::sync::Arc;

/// Why a device cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The description of the chip cannot be used.
    #[error(transparent)]
    Chip(#[from] DescriptionError),
    /// The real NPU, in a build without it.
    #[error(
        "device rknn: this build has no support for the real NPU (it needs the rknn feature and librknnrt)"
    )]
    NotBuilt,
    /// The real NPU does not open.
    #[cfg(feature = "rknn")]
    #[error("device rknn{hint}: {source}")]
    Rknn {
        /// What may help, in brackets; empty where nothing is known to.
        hint: String,
        /// Cause.
        source: crate::RknnError,
    },
}

/// The device of a name, with the CPU as the host's.
///
/// # Errors
/// The device is not there or not in this build; the environment describes a chip that cannot be.
pub fn open(name: DeviceName) -> Result<Devices, OpenError> {
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

#[cfg(feature = "rknn")]
fn rknn() -> Result<Arc<dyn Device>, OpenError> {
    let named = std::env::var_os(crate::RKNNRT).is_some();
    let hint = if named {
        String::new()
    } else {
        format!(" ({} may name the library's path)", crate::RKNNRT)
    };
    let device = crate::load_rknn().map_err(|source| OpenError::Rknn { hint, source })?;
    Ok(Arc::new(device))
}

#[cfg(not(feature = "rknn"))]
fn rknn() -> Result<Arc<dyn Device>, OpenError> {
    Err(OpenError::NotBuilt)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gives_its_device_and_the_graphs_it_takes() {
        for (name, npu, variant) in [
            (DeviceName::Sim, "sim", Variant::Device),
            (DeviceName::Cpu, "cpu", Variant::Reference),
        ] {
            let devices = open(name).unwrap();
            assert_eq!((devices.npu.name(), devices.host.name()), (npu, "cpu"));
            assert_eq!(devices.variant, variant);
        }
    }

    #[cfg(not(feature = "rknn"))]
    #[test]
    fn a_device_that_is_not_in_the_build_is_an_error() {
        let error = open(DeviceName::Rknn).map(|_| ()).unwrap_err().to_string();
        assert!(error.starts_with("device rknn: this build has no support"), "{error}");
    }
}
