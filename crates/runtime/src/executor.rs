//! The threads that own the cores. A lane is one core: a queue of tasks and the thread that does them. Only that thread touches the
//! core's sessions, and it carries on with the shards that its own work made ready, so that a chain on one core changes no thread.
//!
//! A thread that is stuck in a device cannot be stopped. When a task is overdue, the lane is given a new thread, the task counts as
//! failed, and whatever the old thread still returns is ignored: every thread has the lane's epoch of its start, and ends when
//! that is over.

use crate::RuntimeError;
use crate::call::Job;
use crate::fault::{Answer, Cause, has_nan, has_non_finite};
use crate::incident::{Action, Incident};
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use rockshard_device::{
    Completion, Device, DeviceError, DeviceErrorKind, Session, ShardFile, Value,
};
use rockshard_manifest::{CoreId, TensorSpec};
use std::collections::HashMap;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Failures in a row after which a core gets no work as long as another one does better.
const SET_ASIDE: u32 = 3;

/// How long a lane without work looks for some before its thread sleeps.
const AWAKE: Duration = Duration::from_micros(50);

/// What a lane's thread does.
#[derive(Clone)]
pub(crate) enum Task {
    Open(Arc<Opening>),
    Close(Arc<Closing>),
    Run(Arc<Job>),
    Stop,
}

/// A shard to be opened before it is needed.
pub(crate) struct Opening {
    pub key: usize,
    pub file: Arc<ShardFile>,
    pub reply: Sender<Result<(), Cause>>,
}

/// Sessions to be closed. Nothing is sent: `reply` is disconnected when all lanes have done it.
pub(crate) struct Closing {
    pub keys: Range<usize>,
    #[expect(dead_code, reason = "its drop is the reply")]
    pub reply: Sender<()>,
}

struct Lane {
    core: CoreId,
    device: Arc<dyn Device>,
    tasks: Sender<Task>,
    queue: Receiver<Task>,
    state: Mutex<LaneState>,
    failures: AtomicU32,
}

#[derive(Default)]
struct LaneState {
    epoch: u64,
    running: Option<(Task, Instant)>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread ends.
    ended: Option<Receiver<()>>,
}

/// All lanes of a runner: the NPU's cores in order, then the host.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    limit: Duration,
    incidents: Mutex<Vec<Incident>>,
}

impl Lanes {
    /// Start the lanes of `cores` NPU cores and the host.
    pub fn start(
        npu: &Arc<dyn Device>,
        host: &Arc<dyn Device>,
        cores: u8,
        limit: Duration,
    ) -> Result<Arc<Self>, RuntimeError> {
        let lane = |core, device: &Arc<dyn Device>| {
            let (tasks, queue) = unbounded();
            Lane {
                core,
                device: device.clone(),
                tasks,
                queue,
                state: Mutex::default(),
                failures: AtomicU32::new(0),
            }
        };
        let mut lanes: Vec<Lane> = (0..cores).map(|n| lane(CoreId::Npu(n), npu)).collect();
        lanes.push(lane(CoreId::Host, host));
        let lanes = Arc::new(Lanes { lanes, limit, incidents: Mutex::default() });
        for index in 0..lanes.lanes.len() {
            let core = lanes.core(index);
            let started = lanes.spawn(index, &mut lanes.lanes[index].state());
            if let Err(e) = started {
                lanes.stop();
                return Err(RuntimeError::Executor(format!("{core} ({e})")));
            }
        }
        Ok(lanes)
    }

    fn spawn(self: &Arc<Self>, index: usize, state: &mut LaneState) -> std::io::Result<()> {
        let (alive, ended) = bounded(0);
        let (lanes, epoch) = (self.clone(), state.epoch);
        let body = move || {
            let _alive = alive;
            Executor { lanes: &lanes, index, epoch, sessions: HashMap::new() }.serve();
        };
        state.thread = None;
        state.thread = Some(
            std::thread::Builder::new()
                .name(format!("executor {}", self.core(index)))
                .spawn(body)?,
        );
        state.ended = Some(ended);
        Ok(())
    }

    pub fn core(&self, lane: usize) -> CoreId {
        self.lanes[lane].core
    }

    pub fn send(&self, lane: usize, task: Task) {
        // A lane holds both ends of its queue, so it takes tasks as long as it exists.
        let _ = self.lanes[lane].tasks.send(task);
    }

    /// How often those who wait for a lane should call [`Lanes::watch`].
    pub fn tick(&self) -> Duration {
        (self.limit / 8).clamp(Duration::from_millis(1), Duration::from_millis(500))
    }

