//! A loaded pack's networks as the diffusion drivers reach them: by role. One value is one caller: it submits its runs with options of
//! its own, and keeps what ran for it and nothing else.

mod batched;

pub(crate) use batched::Batched;
use rockshard_diffusion::{NetworkError, NetworkSpec, Networks, PendingRun};
use rockshard_manifest::{Model, Role};
use rockshard_pack::Footprint;
use rockshard_runtime::{LoadedPack, RunOptions, Ticket, Trace};
use rockshard_tensor::Tensor;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

type TensorMap = BTreeMap<String, Tensor>;

/// The networks of a pack that is loaded with one model a role, for one caller.
pub struct PackNetworks {
    loaded: Arc<LoadedPack>,
    /// Picture sizes that the pack was converted for.
    sizes: Vec<[u32; 2]>,
    options: RunOptions,
    trace: Arc<Mutex<Trace>>,
}

impl PackNetworks {
    /// Networks for a caller whose runs have these options.
    pub(crate) fn new(loaded: Arc<LoadedPack>, sizes: Vec<[u32; 2]>, options: RunOptions) -> Self {
        PackNetworks { loaded, sizes, options, trace: Arc::default() }
    }

    /// The same networks for another caller.
    pub fn for_caller(&self, options: RunOptions) -> Self {
        Self::new(self.loaded.clone(), self.sizes.clone(), options)
    }

    /// The modelled device memory of all networks.
    pub fn footprint(&self) -> Footprint {
        self.loaded.footprint()
    }

    /// What ran for this caller since this was asked last.
    pub fn take_trace(&self) -> Trace {
        std::mem::take(&mut *lock(&self.trace))
    }

    pub(crate) fn model(&self, role: Role) -> Option<&Model> {
        self.loaded.models().find(|m| m.role == role)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A run that is under way.
struct Submitted {
    ticket: Ticket,
    trace: Arc<Mutex<Trace>>,
}

impl PendingRun for Submitted {
    fn wait(self: Box<Self>) -> Result<Vec<TensorMap>, NetworkError> {
        let outcome = self.ticket.wait();
        lock(&self.trace).extend(outcome.trace);
        Ok(outcome.outputs?)
    }
}

impl Networks for PackNetworks {
    fn spec(&self, role: Role) -> Option<NetworkSpec> {
        let model = self.model(role)?;
        Some(NetworkSpec { inputs: model.inputs.clone(), outputs: model.outputs.clone() })
    }

    fn sizes(&self) -> Vec<[u32; 2]> {
        self.sizes.clone()
    }

    fn submit(
        &self,
        role: Role,
        items: Vec<TensorMap>,
    ) -> Result<Box<dyn PendingRun>, NetworkError> {
        let name = self.model(role).map_or(role.word(), |m| m.name.as_str());
        let ticket = self.loaded.submit(name, items, &self.options)?;
        Ok(Box::new(Submitted { ticket, trace: self.trace.clone() }))
    }
}

/// Passes everything on, and keeps the first inputs that each network is given.
pub(crate) struct Recorder {
    inner: Arc<dyn Networks>,
    seen: Mutex<BTreeMap<Role, TensorMap>>,
}

impl Recorder {
    pub fn new(inner: Arc<dyn Networks>) -> Self {
        Recorder { inner, seen: Mutex::default() }
    }

    /// The first inputs that each network was given.
    pub fn seen(&self) -> BTreeMap<Role, TensorMap> {
        lock(&self.seen).clone()
    }
}

impl Networks for Recorder {
    fn spec(&self, role: Role) -> Option<NetworkSpec> {
        self.inner.spec(role)
    }

    fn sizes(&self) -> Vec<[u32; 2]> {
        self.inner.sizes()
    }

    fn submit(
        &self,
        role: Role,
        items: Vec<TensorMap>,
    ) -> Result<Box<dyn PendingRun>, NetworkError> {
        if let Some(first) = items.first() {
            lock(&self.seen).entry(role).or_insert_with(|| first.clone());
        }
        self.inner.submit(role, items)
    }
}
