//! Why runs and packs fail.

use rockshard_device::{DeviceError, DeviceErrorKind};
use rockshard_pack::PackError;

/// Why models of a pack cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// The pack or one of its files.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// A shard on its device, where trying again is of no use.
    #[error(transparent)]
    Device(#[from] DeviceError),
    /// A shard that failed wherever it was tried.
    #[error("{first}; also tried: {tried}")]
    Exhausted {
        /// The first failure.
        first: DeviceError,
        /// The later ones.
        tried: String,
    },
    /// A shard that gives NaN, and another one on every core.
    #[error(
        "shard {shard}: cores give different values with NaN for finite inputs ({cores}); the NPU or its driver is at fault"
    )]
    Disagree {
        /// Shard.
        shard: String,
        /// Cores in the order in which they were tried.
        cores: String,
    },
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
    /// A model that does not fit the memory limit even alone.
    #[error(
        "model {model} needs {needed} bytes of device memory (modelled: weights {weights}, activations {activations}), the limit is {limit}"
    )]
    Memory {
        /// Model.
        model: String,
        /// Modelled bytes of weights and activations.
        needed: u64,
        /// Modelled bytes of weights.
        weights: u64,
        /// Modelled bytes of activations, of all cores.
        activations: u64,
        /// The limit.
        limit: u64,
    },
    /// An executor thread cannot be started.
    #[error("executor of {0} is gone")]
    Executor(String),
    /// [`Cancel::cancel`](crate::Cancel::cancel) or [`Ticket::cancel`](crate::Ticket::cancel) was called.
    #[error("cancelled")]
    Cancelled,
    /// It had not ended by its deadline.
    #[error("not done by its deadline")]
    Deadline,
}

impl RuntimeError {
    /// The device's error where it had no memory left.
    pub(crate) fn memory(&self) -> Option<&DeviceError> {
        match self {
            RuntimeError::Device(e) | RuntimeError::Exhausted { first: e, .. } => {
                Some(e).filter(|e| e.kind == DeviceErrorKind::Memory)
            }
            _ => None,
        }
    }
}
