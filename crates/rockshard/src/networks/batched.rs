//! Networks that were converted for several items at once, as networks of one item: items that wait at the same time run together.
//!
//! A batch takes as long with one item as with all of them. So items wait until there are enough for a batch, unless no batch of their network is
//! running: then nothing that could bring more is on its way.

use super::TensorMap;
use rockshard_diffusion::{NetworkError, NetworkSpec, Networks, PendingRun};
use rockshard_manifest::{Role, TensorSpec};
use rockshard_tensor::Tensor;
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Networks of one item over networks of `batch` items.
pub(crate) struct Batched(Arc<Gathering>);

struct Gathering {
    inner: Arc<dyn Networks>,
    batch: usize,
    queues: Mutex<BTreeMap<Role, Queue>>,
    changed: Condvar,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Item>,
    running: usize,
}

/// What an item gives, when it is there.
type Place = Arc<Mutex<Option<Result<TensorMap, NetworkError>>>>;

/// An item that waits for others.
struct Item {
    inputs: TensorMap,
    result: Place,
}

/// Items that were submitted together.
struct Submitted {
    gathering: Arc<Gathering>,
    role: Role,
    results: Vec<Place>,
}

/// The failure of a batch, which all of its items have.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
struct BatchFailure(Arc<NetworkError>);

impl Batched {
    /// Networks whose inputs and outputs have `batch` items.
    pub fn new(inner: Arc<dyn Networks>, batch: usize) -> Self {
        let (queues, changed) = (Mutex::default(), Condvar::new());
        Batched(Arc::new(Gathering { inner, batch, queues, changed }))
    }
}

impl Networks for Batched {
    fn spec(&self, role: Role) -> Option<NetworkSpec> {
        let NetworkSpec { inputs, outputs } = self.0.inner.spec(role)?;
        let one = |specs: Vec<TensorSpec>| specs.into_iter().map(|s| self.0.of_one(s)).collect();
        Some(NetworkSpec { inputs: one(inputs), outputs: one(outputs) })
    }

    fn sizes(&self) -> Vec<[u32; 2]> {
        self.0.inner.sizes()
    }

    fn submit(
        &self,
        role: Role,
        items: Vec<TensorMap>,
    ) -> Result<Box<dyn PendingRun>, NetworkError> {
        let results: Vec<Place> = items.iter().map(|_| Arc::default()).collect();
        let waiting = items.into_iter().zip(&results);
        let waiting = waiting.map(|(inputs, result)| Item { inputs, result: Arc::clone(result) });
        self.0.queues().entry(role).or_default().waiting.extend(waiting);
        self.0.changed.notify_all();
        Ok(Box::new(Submitted { gathering: self.0.clone(), role, results }))
    }
}

impl Gathering {
    fn queues(&self) -> MutexGuard<'_, BTreeMap<Role, Queue>> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Items that a tensor has; `None` where all items of a batch share it.
    fn extent(&self, spec: &TensorSpec) -> Option<usize> {
        let &first = spec.shape.first()?;
        (first > 0 && first.is_multiple_of(self.batch)).then_some(first / self.batch)
    }

    /// The tensor of one item.
    fn of_one(&self, mut spec: TensorSpec) -> TensorSpec {
        if let Some(extent) = self.extent(&spec) {
            spec.shape[0] = extent;
        }
        spec
    }

    /// Take what can run now: as many batches as are full, and where none of the network is running the rest as well.
    fn take(&self, spec: &NetworkSpec, queue: &mut Queue) -> Vec<Vec<Item>> {
        let shared: Vec<&str> = spec
            .inputs
            .iter()
            .filter(|s| self.extent(s).is_none())
            .map(|s| s.name.as_str())
            .collect();
        let alike =
            |a: &Item, b: &Item| shared.iter().all(|n| a.inputs.get(*n) == b.inputs.get(*n));
        let mut batches: Vec<Vec<Item>> = Vec::new();
        for item in queue.waiting.drain(..) {
            let open = batches.iter_mut().find(|b| b.len() < self.batch && alike(&b[0], &item));
            match open {
                Some(batch) => batch.push(item),
                None => batches.push(vec![item]),
            }
        }
        if queue.running > 0 {
            let (full, rest): (Vec<_>, Vec<_>) =
                batches.into_iter().partition(|b| b.len() == self.batch);
            queue.waiting.extend(rest.into_iter().flatten());
            return full;
        }
        batches
    }

