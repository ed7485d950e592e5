//! The suite on the mock, and on devices that each break one rule: a suite that finds none of them would prove nothing.

use rockshard_device::{
    Completion, Device, DeviceError, DeviceErrorKind, Kept, Session, ShardFile, Value,
};
use rockshard_device_kit::MockDevice;
use rockshard_device_kit::conformance::{Facts, Files, Outcome, Subject, check};
use rockshard_manifest::CoreId;
use rockshard_tensor::{DType, Tensor};
use std::path::Path;
use std::sync::{Arc, Mutex, Weak};
use std::thread::ThreadId;

const MOCK: Facts =
    Facts { computes: false, host: true, integers: true, by_name: false, models_time: true };

fn outcome(device: &dyn Device) -> Outcome {
    let files = Files::write(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("conformance")).unwrap();
    check(&Subject { device, files: &files, facts: MOCK })
}

#[test]
fn the_mock_conforms() {
    let outcome = outcome(&MockDevice::new(3));
    assert!(outcome.failed.is_empty(), "{:#?}", outcome.failed);
    assert_eq!((outcome.passed.len(), outcome.ruled_out.len()), (25, 11), "{outcome:#?}");
}

/// A rule that a device breaks.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    AnyCore,
    OtherCore,
    AnyNumber,
    NoName,
    AnyType,
    Dies,
    Remembers,
    Shares,
    FirstInputOnly,
    Bytes,
    Swaps,
    Scales,
    Runs(u32),
    SometimesModelled,
    Kept(Keeping),
}

/// A rule of keeping tensors that a device breaks.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Keeping {
    Rounds,
    Always,
    NotTaken,
    Overwrites,
    EndsWithSession,
    OneThread,
    AnyShape,
    OwnOnly,
}

/// The mock with a flaw.
struct Flawed {
    mock: MockDevice,
    flaw: Flaw,
    seen: &'static Mutex<(u32, Vec<Tensor>)>,
}

struct FlawedSession {
    inner: Box<dyn Session>,
    shard: ShardFile,
    flaw: Flaw,
    dead: bool,
    runs: u32,
    seen: &'static Mutex<(u32, Vec<Tensor>)>,
    /// The outputs of the last run that kept any.
    slots: Vec<Arc<Mutex<Tensor>>>,
}

impl Device for Flawed {
    fn name(&self) -> &'static str {
        "flawed"
    }

    fn cores(&self) -> u8 {
        3
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        let mut opened = self.seen.lock().unwrap();
        opened.0 += 1;
        if matches!(self.flaw, Flaw::Runs(most) if opened.0 > most) {
            return Err(DeviceError::new(
                DeviceErrorKind::Limit,
                &shard.name,
                core,
                "no more contexts",
            ));
        }
        let given = match (self.flaw, core) {
            (Flaw::AnyCore, CoreId::Npu(n)) => CoreId::Npu(n % 3),
            (_, core) => core,
        };
        let mut named = shard.clone();
        if self.flaw == Flaw::OtherCore {
            named.name += &core.to_string();
        }
        let inner = self.mock.open(&named, given)?;
        Ok(Box::new(FlawedSession {
            inner,
            shard: shard.clone(),
            flaw: self.flaw,
            dead: false,
            runs: 0,
            seen: self.seen,
            slots: Vec::new(),
        }))
    }
}

/// A tensor that a flawed session keeps: what its slot holds when it is read.
struct FlawedKept {
    flaw: Keeping,
    tensor: Tensor,
    slot: Weak<Mutex<Tensor>>,
    thread: ThreadId,
}

impl Kept for FlawedKept {
    fn shape(&self) -> &[usize] {
        self.tensor.shape()
    }

    fn stored(&self) -> (DType, &[u8]) {
        (self.tensor.dtype(), self.tensor.bytes())
    }

    fn read(&self) -> Tensor {
        match (self.flaw, self.slot.upgrade()) {
            (Keeping::Rounds, _) => Tensor::from_f32(
                self.shape(),
                self.tensor.to_f32().unwrap().iter().map(|v| v.round()).collect(),
            ),
            (Keeping::Overwrites, Some(slot)) => slot.lock().unwrap().clone(),
            (Keeping::EndsWithSession, None) => zeros(self.shape()),
            (Keeping::OneThread, _) if std::thread::current().id() != self.thread => {
                zeros(self.shape())
            }
            _ => self.tensor.clone(),
        }
    }
}

impl FlawedSession {
    fn run_keeping(
        &mut self,
        flaw: Keeping,
        inputs: &[Value],
        keep: &[bool],
    ) -> Result<Completion<Value>, DeviceError> {
        let mut given = Vec::new();
        for (input, spec) in inputs.iter().zip(&self.shard.inputs) {
            let tensor = input.tensor();
            let own = input.kept::<FlawedKept>().is_some();
            given.push(match (flaw, input) {
                (Keeping::NotTaken, Value::Kept(_)) if own => zeros(tensor.shape()),
                (Keeping::AnyShape, Value::Kept(_)) if tensor.shape() != spec.shape => {
                    zeros(&spec.shape)
                }
                (Keeping::OwnOnly, Value::Kept(_)) if !own => {
                    return Err(DeviceError::new(
                        DeviceErrorKind::Input,
                        &self.shard.name,
                        CoreId::Npu(0),
                        "not mine",
                    ));
                }
                _ => tensor,
            });
        }
        let Completion { outputs, modelled, streaming } = self.run(&given)?;
        self.slots.resize_with(outputs.len(), || Arc::new(Mutex::new(zeros(&[]))));
        let kept = outputs.into_iter().zip(&self.slots).zip(keep).map(|((tensor, slot), &keep)| {
            slot.lock().unwrap().clone_from(&tensor);
            let (slot, thread) = (Arc::downgrade(slot), std::thread::current().id());
            let keep = keep || flaw == Keeping::Always;
            if keep {
                Value::Kept(Arc::new(FlawedKept { flaw, tensor, slot, thread }))
            } else {
                Value::Host(tensor)
            }
        });
        Ok(Completion { outputs: kept.collect(), modelled, streaming })
    }
}

