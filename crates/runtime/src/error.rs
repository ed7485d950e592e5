use crate::PackError;
use rockshard_device::DeviceError;

/// Why models of a pack cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The pack or one of its files.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A shard on its device.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// The pack has no such model.
    #[error("the pack has no model {name:?}; it has {known}")]
    NoModel {
        /// What was asked for.
        name: String,
        /// What there is.
        known: String,
    },
    /// An input that is missing, unknown or of another shape.
    #[error("model {model}: {problem}")]
    Input {
        /// Model.
        model: String,
        /// What does not fit.
        problem: String,
    },
    /// More cores asked for than the device has.
    #[error("{asked} cores asked for, {device} has {available}")]
    Cores {
        /// Asked for.
        asked: u8,
        /// Device name.
        device: &'static str,
        /// Cores it has.
        available: u8,
    },
    /// An executor thread cannot be started, or ended before its time.
    #[error("executor of {0} is gone")]
    Executor(String),
}
