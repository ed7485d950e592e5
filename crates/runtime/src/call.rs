//! One call of [`Runner::run`](crate::Runner::run): items on their way through a model. The executor that finishes a shard enters its
//! outputs here and takes along what became ready.

use crate::executor::{Lanes, Task};
use crate::fault::{Answer, Cause, Next, Tries};
use crate::incident::{Action, Incident};
use crate::plan::{Plan, Step};
use crate::{Cancel, RuntimeError};
use rockshard_device::{DeviceError, DeviceErrorKind, ShardFile, Value};
use rockshard_manifest::CoreId;
use rockshard_pack::{IN_FLIGHT_PER_CORE, Mode, Port};
use rockshard_tensor::Tensor;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A value and what to multiply it by.
pub(crate) type Scaled = (Value, f32);

/// Where shards run.
#[derive(Clone)]
pub(crate) struct Places {
    pub lanes: Arc<Lanes>,
    pub mode: Mode,
    pub cores: usize,
}

/// A finished run of a shard, for the trace.
pub(crate) struct Record {
    pub item: usize,
    pub shard: usize,
    pub core: CoreId,
    pub start: Instant,
    pub end: Instant,
    pub modelled_us: Option<f64>,
    pub streaming_us: f64,
    pub tries: usize,
}

pub(crate) struct Call {
    number: usize,
    plan: Arc<Plan>,
    places: Places,
    cancel: Cancel,
    failed: AtomicBool,
    state: Mutex<State>,
    finished: Condvar,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Vec<Tensor>>,
    /// Items that were admitted, by number.
    items: Vec<Option<Item>>,
    results: Vec<Option<Vec<Scaled>>>,
    active: usize,
    /// Jobs that were made and have not ended.
    jobs: usize,
    failure: Option<RuntimeError>,
    records: Vec<Record>,
}

struct Item {
    values: Vec<Option<Made>>,
    waiting: Vec<usize>,
    left: usize,
}

/// A value that exists, at a scale.
struct Made {
    value: Value,
    scale: f32,
    uses: usize,
}

/// A shard to be run for an item.
pub(crate) struct Job {
    call: Arc<Call>,
    item: usize,
    shard: usize,
    inputs: Vec<Scaled>,
    tries: Mutex<Tries>,
}

/// What a call gave.
pub(crate) struct Outcome {
    pub results: Result<Vec<Vec<Scaled>>, RuntimeError>,
    pub records: Vec<Record>,
}

impl Places {
    /// The lanes that may run a shard, the preferred ones first.
    pub fn candidates(&self, step: &Step, item: usize) -> Vec<usize> {
        let home = self.home(step, item);
        if step.core == CoreId::Host {
            return vec![home];
        }
        let mut lanes: Vec<usize> = (0..self.cores).map(|i| (home + i) % self.cores).collect();
        lanes.sort_by_key(|&lane| !self.is_good(step, lane));
        lanes
    }

    /// The lane that runs a shard as long as nothing is wrong with it.
    pub fn home(&self, step: &Step, item: usize) -> usize {
        match (step.core, self.mode) {
            (CoreId::Host, _) => self.cores,
            (CoreId::Npu(pinned), Mode::Pipeline) => usize::from(pinned) % self.cores,
            (CoreId::Npu(_), Mode::Replicate) => item % self.cores,
        }
    }

    fn first(&self, step: &Step, item: usize) -> usize {
        let home = self.home(step, item);
        if self.is_good(step, home) { home } else { self.candidates(step, item)[0] }
    }

    fn is_good(&self, step: &Step, lane: usize) -> bool {
        !self.lanes.is_set_aside(lane) && !step.is_shut_out(lane)
    }
}

impl Call {
    /// Run items, given as the model's inputs in order, and wait until nothing of them is under way.
    pub fn run(
        number: usize,
        plan: Arc<Plan>,
        places: Places,
        cancel: Cancel,
        items: Vec<Vec<Tensor>>,
    ) -> Outcome {
        let count = items.len();
        let mut state = State { queue: items.into(), ..State::default() };
        state.items.resize_with(count, || None);
        state.results.resize_with(count, || None);
        let state = Mutex::new(state);
        let call = Arc::new(Call {
            number,
            plan,
            places,
            cancel,
            failed: AtomicBool::new(false),
            state,
            finished: Condvar::new(),
        });
        let mut state = call.state();
        let ready = call.admit(&mut state);
        drop(state);
        ready.into_iter().for_each(|job| call.places.lanes.send(call.lane(&job), Task::Run(job)));
        call.wait();
        let mut state = call.state();
        let results = std::mem::take(&mut state.results);
        let results = match state.failure.take() {
            Some(failure) => Err(failure),
            None => results.into_iter().collect::<Option<_>>().ok_or(RuntimeError::Cancelled),
        };
        Outcome { results, records: std::mem::take(&mut state.records) }
    }

