//! Faults on demand, around any device.

use rockshard_device::{
    Completion, Device, DeviceError, DeviceErrorKind, Session, ShardFile, Takes, Value,
};
use rockshard_manifest::CoreId;
use rockshard_tensor::Tensor;
use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A fault to inject.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Fault {
    /// Opening fails with this kind of error.
    Open(DeviceErrorKind),
    /// The run fails with this kind of error.
    Run(DeviceErrorKind),
    /// The run takes this much longer.
    Slow(Duration),
    /// The thread that runs it panics.
    Panic,
    /// The run does not return before [`FaultyDevice::release`]; its answer is then a wrong one.
    Hang,
    /// All real-valued outputs are NaN, the same one every time.
    NotANumber,
    /// All real-valued outputs are NaN, with other bits every time.
    Glitch,
    /// The run fails, and so does every run that is under way on another core: what the NPU's driver does when it resets.
    Reset,
}

/// How long a run hangs before the driver resets the NPU.
const RESET_AFTER: Duration = Duration::from_millis(20);

impl Fault {
    fn is_open(self) -> bool {
        matches!(self, Fault::Open(_))
    }
}

/// Shards and cores that a fault is for; `None` is any.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Place {
    /// Shard name.
    pub shard: Option<String>,
    /// Core.
    pub core: Option<CoreId>,
}

impl Place {
    /// A shard, on any core.
    pub fn shard(name: &str) -> Self {
        Place { shard: Some(name.to_owned()), core: None }
    }

    /// Every shard on a core.
    pub fn core(core: CoreId) -> Self {
        Place { shard: None, core: Some(core) }
    }

    fn is(&self, shard: &str, core: CoreId) -> bool {
        self.shard.as_ref().is_none_or(|s| s == shard) && self.core.is_none_or(|c| c == core)
    }
}

struct Rule {
    place: Place,
    fault: Fault,
    left: u64,
}

/// Faults that come by chance.
struct Chance {
    seed: u64,
    /// Faults with the share of uses, in thousandths, that each strikes.
    faults: Vec<(Fault, u32)>,
    uses: HashMap<(String, CoreId), u64>,
}

#[derive(Default)]
struct State {
    rules: Vec<Rule>,
    chance: Option<Chance>,
    released: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    resets: AtomicU64,
    injected: AtomicU64,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The fault for one use, if there is one: a rule's, or else one by chance.
    fn strike(&self, shard: &str, core: CoreId, opening: bool) -> Option<Fault> {
        let mut state = self.state();
        let mut rules = state.rules.iter_mut();
        let rule =
            rules.find(|r| r.left > 0 && r.fault.is_open() == opening && r.place.is(shard, core));
        let fault = match rule {
            Some(rule) => {
                rule.left = rule.left.saturating_sub(u64::from(rule.left != u64::MAX));
                Some(rule.fault)
            }
            None => state.chance.as_mut().and_then(|c| c.strike(shard, core, opening)),
        };
        self.injected.fetch_add(u64::from(fault.is_some()), Ordering::SeqCst);
        fault
    }
}

impl Chance {
    /// Depends on the seed, the place and how often it was used before, not on what other threads do.
    fn strike(&mut self, shard: &str, core: CoreId, opening: bool) -> Option<Fault> {
        let uses = self.uses.entry((shard.to_owned(), core)).or_default();
        *uses += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, shard, core, *uses).hash(&mut hasher);
        let mut dice = (hasher.finish() % 1000) as u32;
        for &(fault, share) in self.faults.iter().filter(|(fault, _)| fault.is_open() == opening) {
            if dice < share {
                return Some(fault);
            }
            dice -= share;
        }
        None
    }
}

/// A device that passes everything on to another one, except where a fault is injected.
#[derive(Clone)]
pub struct FaultyDevice {
    inner: Arc<dyn Device>,
    shared: Arc<Shared>,
}

impl FaultyDevice {
    /// Wrap a device.
    pub fn new(inner: Arc<dyn Device>) -> Self {
        FaultyDevice { inner, shared: Arc::default() }
    }

    /// Let the next `times` uses at a place (`u64::MAX`: all) have a fault. Of several rules for a use the first counts.
    pub fn inject(&self, place: Place, fault: Fault, times: u64) {
        self.shared.state().rules.push(Rule { place, fault, left: times });
    }

