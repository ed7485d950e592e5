//! One run: items on their way through a model. The thread of the core that finishes a shard enters its outputs here, which lets the
//! shards wait for their cores that became ready. A run is *waiting* for its model to be open, then *active*, then *over*; every
//! change goes through [`Run::conclude`] or [`Run::start`], and only an active run counts as a user of its model.

use crate::cancel::Stop;
use crate::executor::Job;
use crate::fault::{Answer, Cause, Next, Tries};
use crate::incident::{Action, Incident};
use crate::item::{Item, Scaled, scaled, widened};
use crate::loaded::{LoadedModel, LoadedShard};
use crate::queue::{Order, Share};
use crate::shared::Shared;
use crate::trace::{ShardRun, Submission, Trace};
use crate::{Event, RunOptions, RuntimeError, TensorMap};
use rockshard_device::{DeviceError, DeviceErrorKind, ShardFile, Value};
use rockshard_pack::{IN_FLIGHT_PER_CORE, Mode};
use rockshard_tensor::Tensor;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// A submission.
pub(crate) struct Run {
    number: u64,
    model: Arc<LoadedModel>,
    shared: Arc<Shared>,
    options: RunOptions,
    over: AtomicBool,
    state: Mutex<State>,
    ended: Condvar,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Waiting,
    Active,
    Over,
}

struct State {
    phase: Phase,
    queue: VecDeque<Vec<Tensor>>,
    /// Items that were admitted, by number.
    items: Vec<Option<Item>>,
    results: Vec<Option<Vec<Scaled>>>,
    /// Items that are under way, and those that have no result yet.
    active: usize,
    left: usize,
    failure: Option<RuntimeError>,
    shard_runs: Vec<ShardRun>,
    incidents: Vec<Incident>,
    /// Items that have ended and of which the observer was not told yet.
    untold: Vec<(usize, Vec<Scaled>)>,
    submitted: u64,
    ended: u64,
}

/// A shard to be run for an item of a run.
struct ShardJob {
    run: Arc<Run>,
    item: usize,
    shard: usize,
    /// Lane of the item, where its run is replicated.
    home: usize,
    inputs: Vec<Scaled>,
    tries: Mutex<Tries>,
}

/// What a run gave.
#[derive(Debug)]
pub struct Outcome {
    /// Outputs of each item, in the order in which the items were submitted: float32 (or integer), unscaled.
    pub outputs: Result<Vec<TensorMap>, RuntimeError>,
    /// What ran for it, and the faults that it met.
    pub trace: Trace,
}

impl Run {
    pub fn new(
        shared: &Arc<Shared>,
        model: &Arc<LoadedModel>,
        items: Vec<Vec<Tensor>>,
        options: RunOptions,
    ) -> Arc<Self> {
        let count = items.len();
        let state = State {
            phase: Phase::Waiting,
            queue: items.into(),
            items: (0..count).map(|_| None).collect(),
            results: (0..count).map(|_| None).collect(),
            active: 0,
            left: count,
            failure: None,
            shard_runs: Vec::new(),
            incidents: Vec::new(),
            untold: Vec::new(),
            submitted: shared.tick(),
            ended: 0,
        };
        Arc::new(Run {
            number: shared.next_run(),
            model: model.clone(),
            shared: shared.clone(),
            options,
            over: AtomicBool::new(false),
            state: Mutex::new(state),
            ended: Condvar::new(),
        })
    }

    pub fn number(&self) -> u64 {
        self.number
    }

    pub fn model(&self) -> &Arc<LoadedModel> {
        &self.model
    }