fn zeros(shape: &[usize]) -> Tensor {
    Tensor::from_f32(shape, vec![0.0; shape.iter().product()])
}

impl Session for FlawedSession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        self.runs += 1;
        let mut inputs = inputs.to_vec();
        match self.flaw {
            Flaw::AnyNumber if inputs.len() > self.shard.inputs.len() => {
                inputs.truncate(self.shard.inputs.len())
            }
            Flaw::AnyType => inputs
                .iter_mut()
                .filter(|t| !t.dtype().is_float())
                .for_each(|t| *t = zeros(t.shape())),
            Flaw::FirstInputOnly if inputs.len() == 3 => inputs[2] = zeros(&[1, 5, 8]),
            Flaw::Remembers if self.runs > 3 && inputs.len() == 3 => inputs[0] = inputs[1].clone(),
            Flaw::Shares if inputs.len() == 3 => {
                // What another session gave last is mixed in when it is not this one's.
                let mut seen = self.seen.lock().unwrap();
                if !seen.1.is_empty() && seen.1 != inputs && self.runs == 1 {
                    inputs.swap(0, 1);
                }
                seen.1.clone_from(&inputs);
            }
            Flaw::Bytes if inputs.iter().any(|t| t.dtype().size() == 2) => inputs.swap(0, 1),
            _ => {}
        }
        let result = self.inner.run(&inputs);
        if self.flaw == Flaw::Dies && (self.dead || result.is_err()) {
            self.dead = true;
            return result.and(Err(DeviceError::new(
                DeviceErrorKind::Run,
                &self.shard.name,
                CoreId::Npu(0),
                "dead",
            )));
        }
        let mut done = match result {
            Err(mut error) if self.flaw == Flaw::NoName => {
                error.detail = error.detail.replace('"', "").replace("residual", "an input");
                return Err(error);
            }
            other => other?,
        };
        match self.flaw {
            Flaw::Swaps => done.outputs.reverse(),
            Flaw::Scales if self.shard.outputs[0].scale != 1.0 => {
                done.outputs[0] = zeros(&[1, 5, 8])
            }
            Flaw::SometimesModelled if self.runs == 2 => done.modelled = None,
            _ => {}
        }
        Ok(done)
    }

    fn run_between(
        &mut self,
        inputs: &[Value],
        keep: &[bool],
    ) -> Result<Completion<Value>, DeviceError> {
        match self.flaw {
            Flaw::Kept(flaw) => self.run_keeping(flaw, inputs, keep),
            _ => self.inner.run_between(inputs, keep),
        }
    }
}

#[test]
fn a_device_that_breaks_a_rule_is_found() {
    let table = [
        (Flaw::AnyCore, "a core that the device has not is refused"),
        (Flaw::OtherCore, "a shard opens on every core and gives the same there"),
        (Flaw::AnyNumber, "another number of inputs is refused"),
        (Flaw::NoName, "an input of another shape is refused by name"),
        (Flaw::AnyType, "an input of another type is refused by name"),
        (Flaw::Dies, "a refused run leaves the session usable"),
        (Flaw::Remembers, "the same inputs give the same bytes again"),
        (Flaw::Shares, "sessions of a shard do not mix"),
        (Flaw::FirstInputOnly, "every input counts"),
        (Flaw::Bytes, "float16 inputs give what their values in float32 give"),
        (Flaw::Swaps, "outputs have the declared order, shapes and kinds"),
        (Flaw::Scales, "a scale of the manifest changes nothing"),
        (Flaw::Runs(150), "200 sessions open and close and leave nothing open"),
        (Flaw::SometimesModelled, "a modelled time is given always or never"),
        (Flaw::Kept(Keeping::Rounds), "kept outputs have the values that the host gets"),
        (Flaw::Kept(Keeping::Always), "kept outputs have the values that the host gets"),
        (Flaw::Kept(Keeping::NotTaken), "a session takes what a session of any core kept"),
        (Flaw::Kept(Keeping::Overwrites), "kept outputs stay as they were while sessions run"),
        (Flaw::Kept(Keeping::EndsWithSession), "kept outputs outlive their session"),
        (Flaw::Kept(Keeping::OneThread), "threads hand kept outputs to each other"),
        (Flaw::Kept(Keeping::AnyShape), "a kept input of another shape is refused by name"),
        (Flaw::Kept(Keeping::OwnOnly), "what another device kept is taken"),
    ];
    for (flaw, case) in table {
        let seen = Box::leak(Box::new(Mutex::new((0, Vec::new()))));
        let outcome = outcome(&Flawed { mock: MockDevice::new(3), flaw, seen });
        assert!(
            outcome.failed.iter().any(|(name, _)| *name == case),
            "{case}: not found; {:#?}",
            outcome.failed
        );
    }
}