    /// Run batches, and give each item its result.
    fn run(&self, role: Role, spec: &NetworkSpec, batches: Vec<Vec<Item>>) {
        let joined: Result<Vec<_>, NetworkError> =
            batches.iter().map(|batch| self.join(spec, batch)).collect();
        let done = joined
            .and_then(|joined| self.inner.submit(role, joined)?.wait())
            .map_err(|error| BatchFailure(Arc::new(error)));
        for (at, batch) in batches.into_iter().enumerate() {
            for (place, item) in batch.into_iter().enumerate() {
                let result = match &done {
                    Ok(outputs) => self.part(spec, &outputs[at], place),
                    Err(failure) => Err(failure.clone().into()),
                };
                *item.result.lock().unwrap_or_else(PoisonError::into_inner) = Some(result);
            }
        }
    }

    /// Items as one batch; where there are too few, the last one fills it up.
    fn join(&self, spec: &NetworkSpec, items: &[Item]) -> Result<TensorMap, NetworkError> {
        let mut batch = TensorMap::new();
        for input in &spec.inputs {
            let of = |item: &Item| item.inputs.get(&input.name).cloned();
            let Some(first) = of(&items[0]) else { continue };
            let tensor = if self.extent(input).is_some() {
                let mut bytes = Vec::with_capacity(first.bytes().len() * self.batch);
                for place in 0..self.batch {
                    let item = of(&items[place.min(items.len() - 1)]);
                    bytes.extend_from_slice(item.unwrap_or_else(|| first.clone()).bytes());
                }
                Tensor::new(first.dtype(), input.shape.clone(), bytes.into())?
            } else {
                first
            };
            batch.insert(input.name.clone(), tensor);
        }
        Ok(batch)
    }

    /// What one item of a batch gives.
    fn part(
        &self,
        spec: &NetworkSpec,
        outputs: &TensorMap,
        place: usize,
    ) -> Result<TensorMap, NetworkError> {
        let cut = |(name, tensor): (&String, &Tensor)| {
            let declared = spec.outputs.iter().find(|s| &s.name == name);
            let Some(extent) = declared.and_then(|s| self.extent(s)) else {
                return Ok((name.clone(), tensor.clone()));
            };
            let mut shape = tensor.shape().to_vec();
            shape[0] = extent;
            let length = tensor.bytes().len() / self.batch;
            let bytes = tensor.bytes().slice(place * length..(place + 1) * length);
            Ok((name.clone(), Tensor::new(tensor.dtype(), shape, bytes)?))
        };
        outputs.iter().map(cut).collect()
    }
}

impl PendingRun for Submitted {
    fn wait(self: Box<Self>) -> Result<Vec<TensorMap>, NetworkError> {
        let Submitted { gathering, role, results } = &*self;
        let spec = gathering.inner.spec(*role).ok_or_else(|| format!("there is no {role}"))?;
        let open = |result: &Place| result.lock().unwrap_or_else(PoisonError::into_inner).is_none();
        let mut queues = gathering.queues();
        while results.iter().any(open) {
            let queue = queues.entry(*role).or_default();
            let batches = gathering.take(&spec, queue);
            if batches.is_empty() {
                queues = gathering.changed.wait(queues).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            queue.running += 1;
            drop(queues);
            gathering.run(*role, &spec, batches);
            queues = gathering.queues();
            queues.entry(*role).or_default().running -= 1;
            gathering.changed.notify_all();
        }
        drop(queues);
        let taken = results.iter().map(|result| {
            let mut result = result.lock().unwrap_or_else(PoisonError::into_inner);
            result.take().unwrap_or_else(|| Err("a result was taken twice".into()))
        });
        taken.collect()
    }
}

impl Drop for Submitted {
    /// What still waits is not wanted any more.
    fn drop(&mut self) {
        let mut queues = self.gathering.queues();
        if let Some(queue) = queues.get_mut(&self.role) {
            let mine = |item: &Item| self.results.iter().any(|r| Arc::ptr_eq(r, &item.result));
            queue.waiting.retain(|item| !mine(item));
        }
    }
}
