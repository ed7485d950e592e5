//! What is usual on a device, as data: how long a shard may take, and how much memory models may.

use crate::DeviceName;
use rockshard_cost::{DescriptionError, Rk3588};
use std::time::Duration;

/// The NPU's driver waits for a core three times six seconds and then resets all of them; this is above that.
const NPU_TIME_LIMIT: Duration = Duration::from_secs(30);
/// Longest time for one shard that is computed on this machine, whose speed nobody knows.
const COMPUTED_TIME_LIMIT: Duration = Duration::from_secs(3600);

/// Limits that are usual on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeviceDefaults {
    /// Longest time that opening or running one shard may take before its core counts as hanging.
    pub time_limit: Duration,
    /// Most modelled device memory, in bytes, of models that are open together: the NPU's address space; none on the CPU.
    pub memory_limit: Option<u64>,
}

impl DeviceDefaults {
    /// Those of a device, with the chip that the environment describes.
    ///
    /// # Errors
    /// The description of the chip cannot be used.
    pub fn of(name: DeviceName) -> Result<Self, DescriptionError> {
        Ok(match name {
            DeviceName::Cpu => {
                DeviceDefaults { time_limit: COMPUTED_TIME_LIMIT, memory_limit: None }
            }
            DeviceName::Sim => DeviceDefaults {
                time_limit: COMPUTED_TIME_LIMIT,
                memory_limit: Some(Rk3588::from_environment()?.address_space),
            },
            DeviceName::Rknn => DeviceDefaults {
                time_limit: NPU_TIME_LIMIT,
                memory_limit: Some(Rk3588::from_environment()?.address_space),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_real_npu_is_expected_to_be_fast_and_only_the_cpu_has_no_limit_of_memory() {
        let of = |name| DeviceDefaults::of(name).unwrap();
        let [sim, cpu, rknn] = DeviceName::ALL.map(of);
        assert_eq!(sim.time_limit, cpu.time_limit);
        assert!(rknn.time_limit > Duration::from_secs(18) && rknn.time_limit < sim.time_limit);
        assert_eq!((cpu.memory_limit, sim.memory_limit), (None, rknn.memory_limit));
        assert!(sim.memory_limit.is_some());
    }
}
