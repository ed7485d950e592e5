use crate::executor::{Done, Executor, Job};
use crate::trace::{ShardRun, Trace};
use crate::{Pack, RuntimeError, Variant};
use crossbeam_channel::{Sender, unbounded};
use rockshard_device::Device;
use rockshard_manifest::{CoreId, Manifest, Model, TensorSpec};
use rockshard_tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

/// Tensors by name.
pub type TensorMap = BTreeMap<String, Tensor>;

/// The devices a pack runs on.
#[derive(Clone)]
pub struct Devices {
    /// Runs the NPU's shards.
    pub npu: Arc<dyn Device>,
    /// Runs the host's shards (integer look-ups, functions the NPU has not).
    pub host: Arc<dyn Device>,
    /// Which graphs the NPU device runs.
    pub variant: Variant,
}

/// Where shards run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placement {
    /// Each shard on the core the manifest pins it to (modulo the cores in use).
    Pinned,
    /// Every core holds every shard; item i runs on core i modulo the cores.
    Replicate,
}

impl Placement {
    /// The placement a pack was converted for.
    pub fn of(manifest: &Manifest) -> Self {
        if manifest.conversion.placement == "replicate" { Placement::Replicate } else { Placement::Pinned }
    }
}

/// Items of a pipeline that are under way at a time, per core.
const IN_FLIGHT_PER_CORE: usize = 2;

struct Loaded {
    model: Model,
    /// Session key of shard 0; shard i has key `base + i`.
    base: usize,
    /// For each shard, the shards it waits for.
    needs: Vec<Vec<usize>>,
    /// How many shards (and the caller) read each value.
    uses: HashMap<String, usize>,
}

/// Models opened on devices, ready to run items.
pub struct Runner {
    loaded: Vec<Loaded>,
    executors: BTreeMap<CoreId, Executor>,
    placement: Placement,
    cores: u8,
    variant: Variant,
    started: Instant,
    trace: Mutex<Trace>,
}

/// One item on its way through a model.
struct Item {
    values: HashMap<String, (Tensor, f32, usize)>,
    waiting: Vec<usize>,
    left: usize,
}

impl Runner {
    /// Open models of a pack (all of them when `models` is empty) on `cores` cores.
    ///
    /// # Errors
    /// Too many cores, a model that is not there, a file that was altered, a shard that does not open.
    pub fn new(pack: &Pack, models: &[&str], devices: &Devices, cores: u8, placement: Placement) -> Result<Self, RuntimeError> {
        let available = devices.npu.cores();
        if cores == 0 || cores > available {
            return Err(RuntimeError::Cores { asked: cores, device: devices.npu.name(), available });
        }
        let all = &pack.manifest().models;
        let known = || all.iter().map(|m| m.name.clone()).collect::<Vec<_>>().join(", ");
        for name in models {
            if !all.iter().any(|m| m.name == *name) {
                return Err(RuntimeError::NoModel { name: (*name).to_owned(), known: known() });
            }
        }
        let mut executors = BTreeMap::new();
        for core in (0..cores).map(CoreId::Npu) {
            executors.insert(core, Executor::start(devices.npu.clone(), core)?);
        }
        executors.insert(CoreId::Host, Executor::start(devices.host.clone(), CoreId::Host)?);
        let mut runner = Runner {
            loaded: Vec::new(),
            executors,
            placement,
            cores,
            variant: devices.variant,
            started: Instant::now(),
            trace: Mutex::default(),
        };
        let mut base = 0;
        for model in all.iter().filter(|m| models.is_empty() || models.contains(&m.name.as_str())) {
            runner.open(pack, model, base)?;
            base += model.shards.len();
        }
        runner.started = Instant::now();
        Ok(runner)
    }

    fn open(&mut self, pack: &Pack, model: &Model, base: usize) -> Result<(), RuntimeError> {
        let mut made_by: HashMap<&str, usize> = HashMap::new();
        let mut uses: HashMap<String, usize> = HashMap::new();
        let mut needs = Vec::new();
        for (i, shard) in model.shards.iter().enumerate() {
            let from: BTreeSet<usize> = shard.inputs.iter().filter_map(|t| made_by.get(t.name.as_str()).copied()).collect();
            needs.push(from.into_iter().collect());
            made_by.extend(shard.outputs.iter().map(|t| (t.name.as_str(), i)));
            shard.inputs.iter().for_each(|t| *uses.entry(t.name.clone()).or_default() += 1);
            for core in self.cores_of(shard.core) {
                // The host runs its shards on the original values.
                let variant = if core == CoreId::Host { Variant::Device } else { self.variant };
                self.executors[&core].open(base + i, pack.shard_file(shard, variant)?)?;
            }
        }
        model.outputs.iter().for_each(|t| *uses.entry(t.name.clone()).or_default() += 1);
        self.loaded.push(Loaded { model: model.clone(), base, needs, uses });
        Ok(())
    }