    /// Replace threads that are overdue or gone, and do what their tasks need.
    pub fn watch(self: &Arc<Self>) {
        for (index, lane) in self.lanes.iter().enumerate() {
            let mut state = lane.state();
            let gone = state.thread.as_ref().is_none_or(JoinHandle::is_finished);
            let overdue =
                state.running.as_ref().is_some_and(|(_, since)| since.elapsed() > self.limit);
            if !gone && !overdue {
                continue;
            }
            state.epoch += 1;
            let task = state.running.take();
            if let Err(e) = self.spawn(index, &mut state) {
                tracing::error!(
                    "executor of {} cannot be started ({e}); it is tried again",
                    lane.core
                );
            }
            drop(state);
            let what = if gone {
                "its thread ended".to_owned()
            } else {
                format!("no answer within {:?}, the run was given up", self.limit)
            };
            let cause = |shard: &str| {
                Cause::Hung(DeviceError::new(DeviceErrorKind::Run, shard, lane.core, what))
            };
            match task {
                Some((Task::Run(job), _)) => {
                    let cause = cause(&job.file().name);
                    if let Some(task) = job.failed(index, cause) {
                        self.send(index, task);
                    }
                }
                Some((Task::Open(opening), _)) => {
                    drop(opening.reply.send(Err(cause(&opening.file.name))))
                }
                Some((Task::Close(_) | Task::Stop, _)) | None => {}
            }
        }
    }

    /// Let the threads end. One that is stuck is left behind.
    pub fn stop(&self) {
        self.lanes.iter().for_each(|lane| drop(lane.tasks.send(Task::Stop)));
        for lane in &self.lanes {
            let ended = lane.state().ended.take();
            // Nothing is ever sent: this waits until the thread ends, or for the limit.
            let stuck =
                ended.is_some_and(|e| e.recv_timeout(self.limit).is_err_and(|e| e.is_timeout()));
            let thread = lane.state().thread.take();
            match thread {
                Some(thread) if !stuck => drop(thread.join()),
                _ => lane.state().epoch += 1,
            }
        }
    }

    /// Count a failure of a lane's core.
    pub fn strike(&self, lane: usize, shard: &str, cause: &str) {
        let failures = self.lanes[lane].failures.fetch_add(1, Ordering::Relaxed) + 1;
        let core = self.core(lane);
        if failures == SET_ASIDE && core != CoreId::Host && self.lanes.len() > 2 {
            let cause = format!("{failures} failures in a row, the last: {cause}");
            self.report(Incident {
                call: None,
                item: None,
                shard: shard.to_owned(),
                core,
                cause,
                action: Action::SetAside,
            });
        }
    }

    /// A lane's core did well.
    pub fn praise(&self, lane: usize) {
        let failures = &self.lanes[lane].failures;
        if failures.load(Ordering::Relaxed) != 0 {
            failures.store(0, Ordering::Relaxed);
        }
    }

    pub fn is_set_aside(&self, lane: usize) -> bool {
        self.lanes[lane].failures.load(Ordering::Relaxed) >= SET_ASIDE
    }

    /// Log an incident and keep it.
    pub fn report(&self, incident: Incident) {
        tracing::warn!("{incident}");
        self.incidents().push(incident);
    }

    pub fn incidents(&self) -> MutexGuard<'_, Vec<Incident>> {
        self.incidents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    fn state(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Sessions = HashMap<usize, Box<dyn Session>>;

/// The thread of a lane.
struct Executor<'a> {
    lanes: &'a Arc<Lanes>,
    index: usize,
    epoch: u64,
    sessions: Sessions,
}

impl Executor<'_> {
    fn serve(mut self) {
        let lane = &self.lanes.lanes[self.index];
        let mut next = None;
        loop {
            let Some(task) = next.take().or_else(|| receive(&lane.queue)) else { break };
            let more = match task {
                Task::Stop => break,
                Task::Run(job) if job.is_dropped() => None,
                Task::Run(job) => {
                    let result = self.run(&job);
                    if !self.end() {
                        break;
                    }
                    let entered = catch_unwind(AssertUnwindSafe(|| match result {
                        Ok(answer) => job.done(self.index, answer),
                        Err(cause) => job.failed(self.index, cause),
                    }));
                    entered.unwrap_or_else(|_| job.broken(self.index))
                }
                Task::Open(opening) => {
                    self.begin(Task::Open(opening.clone()));
                    let result = self.open(opening.key, &opening.file).map_err(Cause::Failed);
                    if !self.end() {
                        break;
                    }
                    let _ = opening.reply.send(result);
                    None
                }
                Task::Close(closing) => {
                    self.begin(Task::Close(closing.clone()));
                    closing.keys.clone().for_each(|key| self.close(key));
                    if !self.end() {
                        break;
                    }
                    None
                }
            };
            next = more;
        }
        let keys: Vec<usize> = self.sessions.keys().copied().collect();
        keys.into_iter().for_each(|key| self.close(key));
    }

