//! What is done when a shard fails: once more on the same core, then the other cores in turn, then an error that says what was tried.

use crate::RuntimeError;
use rockshard_device::{Completion, DeviceError, DeviceErrorKind, Value};
use rockshard_tensor::DType;
use std::hash::{DefaultHasher, Hash, Hasher};

/// Why a try counts as failed.
pub(crate) enum Cause {
    /// The device says so.
    Failed(DeviceError),
    /// It gave no answer in time; the thread that waits for it is left behind.
    Hung(DeviceError),
    /// Outputs have NaN though all inputs are finite.
    NotANumber(Box<Answer>),
}

impl std::fmt::Display for Cause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Cause::Failed(e) | Cause::Hung(e) => f.write_str(&e.detail),
            Cause::NotANumber(_) => f.write_str(NOT_A_NUMBER),
        }
    }
}

const NOT_A_NUMBER: &str = "gave NaN for finite inputs";

/// A try with an answer.
pub(crate) struct Answer {
    pub completion: Completion<Value>,
    pub start: std::time::Instant,
    pub end: std::time::Instant,
}

/// What to do next.
pub(crate) enum Next {
    /// Try on this lane.
    Try(usize),
    /// Take the answer with NaN for the shard's value.
    PassOn(Box<Answer>),
    GiveUp(RuntimeError),
}

/// The failed tries of one run of a shard.
#[derive(Default)]
pub(crate) struct Tries {
    failed: Vec<(usize, DeviceError)>,
    /// Answers with NaN, by lane.
    suspects: Vec<(usize, u64)>,
}

/// Tries of a shard on one core that follow each other.
pub(crate) const TRIES_PER_CORE: usize = 2;

impl Tries {
    /// Number of failed tries.
    pub fn count(&self) -> usize {
        self.failed.len()
    }

    /// Count a failed try on `lane`, and decide. `lanes` are those that may run the shard, the preferred ones first.
    pub fn next(
        &mut self,
        lane: usize,
        cause: Cause,
        lanes: &[usize],
        error: impl Fn(&str) -> DeviceError,
    ) -> Next {
        let (again, failure, answer) = match cause {
            Cause::Failed(e) => (e.kind == DeviceErrorKind::Run, e, None),
            Cause::Hung(e) => (false, e, None),
            Cause::NotANumber(answer) => (true, error(NOT_A_NUMBER), Some(answer)),
        };
        let hopeless = matches!(
            failure.kind,
            DeviceErrorKind::Load | DeviceErrorKind::Limit | DeviceErrorKind::Input
        );
        let memory = failure.kind == DeviceErrorKind::Memory;
        self.failed.push((lane, failure));
        let disagree = answer.is_some();
        if let Some(answer) = answer {
            let digest = digest(&answer.completion.outputs);
            let agrees = |&(l, d): &(usize, u64)| d == digest && (l != lane || lanes.len() == 1);
            if self.suspects.iter().any(agrees) {
                return Next::PassOn(answer);
            }
            self.suspects.push((lane, digest));
        }
        let tried = |lane: usize| self.failed.iter().filter(|(l, _)| *l == lane).count();
        if !hopeless {
            if again && tried(lane) < TRIES_PER_CORE {
                return Next::Try(lane);
            }
            if let Some(&other) = lanes.iter().find(|&&l| tried(l) == 0) {
                return Next::Try(other);
            }
            if !memory && self.failed.len() < TRIES_PER_CORE {
                return Next::Try(lane);
            }
        }
        Next::GiveUp(self.error(disagree))
    }

    /// What all tries together say.
    fn error(&self, disagree: bool) -> RuntimeError {
        let mut failures = self.failed.iter().map(|(_, e)| e);
        let first = failures.next().cloned().expect("there is a failed try");
        if disagree && self.suspects.len() == self.failed.len() {
            let cores =
                self.failed.iter().map(|(_, e)| e.core.to_string()).collect::<Vec<_>>().join(", ");
            return RuntimeError::Disagree { shard: first.shard, cores };
        }
        let tried: Vec<String> = failures.map(|e| format!("{} ({})", e.core, e.detail)).collect();
        if tried.is_empty() {
            RuntimeError::Device(first)
        } else {
            RuntimeError::Exhausted { first, tried: tried.join(", ") }
        }
    }
}

/// Stands for the bits of values.
fn digest(values: &[Value]) -> u64 {
    let mut hasher = DefaultHasher::new();
    values.iter().for_each(|v| v.tensor().bytes().hash(&mut hasher));
    hasher.finish()
}

/// Whether a value has a NaN.
pub(crate) fn has_nan(value: &Value) -> bool {
    any(value, |exponent_and_fraction, infinity| exponent_and_fraction > infinity)
}

/// Whether a value has a NaN or an infinity.
pub(crate) fn has_non_finite(value: &Value) -> bool {
    any(value, |exponent_and_fraction, infinity| exponent_and_fraction >= infinity)
}

/// Whether a real-valued tensor has an element of which `test` holds, given its bits without the sign, and those of infinity.
fn any(value: &Value, test: impl Fn(u32, u32) -> bool) -> bool {
    match value {
        Value::Host(tensor) => any_of(tensor.dtype(), tensor.bytes(), test),
        Value::Kept(kept) => {
            let (dtype, bytes) = kept.stored();
            // What is found where it lies may be padding.
            any_of(dtype, bytes, &test) && {
                let tensor = kept.read();
                any_of(tensor.dtype(), tensor.bytes(), test)
            }
        }
    }
}

fn any_of(dtype: DType, bytes: &[u8], test: impl Fn(u32, u32) -> bool) -> bool {
    // Blocks let the compiler test many elements at once.
    match dtype {
        DType::F16 => bytes.chunks(4096).any(|block| {
            let bits =
                block.chunks_exact(2).map(|b| u32::from(u16::from_le_bytes([b[0], b[1]]) & 0x7fff));
            bits.fold(false, |found, b| found | test(b, 0x7c00))
        }),
        DType::F32 => bytes.chunks(4096).any(|block| {
            let bits = block
                .chunks_exact(4)
                .map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) & 0x7fff_ffff);
            bits.fold(false, |found, b| found | test(b, 0x7f80_0000))
        }),
        _ => false,
    }
}