    fn cores_of(&self, core: CoreId) -> Vec<CoreId> {
        match (core, self.placement) {
            (CoreId::Host, _) => vec![CoreId::Host],
            (CoreId::Npu(n), Placement::Pinned) => vec![CoreId::Npu(n % self.cores)],
            (CoreId::Npu(_), Placement::Replicate) => (0..self.cores).map(CoreId::Npu).collect(),
        }
    }

    /// The opened models.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.loaded.iter().map(|l| &l.model)
    }

    /// What has run so far.
    pub fn trace(&self) -> Trace {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Run items through a model; several are in flight at a time. Outputs are float32 (or integer), unscaled, an item each in the
    /// order of `items`.
    ///
    /// # Errors
    /// Inputs that do not fit, or the first shard that failed; no result is given then.
    pub fn run(&self, model: &str, items: Vec<TensorMap>) -> Result<Vec<TensorMap>, RuntimeError> {
        let loaded = self.pick(model, items.first())?;
        for (i, item) in items.iter().enumerate() {
            check_item(&loaded.model, i, item)?;
        }
        let call = self.trace.lock().unwrap_or_else(PoisonError::into_inner).next_call();
        let mut results: Vec<Option<TensorMap>> = items.iter().map(|_| None).collect();
        let mut queue = items.into_iter().enumerate();
        let mut active: HashMap<usize, Item> = HashMap::new();
        let (reply, done) = unbounded();
        let limit = IN_FLIGHT_PER_CORE * usize::from(self.cores);
        loop {
            while active.len() < limit
                && let Some((index, inputs)) = queue.next()
            {
                let mut item = self.admit(loaded, inputs);
                let first: Vec<usize> = (0..loaded.model.shards.len()).filter(|&s| item.waiting[s] == 0).collect();
                for shard in first {
                    self.dispatch(loaded, index, shard, &mut item, &reply)?;
                }
                if item.left == 0 {
                    results[index] = Some(self.collect(loaded, item));
                } else {
                    active.insert(index, item);
                }
            }
            if active.is_empty() {
                break;
            }
            let finished = done.recv().map_err(|_| RuntimeError::Executor("every core".into()))?;
            let (index, shard) = finished.tag;
            let mut item = active.remove(&index).ok_or_else(|| RuntimeError::Executor(format!("item {index}")))?;
            self.receive(loaded, call, finished, &mut item)?;
            for next in (0..loaded.model.shards.len()).filter(|&s| loaded.needs[s].contains(&shard)) {
                item.waiting[next] -= 1;
                if item.waiting[next] == 0 {
                    self.dispatch(loaded, index, next, &mut item, &reply)?;
                }
            }
            if item.left == 0 {
                results[index] = Some(self.collect(loaded, item));
            } else {
                active.insert(index, item);
            }
        }
        Ok(results.into_iter().flatten().collect())
    }

    /// The opened model of a name whose input shapes are the item's, where several resolutions are open.
    fn pick(&self, name: &str, item: Option<&TensorMap>) -> Result<&Loaded, RuntimeError> {
        let named: Vec<&Loaded> = self.loaded.iter().filter(|l| l.model.name == name).collect();
        let fits = |l: &&&Loaded| item.is_some_and(|i| l.model.inputs.iter().all(|t| i.get(&t.name).is_some_and(|v| v.shape() == t.shape)));
        named.iter().find(fits).or(named.first()).copied().ok_or_else(|| RuntimeError::NoModel {
            name: name.to_owned(),
            known: self.models().map(|m| m.name.clone()).collect::<Vec<_>>().join(", "),
        })
    }

    fn admit(&self, loaded: &Loaded, inputs: TensorMap) -> Item {
        let uses = |name: &str| loaded.uses.get(name).copied().unwrap_or(0);
        let values = inputs.into_iter().map(|(name, tensor)| (name.clone(), (tensor, 1.0, uses(&name))));
        let values = values.filter(|(_, (_, _, uses))| *uses > 0).collect();
        Item { values, waiting: loaded.needs.iter().map(Vec::len).collect(), left: loaded.model.shards.len() }
    }

    fn dispatch(&self, loaded: &Loaded, index: usize, shard: usize, item: &mut Item, reply: &Sender<Done>) -> Result<(), RuntimeError> {
        let spec = &loaded.model.shards[shard];
        let inputs = spec.inputs.iter().map(|t| take(&mut item.values, t, self.scale(spec.core, t))).collect();
        let core = match (spec.core, self.placement) {
            (CoreId::Npu(_), Placement::Replicate) => CoreId::Npu((index % usize::from(self.cores)) as u8),
            (core, _) => self.cores_of(core)[0],
        };
        self.executors[&core].run(Job { session: loaded.base + shard, tag: (index, shard), inputs, reply: reply.clone() })
    }

    /// Scale of a tensor at a shard's boundary: the host and the reference run on unscaled values.
    fn scale(&self, core: CoreId, spec: &TensorSpec) -> f32 {
        if core == CoreId::Host || self.variant == Variant::Reference { 1.0 } else { spec.scale }
    }

    fn receive(&self, loaded: &Loaded, call: usize, finished: Done, item: &mut Item) -> Result<(), RuntimeError> {
        let (index, shard) = finished.tag;
        let completion = finished.result?;
        let spec = &loaded.model.shards[shard];
        let run = ShardRun {
            call,
            item: index,
            model: loaded.model.name.clone(),
            shard: spec.name.clone(),
            order: shard,
            needs: loaded.needs[shard].clone(),
            core: finished.core,
            start_us: finished.start.saturating_duration_since(self.started).as_secs_f64() * 1e6,
            end_us: finished.end.saturating_duration_since(self.started).as_secs_f64() * 1e6,
            modelled_us: completion.modelled.map(|d| d.as_secs_f64() * 1e6),
            bytes_in: spec.inputs.iter().map(bytes).sum(),
            bytes_out: spec.outputs.iter().map(bytes).sum(),
        };
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).push(run);
        for (tensor, t) in completion.outputs.into_iter().zip(&spec.outputs) {
            let uses = loaded.uses.get(&t.name).copied().unwrap_or(0);
            if uses > 0 {
                item.values.insert(t.name.clone(), (tensor, self.scale(spec.core, t), uses));
            }
        }
        item.left -= 1;
        Ok(())
    }

    fn collect(&self, loaded: &Loaded, mut item: Item) -> TensorMap {
        let outputs = loaded.model.outputs.iter();
        outputs.map(|t| (t.name.clone(), take(&mut item.values, t, 1.0))).map(|(name, t)| (name, widened(t))).collect()
    }
}