    /// From here on `task` can become overdue. Gives whether this thread still is the lane's.
    fn begin(&self, task: Task) -> bool {
        let mut state = self.lanes.lanes[self.index].state();
        let ours = state.epoch == self.epoch;
        if ours {
            state.running = Some((task, Instant::now()));
        }
        ours
    }

    /// Whether this thread still is the lane's.
    fn end(&self) -> bool {
        let mut state = self.lanes.lanes[self.index].state();
        let ours = state.epoch == self.epoch;
        if ours {
            state.running = None;
        }
        ours
    }

    fn run(&mut self, job: &Arc<Job>) -> Result<Answer, Cause> {
        let (key, file) = (job.key(), job.file());
        let core = self.lanes.core(self.index);
        self.begin(Task::Run(job.clone()));
        if !self.sessions.contains_key(&key) {
            self.open(key, file).map_err(Cause::Failed)?;
            if !self.begin(Task::Run(job.clone())) {
                return Err(Cause::Failed(DeviceError::new(
                    DeviceErrorKind::Run,
                    &file.name,
                    core,
                    "it took too long to open",
                )));
            }
        }
        let inputs = job.inputs();
        let session = self.sessions.get_mut(&key).expect("it was opened");
        let start = Instant::now();
        let result = guarded(&file.name, core, || session.run_between(&inputs, job.keep()))
            .and_then(|c| checked(file, core, c));
        let end = Instant::now();
        match result {
            Ok(completion) => {
                let suspect =
                    completion.outputs.iter().any(has_nan) && !inputs.iter().any(has_non_finite);
                let answer = Answer { completion, start, end };
                if suspect { Err(Cause::NotANumber(Box::new(answer))) } else { Ok(answer) }
            }
            Err(error) => {
                // The next try gets a new session: this one's state is unknown.
                if error.kind != DeviceErrorKind::Input {
                    self.close(key);
                }
                Err(Cause::Failed(error))
            }
        }
    }

    fn open(&mut self, key: usize, file: &ShardFile) -> Result<(), DeviceError> {
        if !self.sessions.contains_key(&key) {
            let lane = &self.lanes.lanes[self.index];
            let session = guarded(&file.name, lane.core, || lane.device.open(file, lane.core))?;
            self.sessions.insert(key, session);
        }
        Ok(())
    }

    fn close(&mut self, key: usize) {
        let session = self.sessions.remove(&key);
        let closed = guarded("", self.lanes.core(self.index), || {
            drop(session);
            Ok(())
        });
        if let Err(error) = closed {
            tracing::warn!("closing a shard on {}: {}", error.core, error.detail);
        }
    }
}

/// The next task. A shard's successor on another core is mostly there within microseconds, sooner than a thread that sleeps wakes up:
/// so look for [`AWAKE`], giving way to other threads, and then sleep.
fn receive(queue: &Receiver<Task>) -> Option<Task> {
    let start = Instant::now();
    loop {
        match queue.try_recv() {
            Ok(task) => return Some(task),
            Err(_) if start.elapsed() < AWAKE => std::thread::yield_now(),
            Err(_) => return queue.recv().ok(),
        }
    }
}

/// What a device gives must be what the shard declares.
fn checked(
    file: &ShardFile,
    core: CoreId,
    completion: Completion<Value>,
) -> Result<Completion<Value>, DeviceError> {
    let fits = |(spec, v): (&TensorSpec, &Value)| {
        spec.shape == v.shape() && spec.dtype.is_float() == v.is_float()
    };
    if completion.outputs.len() == file.outputs.len()
        && file.outputs.iter().zip(&completion.outputs).all(fits)
    {
        return Ok(completion);
    }
    let detail = format!("the device gave {:?} instead of {:?}", completion.outputs, file.outputs);
    Err(DeviceError::new(DeviceErrorKind::Run, &file.name, core, detail))
}

/// A panic in a device is a failed run of that shard, not the end of the process.
fn guarded<T>(
    shard: &str,
    core: CoreId,
    work: impl FnOnce() -> Result<T, DeviceError>,
) -> Result<T, DeviceError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .map(String::as_str)
            .or(panic.downcast_ref::<&str>().copied());
        Err(DeviceError::new(
            DeviceErrorKind::Run,
            shard,
            core,
            format!("the device panicked: {}", text.unwrap_or("no message")),
        ))
    })
}
