//! The pair of devices that a pack needs.

use crate::Variant;
use rockshard_device::Device;
use std::sync::Arc;

/// The devices a pack runs on.
#[derive(Clone)]
pub struct Devices {
    /// Runs the NPU's shards.
    pub npu: Arc<dyn Device>,
    /// Runs the host's shards (integer look-ups, functions the NPU has not).
    pub host: Arc<dyn Device>,
    /// Which graphs the NPU device runs.
    pub variant: Variant,
}