    fn wait(&self) {
        let tick = self.places.lanes.tick();
        let mut state = self.state();
        while state.jobs > 0 {
            state =
                self.finished.wait_timeout(state, tick).unwrap_or_else(PoisonError::into_inner).0;
            if state.jobs > 0 {
                drop(state);
                self.places.lanes.watch();
                state = self.state();
            }
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_stopped(&self) -> bool {
        self.failed.load(Ordering::Relaxed) || self.cancel.is_cancelled()
    }

    fn lane(&self, job: &Job) -> usize {
        self.places.first(&self.plan.steps[job.shard], job.item)
    }

    /// Let items in as long as there is room; gives the jobs that are ready.
    fn admit(self: &Arc<Self>, state: &mut State) -> Vec<Arc<Job>> {
        let mut ready = Vec::new();
        while !self.is_stopped() && state.active < IN_FLIGHT_PER_CORE * self.places.cores {
            let number = state.items.len() - state.queue.len();
            let Some(inputs) = state.queue.pop_front() else { break };
            let mut item = Item {
                values: self.plan.uses.iter().map(|_| None).collect(),
                waiting: self.plan.steps.iter().map(|s| s.needs.len()).collect(),
                left: self.plan.steps.len(),
            };
            for (&value, tensor) in self.plan.inputs.iter().zip(inputs) {
                item.store(&self.plan, value, Value::Host(tensor), 1.0);
            }
            for shard in (0..self.plan.steps.len()).filter(|&s| self.plan.steps[s].needs.is_empty())
            {
                ready.push(self.job(number, shard, &mut item));
            }
            if item.left == 0 {
                state.results[number] = Some(item.outputs(&self.plan));
            } else {
                state.items[number] = Some(item);
                state.active += 1;
            }
        }
        state.jobs += ready.len();
        ready
    }

    fn job(self: &Arc<Self>, number: usize, shard: usize, item: &mut Item) -> Arc<Job> {
        let inputs = self.plan.steps[shard].inputs.iter().map(|port| item.take(port)).collect();
        Arc::new(Job { call: self.clone(), item: number, shard, inputs, tries: Mutex::default() })
    }

    /// One job has ended, and `ready` have begun; gives what `lane` does next.
    fn ended(
        &self,
        mut state: MutexGuard<'_, State>,
        lane: usize,
        ready: Vec<Arc<Job>>,
    ) -> Option<Task> {
        state.jobs -= 1;
        if state.jobs == 0 {
            self.finished.notify_all();
        }
        drop(state);
        let mut own = None;
        for job in ready {
            let to = self.lane(&job);
            if to == lane && own.is_none() {
                own = Some(Task::Run(job));
            } else {
                self.places.lanes.send(to, Task::Run(job));
            }
        }
        own
    }

    fn fail(&self, lane: usize, error: RuntimeError) -> Option<Task> {
        self.failed.store(true, Ordering::Relaxed);
        let mut state = self.state();
        state.failure.get_or_insert(error);
        self.ended(state, lane, Vec::new())
    }
}

impl Item {
    fn store(&mut self, plan: &Plan, number: usize, value: Value, scale: f32) {
        let uses = plan.uses[number];
        if uses > 0 {
            self.values[number] = Some(Made { value, scale, uses });
        }
    }

    /// A value at the scale its reader needs; freed when this was its last use.
    fn take(&mut self, port: &Port) -> Scaled {
        let slot = &mut self.values[port.value];
        let made = slot.as_mut().expect("shards run after those they need");
        made.uses -= 1;
        let scaled = (made.value.clone(), port.scale / made.scale);
        if made.uses == 0 {
            *slot = None;
        }
        scaled
    }

    fn outputs(&mut self, plan: &Plan) -> Vec<Scaled> {
        plan.outputs.iter().map(|&value| self.take(&Port { value, scale: 1.0 })).collect()
    }
}

impl Job {
    pub fn key(&self) -> usize {
        self.call.plan.base + self.shard
    }

    pub fn file(&self) -> &Arc<ShardFile> {
        &self.step().file
    }

    fn step(&self) -> &Step {
        &self.call.plan.steps[self.shard]
    }

    /// The shard's inputs as the device takes them.
    pub fn inputs(&self) -> Vec<Value> {
        self.inputs.iter().map(scaled).collect()
    }

    /// Which outputs the device may keep.
    pub fn keep(&self) -> &[bool] {
        &self.step().keep
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the call wants nothing any more; the job has ended then.
    pub fn is_dropped(&self) -> bool {
        let stopped = self.call.is_stopped();
        if stopped {
            self.call.ended(self.call.state(), 0, Vec::new());
        }
        stopped
    }

    /// Enter the outputs; gives what `lane` does next.
    pub fn done(&self, lane: usize, answer: Answer) -> Option<Task> {
        let (call, step) = (&self.call, self.step());
        call.places.lanes.praise(lane);
        let tries = self.tries().count();
        let mut state = call.state();
        state.records.push(Record {
            item: self.item,
            shard: self.shard,
            core: call.places.lanes.core(lane),
            start: answer.start,
            end: answer.end,
            modelled_us: answer.completion.modelled.map(|d| d.as_secs_f64() * 1e6),
            streaming_us: answer.completion.streaming.as_secs_f64() * 1e6,
            tries: tries + 1,
        });
        let mut ready = Vec::new();
        let item = state.items[self.item].as_mut().expect("its shards are not all done");
        for (port, value) in step.outputs.iter().zip(answer.completion.outputs) {
            item.store(&call.plan, port.value, value, port.scale);
        }
        item.left -= 1;
        for &next in &step.next {
            item.waiting[next] -= 1;
            if item.waiting[next] == 0 && !call.is_stopped() {
                ready.push(call.job(self.item, next, item));
            }
        }
        let finished = (item.left == 0).then(|| item.outputs(&call.plan));
        state.jobs += ready.len();
        if finished.is_some() {
            state.results[self.item] = finished;
            state.items[self.item] = None;
            state.active -= 1;
            ready.extend(call.admit(&mut state));
        }
        call.ended(state, lane, ready)
    }

    /// Entering a result panicked, which only a defect of this crate can cause: the call fails instead of waiting for ever.
    pub fn broken(&self, lane: usize) -> Option<Task> {
        let core = self.call.places.lanes.core(lane);
        self.call
            .fail(lane, RuntimeError::Executor(format!("{core}, at shard {},", self.file().name)))
    }

    /// Deal with a failed try; gives what `lane` does next.
    pub fn failed(self: &Arc<Self>, lane: usize, cause: Cause) -> Option<Task> {
        let (call, step) = (&self.call, self.step());
        let lanes = &call.places.lanes;
        let text = cause.to_string();
        match &cause {
            Cause::Failed(e) if e.kind == DeviceErrorKind::Memory => step.shut_out(lane),
            Cause::Failed(e)
                if !matches!(e.kind, DeviceErrorKind::Run | DeviceErrorKind::Unavailable) => {}
            _ => lanes.strike(lane, &step.file.name, &text),
        }
        let core = lanes.core(lane);
        let error =
            |detail: &str| DeviceError::new(DeviceErrorKind::Run, &step.file.name, core, detail);
        let next = self.tries().next(lane, cause, &call.places.candidates(step, self.item), error);
        let action = match &next {
            Next::Try(to) if *to == lane => Action::Retried,
            Next::Try(to) => Action::Moved(lanes.core(*to)),
            Next::PassOn(_) => Action::PassedOn,
            Next::GiveUp(_) => Action::GaveUp,
        };
        let (number, item) = (Some(call.number), Some(self.item));
        lanes.report(Incident {
            call: number,
            item,
            shard: step.file.name.clone(),
            core,
            cause: text,
            action,
        });
        match next {
            Next::Try(to) if to == lane => Some(Task::Run(self.clone())),
            Next::Try(to) => {
                lanes.send(to, Task::Run(self.clone()));
                None
            }
            Next::PassOn(answer) => self.done(lane, *answer),
            Next::GiveUp(error) => call.fail(lane, error),
        }
    }
}

/// A value multiplied by its factor.
pub(crate) fn scaled((value, factor): &Scaled) -> Value {
    if *factor == 1.0 {
        return value.clone();
    }
    let tensor = value.tensor();
    match tensor.to_f32() {
        Ok(values) => Value::Host(Tensor::from_f32(
            tensor.shape(),
            values.iter().map(|v| v * factor).collect(),
        )),
        Err(_) => value.clone(),
    }
}
