//! What runs shards. A [`Device`] opens a [`Session`] for a shard on a core; a session turns input tensors into output tensors.
//!
//! Sessions are opened and used by the executor thread that owns the core: they are neither shared nor moved between threads,
//! because the vendor's runtime gives wrong results, without an error, when a context is shared.

mod kept;

pub use kept::{Kept, Value};

use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::Tensor;
use std::{
    fmt::Debug,
    path::{Path, PathBuf},
    time::Duration,
};

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

/// Which of a shard's files a device opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// The graph, `.onnx`.
    Graph,
    /// What the vendor's compiler made of it, `.rknn`.
    Compiled {
        /// Version of the runtime that loads it, which a compiler of a newer one can crash; `None` where it is not known before loading.
        runtime: Option<Version>,
    },
}

/// A version of rknn-toolkit2 or librknnrt: the first three numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version(pub [u32; 3]);

impl Version {
    /// From text that starts with numbers between dots, such as `2.3.2 (429f97ae6b@2025-04-09)` or `v0.9.8`; numbers that are left out are 0.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = [0; 3];
        let text = text.trim_start_matches('v');
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        for (number, part) in numbers.iter_mut().zip(text[..end].trim_end_matches('.').split('.')) {
            *number = part.parse().ok()?;
        }
        Some(Version(numbers))
    }
}

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Version([major, minor, patch]) = self;
        write!(f, "{major}.{minor}.{patch}")
    }
}

/// A whole ONNX model as somebody else made it.
#[derive(Clone, Copy, Debug)]
pub enum OnnxModel<'a> {
    /// A file, with its external data beside it.
    File(&'a Path),
    /// One in memory, which needs no other files.
    Bytes(&'a [u8]),
}

/// What a finished run gives.
#[derive(Clone, Debug)]
pub struct Completion<T = Tensor> {
    /// Output tensors in the shard's order; real-valued ones may be float32 or float16.
    pub outputs: Vec<T>,
    /// Modelled time of the run on the NPU; `None` where nothing is modelled (host, CPU reference).
    pub modelled: Option<Duration>,
    /// The part of the modelled time that waits for the memory, which other cores lengthen; zero where it is not known.
    pub streaming: Duration,
}

/// Something that runs shards on numbered cores.
pub trait Device: Send + Sync {
    /// Name as typed after `--device`.
    fn name(&self) -> &'static str;

    /// Number of NPU cores it has.
    fn cores(&self) -> u8;

    /// Which of a shard's files [`Device::open`] is given.
    fn takes(&self) -> Takes {
        Takes::Graph
    }

    /// Load a shard onto a core.
    ///
    /// # Errors
    /// The graph cannot be read, does not suit the device, or does not match the boundary the manifest states.
    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError>;

    /// Run a model that is no shard, by the device's own reading of ONNX: inputs by name, and the outputs wanted. For judging how models
    /// are read, and for what only such an engine knows.
    ///
    /// # Errors
    /// Why it cannot; a device without an engine of its own never can.
    fn evaluate(
        &self,
        model: OnnxModel<'_>,
        inputs: &[(&str, &Tensor)],
        outputs: &[&str],
    ) -> Result<Vec<Tensor>, String> {
        let _ = (model, inputs, outputs);
        Err(format!("device {} reads no ONNX models by itself", self.name()))
    }
}

/// One loaded shard.
pub trait Session {
    /// Run once. `inputs` are in the shard's input order, in the device's (scaled) domain.
    ///
    /// # Errors
    /// The inputs do not fit, or the device fails.
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError>;

    /// Run once, between other shards. Inputs may be what another session, of any core or device, kept. Of the outputs, those for which
    /// `keep` has true may be kept; without such memory a device gives all of them on the host. Values are those of [`Session::run`].
    ///
    /// # Errors
    /// As [`Session::run`].
    fn run_between(
        &mut self,
        inputs: &[Value],
        keep: &[bool],
    ) -> Result<Completion<Value>, DeviceError> {
        let _ = keep;
        let inputs: Vec<Tensor> = inputs.iter().map(Value::tensor).collect();
        Ok(self.run(&inputs)?.into())
    }
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
    pub fn new(
        kind: DeviceErrorKind,
        shard: &str,
        core: CoreId,
        detail: impl std::fmt::Display,
    ) -> Self {
        DeviceError { kind, shard: shard.to_owned(), core, detail: detail.to_string() }
    }
}

/// Check the number, kinds and shapes of `inputs` against a shard's declaration.
///
/// # Errors
/// [`DeviceErrorKind::Input`] naming the first tensor that does not fit.
pub fn check_inputs(shard: &ShardFile, core: CoreId, inputs: &[Tensor]) -> Result<(), DeviceError> {
    check(shard, core, inputs.iter().map(|t| (t.shape(), t.dtype().is_float(), t as &dyn Debug)))
}

/// As [`check_inputs`], for the inputs of [`Session::run_between`].
///
/// # Errors
/// As [`check_inputs`].
pub fn check_values(shard: &ShardFile, core: CoreId, inputs: &[Value]) -> Result<(), DeviceError> {
    check(shard, core, inputs.iter().map(|v| (v.shape(), v.is_float(), v as &dyn Debug)))
}

fn check<'a>(
    shard: &ShardFile,
    core: CoreId,
    inputs: impl ExactSizeIterator<Item = (&'a [usize], bool, &'a dyn Debug)>,
) -> Result<(), DeviceError> {
    let fail =
        |detail: String| Err(DeviceError::new(DeviceErrorKind::Input, &shard.name, core, detail));
    if inputs.len() != shard.inputs.len() {
        return fail(format!("takes {} inputs, got {}", shard.inputs.len(), inputs.len()));
    }
    for (spec, (shape, is_float, input)) in shard.inputs.iter().zip(inputs) {
        if spec.shape != shape || spec.dtype.is_float() != is_float {
            return fail(format!(
                "input {:?} is {}{:?}, got {input:?}",
                spec.name, spec.dtype, spec.shape
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_ordered() {
        let table = [
            ("2.3.2 (429f97ae6b@2025-04-09T09:09:27)", Some([2, 3, 2])),
            ("2.5.0", Some([2, 5, 0])),
            ("v0.9.8", Some([0, 9, 8])),
            ("2.1.1b1", Some([2, 1, 1])),
            ("2.3", Some([2, 3, 0])),
            ("", None),
            ("unknown", None),
            ("99999999999.0.0", None),
        ];
        for (text, numbers) in table {
            assert_eq!(Version::parse(text), numbers.map(Version), "{text:?}");
        }
        assert!(Version([2, 10, 0]) > Version([2, 3, 2]));
        assert_eq!(Version([2, 3, 2]).to_string(), "2.3.2");
    }
}
