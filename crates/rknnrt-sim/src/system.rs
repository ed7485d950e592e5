//! The chip and the driver that the process' contexts use.
//!
//! `ROCKSHARD_RK3588` describes another chip: a path of a JSON file, or the JSON itself, with those fields of
//! [`rockshard_cost::Rk3588`] that differ, such as `{"address_space": 2000000000, "silent_overlap": true}`. `ROCKSHARD_RKNNRT_HANG=N`
//! lets run N of the process, counted from 0, never end.

use crate::Refusal;
use rockshard_cost::Rk3588;
use rockshard_device_sim::{Driver, DriverError};
use rockshard_rknn_abi::Code;
use std::sync::{Arc, OnceLock};

const CHIP: &str = "ROCKSHARD_RK3588";
const HANG: &str = "ROCKSHARD_RKNNRT_HANG";

/// The driver of this process.
pub(crate) fn driver() -> Result<&'static Arc<Driver>, Refusal> {
    static DRIVER: OnceLock<Result<Arc<Driver>, String>> = OnceLock::new();
    let driver = DRIVER.get_or_init(|| {
        let driver = Driver::new(chip(std::env::var(CHIP).ok().as_deref())?);
        if let Ok(run) = std::env::var(HANG) {
            driver.hang(run.parse().map_err(|_| format!("{HANG}={run} is not the number of a run"))?);
        }
        Ok(Arc::new(driver))
    });
    driver.as_ref().map_err(|e| Refusal::new(Code::DeviceUnavailable, e))
}

fn chip(description: Option<&str>) -> Result<Rk3588, String> {
    let Some(description) = description else { return Ok(Rk3588::default()) };
    let text = if description.trim_start().starts_with('{') {
        description.to_owned()
    } else {
        std::fs::read_to_string(description).map_err(|e| format!("{CHIP}: {description}: {e}"))?
    };
    serde_json::from_str(&text).map_err(|e| format!("{CHIP} is no description of a chip: {e}"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_name_what_differs() {
        assert_eq!(chip(None), Ok(Rk3588::default()));
        let found = chip(Some(" {\"address_space\": 5, \"sram_bytes\": 978944}")).unwrap();
        assert_eq!(found, Rk3588 { address_space: 5, sram_bytes: 978_944, ..Rk3588::default() });
        for (text, problem) in [
            ("{\"adress_space\": 5}", "unknown field `adress_space`"),
            ("{", "is no description of a chip"),
            ("nowhere/chip.json", "ROCKSHARD_RK3588: nowhere/chip.json: No such file"),
        ] {
            let error = chip(Some(text)).unwrap_err();
            assert!(error.contains(problem), "{error}");
        }
    }
}
