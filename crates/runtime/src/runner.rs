use crate::call::{Call, Places, Record, scaled};
use crate::executor::{Closing, Lanes, Opening, Task};
use crate::fault::{Cause, Next, Tries};
use crate::plan::{Plan, Step as Shard};
use crate::resident::{Resident, Step};
use crate::trace::{ShardRun, Trace};
use crate::{Action, Cancel, Incident, RuntimeError};
use crossbeam_channel::{RecvTimeoutError, bounded};
use rockshard_device::{DeviceError, DeviceErrorKind};
use rockshard_manifest::{CoreId, Model};
use rockshard_pack::{Devices, Mode, Pack};
use rockshard_tensor::{DType, Tensor};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Tensors by name.
pub type TensorMap = BTreeMap<String, Tensor>;

/// How a runner runs.
#[derive(Clone, Debug)]
pub struct Options {
    /// NPU cores to use.
    pub cores: u8,
    /// Where shards run.
    pub mode: Mode,
    /// Longest time that opening or running one shard may take. After it the core counts as hanging: its thread is replaced, and the
    /// run is tried elsewhere.
    pub time_limit: Duration,
    /// Most modelled device memory, in bytes, of models that are open together; `None` is no limit.
    pub memory_limit: Option<u64>,
    /// Stops runs between shards.
    pub cancel: Cancel,
}

impl Options {
    /// The NPU's driver waits for a core three times six seconds and then resets all of them; this is above that.
    pub const TIME_LIMIT: Duration = Duration::from_secs(30);

    /// These cores and mode, [`Options::TIME_LIMIT`], and no limit of memory.
    pub fn new(cores: u8, mode: Mode) -> Self {
        Options {
            cores,
            mode,
            time_limit: Self::TIME_LIMIT,
            memory_limit: None,
            cancel: Cancel::default(),
        }
    }
}

/// Models on devices, ready to run items. Several threads may run items at once.
///
/// A shard that fails is tried again on its core and then on the others; see [`Runner::incidents`].
pub struct Runner {
    plans: Vec<Arc<Plan>>,
    places: Places,
    resident: Resident,
    cancel: Cancel,
    started: Instant,
    log: Mutex<Log>,
}

#[derive(Default)]
struct Log {
    calls: usize,
    /// Plan, call, and the call's runs.
    runs: Vec<(usize, usize, Vec<Record>)>,
}

/// Counts as a use of a model until it is dropped.
struct Lease<'a> {
    resident: &'a Resident,
    model: usize,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        self.resident.leave(self.model);
    }
}

impl Runner {
    /// Open models of a pack (all of them when `models` is empty) on `cores` cores, with [`Options::new`].
    ///
    /// # Errors
    /// As [`Runner::with_options`], and a model that is not there.
    pub fn new(
        pack: &Pack,
        models: &[&str],
        devices: &Devices,
        cores: u8,
        mode: Mode,
    ) -> Result<Self, RuntimeError> {
        let all = &pack.manifest().models;
        if let Some(name) = models.iter().find(|name| !all.iter().any(|m| m.name == **name)) {
            return Err(no_model(name, all));
        }
        let wanted = |m: &Model| models.is_empty() || models.contains(&m.name.as_str());
        Self::with_options(pack, wanted, devices, &Options::new(cores, mode))
    }

    /// Take the models of a pack for which `wanted` holds, and open them if they fit the memory limit together.
    ///
    /// # Errors
    /// Too many cores, a file that was altered, a model that does not fit the memory limit, a shard that does not open on any core.
    pub fn with_options(
        pack: &Pack,
        wanted: impl Fn(&Model) -> bool,
        devices: &Devices,
        options: &Options,
    ) -> Result<Self, RuntimeError> {
        let (available, asked) = (devices.npu.cores(), options.cores);
        if asked == 0 || asked > available {
            return Err(RuntimeError::Cores { asked, device: devices.npu.name(), available });
        }
        let mut plans = Vec::new();
        let mut base = 0;
        for model in pack.manifest().models.iter().filter(|m| wanted(m)) {
            plans.push(Arc::new(Plan::new(pack, model, plans.len(), base, devices.variant)?));
            base += model.shards.len();
        }
        let cores = usize::from(asked);
        let resident = Resident::new(&plans, cores, options.mode, options.memory_limit);
        resident.check()?;
        let lanes = Lanes::start(&devices.npu, &devices.host, asked, options.time_limit)?;
        let places = Places { lanes, mode: options.mode, cores };
        let mut runner = Runner {
            plans,
            places,
            resident,
            cancel: options.cancel.clone(),
            started: Instant::now(),
            log: Mutex::default(),
        };
        if runner.resident.all_fit() {
            for plan in &runner.plans {
                drop(runner.enter(plan)?);
            }
        }
        runner.started = Instant::now();
        Ok(runner)
    }

