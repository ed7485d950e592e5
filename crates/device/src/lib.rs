//! What runs shards. A [`Device`] opens a [`Session`] for a shard on a core; a session turns input tensors into output tensors.
//!
//! Sessions are opened and used by the executor thread that owns the core: they are neither shared nor moved between threads,
//! because the vendor's runtime gives wrong results, without an error, when a context is shared.

mod faulty;
mod mock;

pub use faulty::{Fault, FaultyDevice, Place};
pub use mock::MockDevice;

use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::Tensor;
use std::{path::PathBuf, time::Duration};

/// A shard ready to be opened: its graph's file, already checked against the manifest's digest.
#[derive(Clone, Debug)]
pub struct ShardFile {
    /// Shard name, for messages and traces.
    pub name: String,
    /// The graph (`.onnx`, or `.rknn` for the NPU).
    pub path: PathBuf,
    /// Tensors the session takes, in order.
    pub inputs: Vec<TensorSpec>,
    /// Tensors the session gives, in order.
    pub outputs: Vec<TensorSpec>,
}

/// What a finished run gives.
#[derive(Clone, Debug)]
pub struct Completion {
    /// Output tensors in the shard's order; real-valued ones may be float32 or float16.
    pub outputs: Vec<Tensor>,
    /// Modelled time of the run on the NPU; `None` where nothing is modelled (host, CPU reference).
    pub modelled: Option<Duration>,
}

/// Something that runs shards on numbered cores.
pub trait Device: Send + Sync {
    /// Name as typed after `--device`.
    fn name(&self) -> &'static str;

    /// Number of NPU cores it has.
    fn cores(&self) -> u8;

    /// Load a shard onto a core.
    ///
    /// # Errors
    /// The graph cannot be read, does not suit the device, or does not match the boundary the manifest states.
    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError>;
}

/// One loaded shard.
pub trait Session {
    /// Run once. `inputs` are in the shard's input order, in the device's (scaled) domain.
    ///
    /// # Errors
    /// The inputs do not fit, or the device fails.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError>;
}

/// What went wrong on a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeviceErrorKind {
    /// The device or a library it needs is not there.
    Unavailable,
    /// The shard's graph cannot be loaded.
    Load,
    /// A limit of the NPU is exceeded.
    Limit,
    /// There is no memory left on the device; with less open, or later, it may do.
    Memory,
    /// Input tensors of another number, type or shape than the shard's.
    Input,
    /// The run failed or timed out.
    Run,
}

/// A device failure with its place.
#[derive(Clone, Debug, thiserror::Error)]
#[error("shard {shard} on {core}: {detail}")]
pub struct DeviceError {
    /// Class of failure.
    pub kind: DeviceErrorKind,
    /// Shard it happened in.
    pub shard: String,
    /// Core it happened on.
    pub core: CoreId,
    /// What happened and what to do.
    pub detail: String,
}

impl DeviceError {
    /// A failure of `shard` on `core`.
    pub fn new(kind: DeviceErrorKind, shard: &str, core: CoreId, detail: impl std::fmt::Display) -> Self {
        DeviceError { kind, shard: shard.to_owned(), core, detail: detail.to_string() }
    }
}

/// Check the number, kinds and shapes of `inputs` against a shard's declaration.
///
/// # Errors
/// [`DeviceErrorKind::Input`] naming the first tensor that does not fit.
pub fn check_inputs(shard: &ShardFile, core: CoreId, inputs: &[Tensor]) -> Result<(), DeviceError> {
    let fail = |detail: String| Err(DeviceError::new(DeviceErrorKind::Input, &shard.name, core, detail));
    if inputs.len() != shard.inputs.len() {
        return fail(format!("takes {} inputs, got {}", shard.inputs.len(), inputs.len()));
    }
    for (spec, tensor) in shard.inputs.iter().zip(inputs) {
        if spec.shape != tensor.shape() || spec.dtype.is_float() != tensor.dtype().is_float() {
            return fail(format!("input {:?} is {}{:?}, got {tensor:?}", spec.name, spec.dtype, spec.shape));
        }
    }
    Ok(())
}