    /// Let faults come by chance: each with the share of uses, in thousandths, that it strikes. Equal seeds give each shard on each
    /// core the same sequence of faults.
    pub fn inject_randomly(&self, seed: u64, faults: &[(Fault, u32)]) {
        self.shared.state().chance =
            Some(Chance { seed, faults: faults.to_vec(), uses: HashMap::new() });
    }

    /// Let runs that hang return; later ones do not hang.
    pub fn release(&self) {
        self.shared.state().released = true;
        self.shared.changed.notify_all();
    }

    /// Faults injected so far.
    pub fn injected(&self) -> u64 {
        self.shared.injected.load(Ordering::SeqCst)
    }
}

impl Device for FaultyDevice {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn cores(&self) -> u8 {
        self.inner.cores()
    }

    fn takes(&self) -> Takes {
        self.inner.takes()
    }

    fn open(&self, shard: &ShardFile, core: CoreId) -> Result<Box<dyn Session>, DeviceError> {
        if let Some(Fault::Open(kind)) = self.shared.strike(&shard.name, core, true) {
            return Err(DeviceError::new(kind, &shard.name, core, "injected fault on open"));
        }
        let inner = self.inner.open(shard, core)?;
        Ok(Box::new(FaultySession {
            inner,
            shared: self.shared.clone(),
            shard: shard.clone(),
            core,
        }))
    }
}

struct FaultySession {
    inner: Box<dyn Session>,
    shared: Arc<Shared>,
    shard: ShardFile,
    core: CoreId,
}

impl FaultySession {
    fn error(&self, kind: DeviceErrorKind, detail: &str) -> DeviceError {
        DeviceError::new(kind, &self.shard.name, self.core, detail)
    }

    /// A run, or what a fault makes of it. `fill` gives an output of the same shape with one value everywhere.
    fn struck<T>(
        &mut self,
        run: impl FnOnce(&mut dyn Session) -> Result<Completion<T>, DeviceError>,
        fill: impl Fn(T, f32) -> T,
    ) -> Result<Completion<T>, DeviceError> {
        let resets = self.shared.resets.load(Ordering::SeqCst);
        let fault = self.shared.strike(&self.shard.name, self.core, false);
        match fault {
            Some(Fault::Run(kind)) => return Err(self.error(kind, "injected fault on run")),
            Some(Fault::Panic) => panic!("injected panic in {}", self.shard.name),
            Some(Fault::Slow(time)) => std::thread::sleep(time),
            Some(Fault::Reset) => {
                std::thread::sleep(RESET_AFTER);
                self.shared.resets.fetch_add(1, Ordering::SeqCst);
                return Err(self.error(DeviceErrorKind::Run, "injected reset"));
            }
            Some(Fault::Hang) => {
                let state = self.shared.state();
                drop(self.shared.changed.wait_while(state, |s| !s.released));
            }
            _ => {}
        }
        let mut completion = run(&mut *self.inner)?;
        if self.shared.resets.load(Ordering::SeqCst) != resets {
            return Err(self.error(DeviceErrorKind::Run, "another core's reset"));
        }
        let value = match fault {
            Some(Fault::NotANumber) => f32::NAN,
            Some(Fault::Glitch) => {
                let payload = self.shared.injected.load(Ordering::SeqCst) as u32 & 0x3f_ffff;
                f32::from_bits(f32::NAN.to_bits() | payload)
            }
            Some(Fault::Hang) => -1e4,
            _ => return Ok(completion),
        };
        completion.outputs =
            completion.outputs.into_iter().map(|output| fill(output, value)).collect();
        Ok(completion)
    }
}

/// A tensor of the same shape with one value everywhere, if it has real numbers.
fn filled(tensor: &Tensor, value: f32) -> Tensor {
    if tensor.dtype().is_float() {
        Tensor::from_f32(tensor.shape(), vec![value; tensor.len()])
    } else {
        tensor.clone()
    }
}

impl Session for FaultySession {
    fn run(&mut self, inputs: &[Tensor]) -> Result<Completion, DeviceError> {
        self.struck(|inner| inner.run(inputs), |tensor, value| filled(&tensor, value))
    }

    fn run_between(
        &mut self,
        inputs: &[Value],
        keep: &[bool],
    ) -> Result<Completion<Value>, DeviceError> {
        self.struck(
            |inner| inner.run_between(inputs, keep),
            |output, value| Value::Host(filled(&output.tensor(), value)),
        )
    }
}