    pub fn deadline(&self) -> Option<Instant> {
        self.options.deadline
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The model is open and counts this run as a user: let items in.
    pub fn start(self: &Arc<Self>) {
        let mut state = self.state();
        if state.phase != Phase::Waiting {
            drop(state);
            self.shared.leave(&self.model);
            return;
        }
        state.phase = Phase::Active;
        self.shared.active_runs(1);
        self.advance(state, Vec::new());
    }

    /// Keep an incident of opening its model.
    pub fn add_incidents(&self, incidents: Vec<Incident>) {
        self.state().incidents.extend(incidents);
    }

    /// It cannot go on.
    pub fn fail(&self, error: RuntimeError) {
        let mut state = self.state();
        if state.phase != Phase::Over {
            state.failure = Some(error);
            self.conclude(state);
        }
    }

    /// Wait until it is over, and take what it gave.
    pub fn wait(&self) -> Outcome {
        let mut state = self.state();
        while state.phase != Phase::Over {
            state = self.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let shard_runs = std::mem::take(&mut state.shard_runs);
        let incidents = std::mem::take(&mut state.incidents);
        let results = std::mem::take(&mut state.results);
        let failure = state.failure.take();
        let (submitted, ended) = (state.submitted, state.ended);
        drop(state);
        let submission = Submission { run: self.number, submitted, ended };
        let trace = Trace { shard_runs, submissions: vec![submission], incidents };
        let outputs = match failure {
            Some(failure) => Err(failure),
            None => Ok(results.iter().flatten().map(|values| self.named(values)).collect()),
        };
        Outcome { outputs, trace }
    }

    fn named(&self, values: &[Scaled]) -> TensorMap {
        let names = self.model.model.outputs.iter().map(|t| t.name.clone());
        names.zip(values.iter().map(|v| widened(scaled(v).tensor()))).collect()
    }

    /// Let in items as long as there is room, and send the jobs that are ready: those given, and the first ones of new items.
    /// Without any, it is over, or has to wait for its model again. Observers are told without the lock: they may stop the run.
    fn advance(self: &Arc<Self>, mut state: MutexGuard<'_, State>, mut ready: Vec<Arc<ShardJob>>) {
        let room = IN_FLIGHT_PER_CORE * self.shared.lanes.cores();
        while state.active < room && !self.model.is_yielding() {
            let item = state.items.len() - state.queue.len();
            let Some(inputs) = state.queue.pop_front() else { break };
            let home = match self.model.mode {
                Mode::Pipeline => 0,
                Mode::Replicate => self.shared.take_lane(item),
            };
            let mut entered = Item::new(&self.model, inputs, home);
            for shard in entered.first(&self.model) {
                ready.push(self.job(item, shard, &mut entered));
            }
            state.active += 1;
            if entered.left == 0 {
                self.finish(&mut state, item, entered);
            } else {
                state.items[item] = Some(entered);
            }
        }
        let done = std::mem::take(&mut state.untold);
        let (complete, must_wait) = (state.left == 0, state.active == 0);
        if must_wait && !complete {
            // Only a model that has to yield leaves items behind.
            state.phase = Phase::Waiting;
        }
        drop(state);
        if let Some(observer) = &self.options.observer {
            for (item, outputs) in done {
                observer.tell(Event::Item { item, outputs: &self.named(&outputs) });
            }
        }
        if complete {
            let state = self.state();
            if state.phase == Phase::Active {
                self.conclude(state);
            }
        } else if must_wait {
            self.shared.active_runs(-1);
            self.shared.leave(&self.model);
            self.shared.wait_for(self.clone());
        }
        for job in ready {
            self.shared.lanes.send(self.lane(&job), job);
        }
    }

    /// An item has all its outputs.
    fn finish(&self, state: &mut State, number: usize, mut item: Item) {
        let outputs = item.outputs(&self.model);
        if self.options.observer.is_some() {
            state.untold.push((number, outputs.clone()));
        }
        self.release(&item);
        state.results[number] = Some(outputs);
        state.active -= 1;
        state.left -= 1;
    }

    fn release(&self, item: &Item) {
        if self.model.mode == Mode::Replicate {
            self.shared.give_lane(item.home);
        }
    }

    /// It is over, one way or the other: free what it holds and tell those who wait.
    fn conclude(&self, mut state: MutexGuard<'_, State>) {
        let was = std::mem::replace(&mut state.phase, Phase::Over);
        state.ended = self.shared.tick();
        self.over.store(true, Ordering::SeqCst);
        let items = std::mem::take(&mut state.items);
        let queue = std::mem::take(&mut state.queue);
        let failed = state.failure.is_some();
        let results = if failed { std::mem::take(&mut state.results) } else { Vec::new() };
        drop(state);
        items.iter().flatten().for_each(|item| self.release(item));
        drop((items, queue, results));
        if failed {
            self.shared.lanes.sweep();
        }
        if was == Phase::Active {
            self.shared.active_runs(-1);
            self.shared.leave(&self.model);
        }
        self.ended.notify_all();
        if let Some(observer) = &self.options.observer {
            observer.tell(Event::Ended);
        }
    }

    fn job(self: &Arc<Self>, number: usize, shard: usize, item: &mut Item) -> Arc<ShardJob> {
        let ports = &self.model.shards[shard].inputs;
        let inputs = ports.iter().map(|port| item.take(port)).collect();
        let (run, home) = (self.clone(), item.home);
        Arc::new(ShardJob { run, item: number, shard, home, inputs, tries: Mutex::default() })
    }

    fn lane(&self, job: &ShardJob) -> usize {
        self.shared.first(job.shard(), self.model.mode, job.home)
    }
}

impl Stop for Run {
    fn stop(&self) {
        self.fail(RuntimeError::Cancelled);
    }
}

impl ShardJob {
    fn shard(&self) -> &LoadedShard {
        &self.run.model.shards[self.shard]
    }

    fn tries(&self) -> MutexGuard<'_, Tries> {
        self.tries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard_run(&self, lane: usize, answer: &Answer) -> ShardRun {
        let (run, shard) = (&self.run, self.shard());
        let micros = |at: Instant| run.shared.micros(at);
        ShardRun {
            run: run.number,
            item: self.item,
            model: run.model.model.name.clone(),
            shard: shard.file.name.clone(),
            order: self.shard,
            needs: shard.needs.clone(),
            core: run.shared.lanes.core(lane),
            start_us: micros(answer.start),
            end_us: micros(answer.end),
            modelled_us: answer.completion.modelled.map(|d| d.as_secs_f64() * 1e6),
            streaming_us: answer.completion.streaming.as_secs_f64() * 1e6,
            bytes_in: shard.bytes_in,
            bytes_out: shard.bytes_out,
            tries: self.tries().count() + 1,
        }
    }
}

impl Job for ShardJob {
    fn key(&self) -> usize {
        self.run.model.base + self.shard
    }

    fn file(&self) -> &ShardFile {
        &self.shard().file
    }

    fn share(&self) -> Share {
        let RunOptions { client, priority, .. } = &self.run.options;
        Share { client: client.0, weight: priority.weight() }
    }

    fn order(&self) -> Order {
        (self.run.number, self.item, self.shard)
    }

    fn inputs(&self) -> Vec<Value> {
        self.inputs.iter().map(scaled).collect()
    }

    fn keep(&self) -> &[bool] {
        &self.shard().keep
    }

    fn is_over(&self) -> bool {
        self.run.is_over()
    }

    fn done(self: Arc<Self>, lane: usize, answer: Answer) {
        let (run, shard) = (&self.run, self.shard());
        run.shared.lanes.praise(lane);
        let record = self.shard_run(lane, &answer);
        if let Some(observer) = run.options.observer.as_ref().filter(|_| !run.is_over()) {
            observer.tell(Event::Shard(&record));
        }
        let mut state = run.state();
        if state.phase != Phase::Active {
            return;
        }
        state.shard_runs.push(record);
        let mut ready = Vec::new();
        let item = state.items[self.item].as_mut().expect("its shards are not all done");
        for (port, value) in shard.outputs.iter().zip(answer.completion.outputs) {
            item.store(&run.model, port.value, value, port.scale);
        }
        for next in item.done(&run.model, self.shard) {
            ready.push(run.job(self.item, next, item));
        }
        if item.left == 0
            && let Some(item) = state.items[self.item].take()
        {
            run.finish(&mut state, self.item, item);
        }
        run.advance(state, ready);
    }

    fn failed(self: Arc<Self>, lane: usize, cause: Cause) {
        let (run, shard) = (&self.run, self.shard());
        if run.is_over() {
            return;
        }
        let lanes = &run.shared.lanes;
        let text = cause.to_string();
        let set_aside = match &cause {
            Cause::Failed(e) if e.kind == DeviceErrorKind::Memory => {
                shard.shut_out(lane);
                None
            }
            Cause::Failed(e)
                if !matches!(e.kind, DeviceErrorKind::Run | DeviceErrorKind::Unavailable) =>
            {
                None
            }
            _ => lanes.strike(lane, &shard.file.name, &text),
        };
        let core = lanes.core(lane);
        let error =
            |detail: &str| DeviceError::new(DeviceErrorKind::Run, &shard.file.name, core, detail);
        let candidates = run.shared.candidates(shard, run.model.mode, self.home);
        let next = self.tries().next(lane, cause, &candidates, error);
        let action = match &next {
            Next::Try(to) if *to == lane => Action::Retried,
            Next::Try(to) => Action::Moved(lanes.core(*to)),
            Next::PassOn(_) => Action::PassedOn,
            Next::GiveUp(_) => Action::GaveUp,
        };
        let incident = Incident::new(&shard.file.name, core, text, action);
        let met = set_aside.into_iter().chain([incident]);
        let met = met.map(|i| i.of(Some(run.number), Some(self.item))).collect();
        run.add_incidents(met);
        match next {
            Next::Try(to) => lanes.send(to, self.clone()),
            Next::PassOn(answer) => self.clone().done(lane, *answer),
            Next::GiveUp(error) => run.fail(error),
        }
    }

    fn broken(&self, lane: usize) {
        let core = self.run.shared.lanes.core(lane);
        let what = format!("{core}, at shard {},", self.shard().file.name);
        self.run.fail(RuntimeError::Executor(what));
    }
}
