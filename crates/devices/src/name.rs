//! The devices by name: one enum, whose texts are what a person types and reads.

use std::{fmt, str::FromStr};

/// A device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceName {
    /// The simulated RK3588: float16 numerics, three cores, modelled time.
    Sim,
    /// The float32 CPU reference.
    Cpu,
    /// The real NPU, through librknnrt.
    Rknn,
}

impl DeviceName {
    /// All devices, in this build or not.
    pub const ALL: [DeviceName; 3] = [DeviceName::Sim, DeviceName::Cpu, DeviceName::Rknn];

    /// `sim`, `cpu` or `rknn`.
    pub fn as_str(self) -> &'static str {
        match self {
            DeviceName::Sim => "sim",
            DeviceName::Cpu => "cpu",
            DeviceName::Rknn => "rknn",
        }
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for DeviceName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = DeviceName::ALL.into_iter().find(|name| name.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no device; the devices are sim, cpu and rknn"))
    }
}

#[cfg(test)]
mod tests {
    use super::DeviceName;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in DeviceName::ALL {
            assert_eq!(name.to_string().parse(), Ok(name));
        }
        let error = "gpu".parse::<DeviceName>().unwrap_err();
        assert_eq!(error, "\"gpu\" is no device; the devices are sim, cpu and rknn");
    }
}