    /// The models.
    pub fn models(&self) -> impl Iterator<Item = &Model> {
        self.plans.iter().map(|p| &p.model)
    }

    /// Most modelled device memory, in bytes, that open models took at a time.
    pub fn resident_peak(&self) -> u64 {
        self.resident.peak()
    }

    /// What has run so far, and the faults that were met.
    pub fn trace(&self) -> Trace {
        self.trace_of(&self.log().runs, self.incidents())
    }

    /// As [`Runner::trace`], and forget it: a runner that lives long would keep ever more.
    pub fn take_trace(&self) -> Trace {
        let runs = std::mem::take(&mut self.log().runs);
        let incidents = std::mem::take(&mut *self.places.lanes.incidents());
        self.trace_of(&runs, incidents)
    }

    /// The faults that were met so far, and what was done about each.
    pub fn incidents(&self) -> Vec<Incident> {
        self.places.lanes.incidents().clone()
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn trace_of(&self, calls: &[(usize, usize, Vec<Record>)], incidents: Vec<Incident>) -> Trace {
        let micros = |at: Instant| at.saturating_duration_since(self.started).as_secs_f64() * 1e6;
        let run = |plan: &Plan, call, r: &Record| ShardRun {
            call,
            item: r.item,
            model: plan.model.name.clone(),
            shard: plan.model.shards[r.shard].name.clone(),
            order: r.shard,
            needs: plan.steps[r.shard].needs.clone(),
            core: r.core,
            start_us: micros(r.start),
            end_us: micros(r.end),
            modelled_us: r.modelled_us,
            streaming_us: r.streaming_us,
            bytes_in: plan.steps[r.shard].bytes_in,
            bytes_out: plan.steps[r.shard].bytes_out,
            tries: r.tries,
        };
        let runs = calls.iter().flat_map(|(plan, call, records)| {
            records.iter().map(move |r| run(&self.plans[*plan], *call, r))
        });
        Trace { runs: runs.collect(), incidents }
    }

    /// Run items through a model; several are in flight at a time. Outputs are float32 (or integer), unscaled, an item each in the
    /// order of `items`.
    ///
    /// # Errors
    /// Inputs that do not fit, the first shard that failed wherever it was tried, or [`RuntimeError::Cancelled`]; no result is given
    /// then.
    pub fn run(&self, model: &str, items: Vec<TensorMap>) -> Result<Vec<TensorMap>, RuntimeError> {
        let plan = self.pick(model, items.first())?;
        let items = items
            .into_iter()
            .enumerate()
            .map(|(i, item)| plan.inputs_of(i, item))
            .collect::<Result<Vec<_>, _>>()?;
        let _lease = self.enter(plan)?;
        let number = {
            let mut log = self.log();
            log.calls += 1;
            log.calls - 1
        };
        let outcome =
            Call::run(number, plan.clone(), self.places.clone(), self.cancel.clone(), items);
        self.log().runs.push((plan.index, number, outcome.records));
        let outputs = &plan.model.outputs;
        let named = |values: Vec<_>| {
            outputs
                .iter()
                .map(|t| t.name.clone())
                .zip(values.iter().map(|v| widened(scaled(v).tensor())))
                .collect()
        };
        Ok(outcome.results?.into_iter().map(named).collect())
    }

    /// The model of a name whose input shapes are the item's, where there are several resolutions.
    fn pick(&self, name: &str, item: Option<&TensorMap>) -> Result<&Arc<Plan>, RuntimeError> {
        let named = || self.plans.iter().filter(|p| p.model.name == name);
        let fitting = named().find(|p| item.is_some_and(|i| p.fits(i)));
        fitting.or(named().next()).ok_or_else(|| no_model(name, self.models()))
    }

    /// Have a model open until the lease is dropped.
    fn enter(&self, plan: &Plan) -> Result<Lease<'_>, RuntimeError> {
        let model = plan.index;
        let lease = || Lease { resident: &self.resident, model };
        let mut full = false;
        loop {
            if self.cancel.is_cancelled() {
                return Err(RuntimeError::Cancelled);
            }
            match self.resident.enter(model, full) {
                Step::Ready => return Ok(lease()),
                Step::Wait => {
                    self.resident.wait(self.places.lanes.tick());
                    self.places.lanes.watch();
                }
                Step::Open { close } => {
                    close.iter().for_each(|&m| self.close(&self.plans[m]));
                    let opened = self.open(plan);
                    if opened.is_err() {
                        self.close(plan);
                    }
                    self.resident.opened(model, opened.is_ok());
                    let Err(error) = opened else { return Ok(lease()) };
                    let Some(e) = error.memory().filter(|_| self.resident.has_idle()) else {
                        return Err(error);
                    };
                    let (shard, core, cause) = (e.shard.clone(), e.core, e.detail.clone());
                    self.places.lanes.report(Incident {
                        call: None,
                        item: None,
                        shard,
                        core,
                        cause,
                        action: Action::MadeRoom,
                    });
                    full = true;
                }
            }
        }
    }

