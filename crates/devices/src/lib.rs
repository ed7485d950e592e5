//! Opening devices by name and environment.
//!
//! [`open`] gives what a pack runs on for a [`DeviceName`], and [`DeviceDefaults`] what is usual on it. Nothing falls back: a device that
//! is not there is an error. Everything that the environment decides is read here:
//!
//! | variable | meaning |
//! |---|---|
//! | `ROCKSHARD_RK3588` | another chip than the usual one ([`rockshard_cost::CHIP_VARIABLE`]) |
//! | `ROCKSHARD_RKNNRT` | path of librknnrt, where the system's loader does not find it or finds another ([`RKNNRT`]) |
//! | `ROCKSHARD_RKNN_MEMORY` | who has the NPU's memory of inputs, outputs and activations: `shared` between the sessions of a core, as where it is not set, or left to librknnrt's `runtime` ([`RKNN_MEMORY`]) |
//!
//! The real NPU is in builds with the feature `rknn`.

mod defaults;
mod name;
mod open;
#[cfg(feature = "rknn")]
mod rknn;

pub use defaults::DeviceDefaults;
pub use name::DeviceName;
pub use open::{OpenError, open};
#[cfg(feature = "rknn")]
pub use rknn::{RknnError, load_rknn};
#[cfg(feature = "rknn")]
pub use rockshard_device_rknn::RknnDevice;

/// Variable with the path of librknnrt.
pub const RKNNRT: &str = "ROCKSHARD_RKNNRT";

/// Variable that says who has the NPU's memory of inputs, outputs and activations: `shared` or `runtime`.
pub const RKNN_MEMORY: &str = "ROCKSHARD_RKNN_MEMORY";
