//! The suite of `rockshard_device::conformance` on the simulator, and on ones that each break a rule of what a device computes.

use rockshard_device::{Completion, Device, DeviceError, Session, ShardFile};
use rockshard_device_kit::conformance::{Facts, Files, Outcome, Subject, check};
use rockshard_device_sim::SimDevice;
use rockshard_manifest::CoreId;
use rockshard_tensor::Tensor;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{ThreadId, current};

fn files(name: &str) -> Files {
    Files::write(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)).unwrap()
}

fn outcome(device: &dyn Device, files: &Files) -> Outcome {
    let facts =
        Facts { computes: true, host: false, integers: false, by_name: false, models_time: true };
    check(&Subject { device, files, facts })
}

#[test]
fn the_simulator_conforms() {
    let outcome = outcome(&SimDevice::default(), &files("conformance-sim"));
    assert!(outcome.failed.is_empty(), "{:#?}", outcome.failed);
    assert_eq!((outcome.passed.len(), outcome.ruled_out.len()), (33, 3), "{outcome:#?}");
}

/// A rule that a device breaks.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    AnyFile,
    AnyBoundary,
    Integers,
    Host,
    Finite,
    Crosstalk,
    Breaks,
    Aligned,
    OneThread,
    DropsAll,
}

/// The simulator with a flaw.
struct Flawed {
    flaw: Flaw,
    good: ShardFile,
    /// Failed opens, or closed sessions.
    events: Arc<AtomicUsize>,
    thread: ThreadId,
}

struct FlawedSession {
    inner: Box<dyn Session>,
    flaw: Flaw,
    events: Arc<AtomicUsize>,
    /// Of them, when the session opened.
    before: usize,
    thread: ThreadId,
}

impl Device for Flawed {
    fn name(&self) -> &'static str {
        "flawed"
    }

    fn cores(&self) -> u8 {
        3
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        let (mut given, mut at) = (shard.clone(), core);
        match self.flaw {
            Flaw::AnyFile => given.path.clone_from(&self.good.path),
            Flaw::AnyBoundary if shard.path == self.good.path => {
                given = ShardFile { name: shard.name.clone(), ..self.good.clone() }
            }
            Flaw::Integers if shard.path != self.good.path => {
                given = ShardFile { name: shard.name.clone(), ..self.good.clone() }
            }
            Flaw::Host if core == CoreId::Host => at = CoreId::Npu(0),
            _ => {}
        }
        let inner = SimDevice::default().open(&given, at).inspect_err(|_| {
            if self.flaw == Flaw::Breaks {
                self.events.fetch_add(1, Ordering::SeqCst);
            }
        })?;
        let before = self.events.load(Ordering::SeqCst);
        Ok(Box::new(FlawedSession {
            inner,
            flaw: self.flaw,
            events: self.events.clone(),
            before,
            thread: self.thread,
        }))
    }
}

impl Drop for FlawedSession {
    fn drop(&mut self) {
        if self.flaw == Flaw::DropsAll {
            self.events.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Session for FlawedSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        let mut done = self.inner.run(inputs)?;
        let change = |t: &Tensor, f: &dyn Fn(f32) -> f32| {
            let values = t.to_f32().unwrap().iter().map(|&v| f(v)).collect();
            Tensor::from_f32(t.shape(), values)
        };
        let unaligned = inputs.iter().any(|t| !(t.bytes().as_ptr() as usize).is_multiple_of(2));
        let factor = match self.flaw {
            Flaw::Crosstalk => inputs[1].to_f32().unwrap()[0] + 3.0,
            Flaw::Breaks | Flaw::DropsAll if self.events.load(Ordering::SeqCst) != self.before => {
                0.0
            }
            Flaw::Aligned if unaligned => 0.0,
            Flaw::OneThread if current().id() != self.thread => 0.0,
            _ => 1.0,
        };
        done.outputs = done.outputs.iter().map(|t| change(t, &|v| v * factor)).collect();
        if self.flaw == Flaw::Finite {
            done.outputs = done
                .outputs
                .iter()
                .map(|t| change(t, &|v| if v.is_finite() { v } else { 0.0 }))
                .collect();
        }
        Ok(done)
    }
}

#[test]
fn a_device_that_breaks_a_rule_is_found() {
    let table = [
        (Flaw::AnyFile, "a file that is not there is not loaded"),
        (Flaw::AnyFile, "a file that is no model is not loaded"),
        (Flaw::AnyBoundary, "a boundary that is not the model's is not loaded"),
        (Flaw::AnyBoundary, "another order, or fewer outputs, are not loaded"),
        (Flaw::Integers, "a shard that reads integers is refused"),
        (Flaw::Host, "the host is refused"),
        (Flaw::Finite, "infinities and NaN pass through and end with the run"),
        (Flaw::Crosstalk, "every output is a function of the inputs that it reads"),
        (Flaw::Breaks, "a failed open leaves the device usable"),
        (Flaw::Aligned, "inputs may lie at any address"),
        (Flaw::OneThread, "threads with a session each do not mix"),
        (Flaw::DropsAll, "a session outlives the one opened before it"),
    ];
    let files = files("conformance-flawed");
    for (flaw, case) in table {
        let device =
            Flawed { flaw, good: files.shard(), events: Arc::default(), thread: current().id() };
        let outcome = outcome(&device, &files);
        assert!(
            outcome.failed.iter().any(|(name, _)| *name == case),
            "{case}: not found; {:#?}",
            outcome.failed
        );
    }
}