    fn close(&self, plan: &Plan) {
        let (reply, closed) = bounded(0);
        let closing = Arc::new(Closing { keys: plan.base..plan.base + plan.steps.len(), reply });
        (0..=self.places.cores)
            .for_each(|lane| self.places.lanes.send(lane, Task::Close(closing.clone())));
        drop(closing);
        while closed
            .recv_timeout(self.places.lanes.tick())
            .is_err_and(|e| e == RecvTimeoutError::Timeout)
        {
            self.places.lanes.watch();
        }
        // With memory freed, a core may have room for what it refused.
        self.plans.iter().flat_map(|p| &p.steps).for_each(Shard::let_in);
    }

    fn open(&self, plan: &Plan) -> Result<(), RuntimeError> {
        for (index, step) in plan.steps.iter().enumerate() {
            if self.cancel.is_cancelled() {
                return Err(RuntimeError::Cancelled);
            }
            let key = plan.base + index;
            if step.core == CoreId::Host || self.places.mode == Mode::Pipeline {
                self.open_shard(key, step, &self.places.candidates(step, 0))?;
                continue;
            }
            // Every core should have it; one must.
            let opened: Vec<_> =
                (0..self.places.cores).map(|lane| self.open_shard(key, step, &[lane])).collect();
            if opened.iter().all(Result::is_err) {
                opened.into_iter().take(1).collect::<Result<(), _>>()?;
            }
        }
        Ok(())
    }

    /// Open a shard on one of `candidates`.
    fn open_shard(
        &self,
        key: usize,
        step: &Shard,
        candidates: &[usize],
    ) -> Result<(), RuntimeError> {
        let lanes = &self.places.lanes;
        let mut tries = Tries::default();
        let mut lane = candidates[0];
        loop {
            let Err(cause) = self.try_open(key, step, lane) else { return Ok(()) };
            let (core, text) = (lanes.core(lane), cause.to_string());
            let error = |detail: &str| {
                DeviceError::new(DeviceErrorKind::Run, &step.file.name, core, detail)
            };
            let next = tries.next(lane, cause, candidates, error);
            let action = match &next {
                Next::Try(to) if *to == lane => Action::Retried,
                Next::Try(to) => Action::Moved(lanes.core(*to)),
                _ => Action::GaveUp,
            };
            lanes.report(Incident {
                call: None,
                item: None,
                shard: step.file.name.clone(),
                core,
                cause: text,
                action,
            });
            if action != Action::Retried {
                step.shut_out(lane);
            }
            match next {
                Next::Try(to) => lane = to,
                Next::PassOn(_) => return Ok(()),
                Next::GiveUp(error) => return Err(error),
            }
        }
    }

    fn try_open(&self, key: usize, step: &Shard, lane: usize) -> Result<(), Cause> {
        let lanes = &self.places.lanes;
        let (reply, answer) = bounded(1);
        lanes.send(lane, Task::Open(Arc::new(Opening { key, file: step.file.clone(), reply })));
        loop {
            match answer.recv_timeout(lanes.tick()) {
                Ok(result) => return result,
                Err(RecvTimeoutError::Timeout) => lanes.watch(),
                Err(RecvTimeoutError::Disconnected) => {
                    let error = DeviceError::new(
                        DeviceErrorKind::Run,
                        &step.file.name,
                        lanes.core(lane),
                        "its thread ended",
                    );
                    return Err(Cause::Failed(error));
                }
            }
        }
    }
}

impl Drop for Runner {
    fn drop(&mut self) {
        self.places.lanes.stop();
    }
}

fn no_model<'a>(name: &str, models: impl IntoIterator<Item = &'a Model>) -> RuntimeError {
    let known = models.into_iter().map(|m| m.name.clone()).collect::<Vec<_>>().join(", ");
    RuntimeError::NoModel { name: name.to_owned(), known }
}

fn widened(tensor: Tensor) -> Tensor {
    tensor.to_float(DType::F32).unwrap_or(tensor)
}
