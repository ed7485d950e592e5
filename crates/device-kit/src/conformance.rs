//! What every [`Device`] must do, as one table of cases.
//!
//! A device's tests make a [`Subject`] and [`check`] it. Cases are functions without a test framework: one that fails says what it saw.
//! Devices differ in a few [`Facts`]; a case that a fact rules out is reported as such, so that a test can hold their number.

mod files;
mod keeping;
mod opening;
mod running;

pub use files::Files;

use rockshard_device::{Device, DeviceError, DeviceErrorKind, Session, ShardFile};
use rockshard_manifest::CoreId;
use rockshard_tensor::Tensor;

/// A device, and what the suite has to know about it.
pub struct Subject<'a> {
    /// The device.
    pub device: &'a dyn Device,
    /// The suite's shards.
    pub files: &'a Files,
    /// How it differs from others.
    pub facts: Facts,
}

/// What devices differ in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Reads the shard's file and computes what is in it.
    pub computes: bool,
    /// Opens shards for the host too.
    pub host: bool,
    /// Runs shards that read integers.
    pub integers: bool,
    /// Finds tensors by name: a shard may declare them in another order, and some outputs only.
    pub by_name: bool,
    /// Says how long a run is modelled to take.
    pub models_time: bool,
}

/// A thing that a device must do.
pub struct Case {
    /// What holds.
    pub name: &'static str,
    /// Whether it is asked of a device.
    applies: fn(Facts) -> bool,
    /// What was seen instead.
    run: fn(&Subject<'_>) -> Result<(), String>,
}

/// What a device did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Cases that hold.
    pub passed: Vec<&'static str>,
    /// Cases that the device's facts rule out.
    pub ruled_out: Vec<&'static str>,
    /// Cases that do not hold, and what was seen.
    pub failed: Vec<(&'static str, String)>,
}

/// All cases.
pub fn cases() -> impl Iterator<Item = &'static Case> {
    opening::CASES.iter().chain(running::CASES).chain(keeping::CASES)
}

/// Run all cases.
pub fn check(subject: &Subject<'_>) -> Outcome {
    let mut outcome = Outcome::default();
    for case in cases() {
        if !(case.applies)(subject.facts) {
            outcome.ruled_out.push(case.name);
            continue;
        }
        match (case.run)(subject) {
            Ok(()) => outcome.passed.push(case.name),
            Err(seen) => outcome.failed.push((case.name, seen)),
        }
    }
    outcome
}

const ALWAYS: fn(Facts) -> bool = |_| true;
const COMPUTES: fn(Facts) -> bool = |facts| facts.computes;
const CORE: CoreId = CoreId::Npu(0);

fn open(
    subject: &Subject<'_>,
    shard: &ShardFile,
    core: CoreId,
) -> Result<Box<dyn Session>, String> {
    subject.device.open(shard, core).map_err(|e| format!("does not open on {core}: {e}"))
}

fn run(session: &mut dyn Session, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    session.run(inputs).map(|done| done.outputs).map_err(|e| format!("a run fails: {e}"))
}

/// What a session of its own gives.
fn alone(subject: &Subject<'_>, inputs: &[Tensor]) -> Result<Vec<Tensor>, String> {
    run(&mut *open(subject, &subject.files.shard(), CORE)?, inputs)
}

fn same(what: &str, found: &[Tensor], wanted: &[Tensor]) -> Result<(), String> {
    if found == wanted { Ok(()) } else { Err(format!("{what}: other bytes come out")) }
}

/// The call was refused, with one of these kinds, its place, and all of these words.
fn refused<T>(
    what: &str,
    result: Result<T, DeviceError>,
    place: (&ShardFile, CoreId),
    kinds: &[DeviceErrorKind],
    words: &[&str],
) -> Result<(), String> {
    let Err(error) = result else { return Err(format!("{what} is accepted")) };
    if !kinds.contains(&error.kind) {
        return Err(format!("{what} is refused as {:?}, not as {kinds:?}: {error}", error.kind));
    }
    if (&error.shard, error.core) != (&place.0.name, place.1) {
        return Err(format!(
            "{what}: the error's place is shard {:?}, {}: {error}",
            error.shard, error.core
        ));
    }
    match words.iter().find(|word| !error.detail.contains(**word)) {
        Some(word) => Err(format!("{what}: the error does not say {word:?}: {error}")),
        None => Ok(()),
    }
}
