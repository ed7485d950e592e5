//! The chip and the driver that the process' contexts use.
//!
//! [`CHIP_VARIABLE`](rockshard_cost::CHIP_VARIABLE) describes another chip. `ROCKSHARD_RKNNRT_HANG=N` lets run N of the process, counted
//! from 0, never end.

use crate::Refusal;
use rockshard_cost::Rk3588;
use rockshard_device_sim::{Driver, DriverError};
use rockshard_rknn_abi::Code;
use std::sync::{Arc, OnceLock};

const HANG: &str = "ROCKSHARD_RKNNRT_HANG";

/// The driver of this process.
pub(crate) fn driver() -> Result<&'static Arc<Driver>, Refusal> {
    static DRIVER: OnceLock<Result<Arc<Driver>, String>> = OnceLock::new();
    let driver = DRIVER.get_or_init(|| {
        let driver = Driver::new(Rk3588::from_environment().map_err(|e| e.to_string())?);
        if let Ok(run) = std::env::var(HANG) {
            driver
                .hang(run.parse().map_err(|_| format!("{HANG}={run} is not the number of a run"))?);
        }
        Ok(Arc::new(driver))
    });
    driver.as_ref().map_err(|e| Refusal::new(Code::DeviceUnavailable, e))
}

impl From<DriverError> for Refusal {
    fn from(error: DriverError) -> Self {
        let code = match error {
            DriverError::Mask(_) => Code::Param,
            DriverError::Timeout(_) => Code::Timeout,
            DriverError::Reset => Code::Fail,
            DriverError::Space { .. } => Code::Malloc,
        };
        Refusal::new(code, error)
    }
}