fn bytes(spec: &TensorSpec) -> u64 {
    let size = if spec.dtype.is_float() { 2 } else { spec.dtype.size() };
    (spec.shape.iter().product::<usize>() * size) as u64
}

fn widened(tensor: Tensor) -> Tensor {
    tensor.to_float(rockshard_tensor::DType::F32).unwrap_or(tensor)
}

/// A value at the scale its reader needs; freed when this was its last use.
fn take(values: &mut HashMap<String, (Tensor, f32, usize)>, spec: &TensorSpec, scale: f32) -> Tensor {
    let (tensor, stored) = match values.get_mut(&spec.name) {
        Some((tensor, stored, uses)) if *uses > 1 => {
            *uses -= 1;
            (tensor.clone(), *stored)
        }
        _ => values.remove(&spec.name).map(|(tensor, stored, _)| (tensor, stored)).expect("shards run after those they need"),
    };
    if stored == scale {
        return tensor;
    }
    match tensor.to_f32() {
        Ok(v) => Tensor::from_f32(tensor.shape(), v.iter().map(|v| v * (scale / stored)).collect()),
        Err(_) => tensor.clone(),
    }
}

fn check_item(model: &Model, index: usize, item: &TensorMap) -> Result<(), RuntimeError> {
    let fail = |problem: String| Err(RuntimeError::Input { model: model.name.clone(), problem: format!("item {index}: {problem}") });
    for spec in &model.inputs {
        match item.get(&spec.name) {
            None => return fail(format!("input {:?} is missing", spec.name)),
            Some(t) if t.shape() != spec.shape || t.dtype().is_float() != spec.dtype.is_float() => {
                return fail(format!("input {:?} is {}{:?}, got {t:?}", spec.name, spec.dtype, spec.shape));
            }
            Some(_) => {}
        }
    }
    match item.keys().find(|name| !model.inputs.iter().any(|t| t.name == **name)) {
        Some(name) => {
            let known = model.inputs.iter().map(|t| t.name.as_str()).collect::<Vec<_>>().join(", ");
            fail(format!("there is no input {name:?}; the inputs are {known}"))
        }
        None => Ok(()),
    }
}
