//! The threads that own the cores. A lane is one core: what waits for it and the thread that does it. Only that thread touches the
//! core's sessions. Shards wait as [`Job`]s, in a queue that is fair between clients; opening and closing shards goes before them.
//! A lane knows nothing of runs: a job tells it what to run, and is told how that went.
//!
//! A thread that is stuck in a device cannot be stopped. When its work is overdue, the lane is given a new thread, the job counts as
//! failed, and whatever the old thread still returns is ignored: every thread has the lane's epoch of its start, and ends when
//! that is over.

use crate::RuntimeError;
use crate::fault::{Answer, Cause, has_nan, has_non_finite};
use crate::incident::{Action, Incident};
use crate::queue::{self, FairQueue, Share};
use crossbeam_channel::{Receiver, Sender, bounded};
use rockshard_device::{
    Completion, Device, DeviceError, DeviceErrorKind, Session, ShardFile, Value,
};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_pack::Devices;
use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Failures in a row after which a core gets no work as long as another one does better.
const SET_ASIDE: u32 = 3;

/// How long a lane without work looks for some before its thread sleeps.
const AWAKE: Duration = Duration::from_micros(50);

/// A shard to be run for an item.
pub(crate) trait Job: Send + Sync {
    /// Of the shard's session.
    fn key(&self) -> usize;
    /// The shard.
    fn file(&self) -> &ShardFile;
    /// Who waits for it.
    fn share(&self) -> Share;
    /// Its place among those who wait with it.
    fn order(&self) -> queue::Order;
    /// The inputs as the device takes them.
    fn inputs(&self) -> Vec<Value>;
    /// Which outputs the device may keep.
    fn keep(&self) -> &[bool];
    /// Whether nobody wants it any more.
    fn is_over(&self) -> bool;
    /// It ran on `lane`.
    fn done(self: Arc<Self>, lane: usize, answer: Answer);
    /// A try on `lane` failed.
    fn failed(self: Arc<Self>, lane: usize, cause: Cause);
    /// Taking the result panicked, which only a defect of this crate or an observer can cause.
    fn broken(&self, lane: usize);
}

/// What goes before jobs.
#[derive(Clone)]
pub(crate) enum Order {
    Open(Arc<Opening>),
    Close(Arc<Closing>),
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

#[derive(Clone)]
enum Work {
    Order(Order),
    Job(Arc<dyn Job>),
}

struct Lane {
    core: CoreId,
    device: Arc<dyn Device>,
    state: Mutex<LaneState>,
    changed: Condvar,
    /// Orders and jobs that wait, to look at without the lock.
    pending: AtomicUsize,
    failures: AtomicU32,
}

#[derive(Default)]
struct LaneState {
    orders: VecDeque<Order>,
    jobs: FairQueue<Arc<dyn Job>>,
    asleep: bool,
    epoch: u64,
    running: Option<(Work, Instant)>,
    thread: Option<JoinHandle<()>>,
    /// Disconnected when the thread ends.
    ended: Option<Receiver<()>>,
}

/// All lanes: the NPU's cores in order, then the host.
pub(crate) struct Lanes {
    lanes: Vec<Lane>,
    limit: Duration,
}

impl Lanes {
    /// Start the lanes of `cores` NPU cores and the host.
    pub fn start(devices: &Devices, cores: u8, limit: Duration) -> Result<Arc<Self>, RuntimeError> {
        let lane = |core, device: &Arc<dyn Device>| Lane {
            core,
            device: device.clone(),
            state: Mutex::default(),
            changed: Condvar::new(),
            pending: AtomicUsize::new(0),
            failures: AtomicU32::new(0),
        };
        let mut lanes: Vec<Lane> = (0..cores).map(|n| lane(CoreId::Npu(n), &devices.npu)).collect();
        lanes.push(lane(CoreId::Host, &devices.host));
        let lanes = Arc::new(Lanes { lanes, limit });
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
        let name = format!("executor {}", self.core(index));
        state.thread = Some(std::thread::Builder::new().name(name).spawn(body)?);
        state.ended = Some(ended);
        Ok(())
    }

    pub fn core(&self, lane: usize) -> CoreId {
        self.lanes[lane].core
    }

    /// NPU cores.
    pub fn cores(&self) -> usize {
        self.lanes.len() - 1
    }

    /// Let a job wait for a lane.
    pub fn send(&self, lane: usize, job: Arc<dyn Job>) {
        let lane = &self.lanes[lane];
        let mut state = lane.state();
        state.jobs.push(job.share(), job.order(), job);
        lane.added(state);
    }

    /// Have a lane do something before its jobs.
    pub fn order(&self, lane: usize, order: Order) {
        let lane = &self.lanes[lane];
        let mut state = lane.state();
        state.orders.push_back(order);
        lane.added(state);
    }

    /// Drop the jobs that nobody wants any more.
    pub fn sweep(&self) {
        for lane in &self.lanes {
            let mut state = lane.state();
            let removed = state.jobs.remove(|job| job.is_over());
            lane.pending.fetch_sub(removed.len(), Ordering::SeqCst);
            drop(state);
            drop(removed);
        }
    }

    /// How often [`Lanes::watch`] should be called while something runs.
    pub fn tick(&self) -> Duration {
        (self.limit / 8).clamp(Duration::from_millis(1), Duration::from_millis(500))
    }

    /// Replace threads that are overdue or gone, and do what their work needs.
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
            let work = state.take_running();
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
            match work {
                Some(Work::Job(job)) => {
                    let cause = cause(&job.file().name);
                    job.failed(index, cause);
                }
                Some(Work::Order(Order::Open(opening))) => {
                    drop(opening.reply.send(Err(cause(&opening.file.name))));
                }
                Some(Work::Order(Order::Close(_) | Order::Stop)) | None => {}
            }
        }
    }

    /// Let the threads end. One that is stuck is left behind.
    pub fn stop(&self) {
        (0..self.lanes.len()).for_each(|lane| self.order(lane, Order::Stop));
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

    /// Count a failure of a lane's core; tells when it is set aside for it.
    pub fn strike(&self, lane: usize, shard: &str, cause: &str) -> Option<Incident> {
        let failures = self.lanes[lane].failures.fetch_add(1, Ordering::Relaxed) + 1;
        let core = self.core(lane);
        (failures == SET_ASIDE && core != CoreId::Host && self.lanes.len() > 2).then(|| {
            let cause = format!("{failures} failures in a row, the last: {cause}");
            Incident::new(shard, core, cause, Action::SetAside)
        })
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
}

impl Lane {
    fn state(&self) -> MutexGuard<'_, LaneState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something was added under the lock.
    fn added(&self, state: MutexGuard<'_, LaneState>) {
        self.pending.fetch_add(1, Ordering::SeqCst);
        let asleep = state.asleep;
        drop(state);
        if asleep {
            self.changed.notify_one();
        }
    }
}

impl LaneState {
    /// What is running no longer is; its client pays for it.
    fn take_running(&mut self) -> Option<Work> {
        let (work, since) = self.running.take()?;
        if let Work::Job(job) = &work {
            self.jobs.charge(job.share(), since.elapsed().as_secs_f64());
        }
        Some(work)
    }

    fn next(&mut self) -> Option<Work> {
        let order = self.orders.pop_front().map(Work::Order);
        order.or_else(|| self.jobs.pop().map(Work::Job))
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
    fn lane(&self) -> &Lane {
        &self.lanes.lanes[self.index]
    }

    fn serve(mut self) {
        while let Some(work) = self.next() {
            match work {
                Work::Order(Order::Stop) => break,
                Work::Order(Order::Open(opening)) => {
                    let result = self.open(opening.key, &opening.file).map_err(Cause::Failed);
                    if !self.end() {
                        break;
                    }
                    let _ = opening.reply.send(result);
                }
                Work::Order(Order::Close(closing)) => {
                    closing.keys.clone().for_each(|key| self.close(key));
                    if !self.end() {
                        break;
                    }
                }
                Work::Job(job) => {
                    let result = if job.is_over() { None } else { Some(self.run(&job)) };
                    if !self.end() {
                        break;
                    }
                    let entered = catch_unwind(AssertUnwindSafe(|| match result {
                        None => {}
                        Some(Ok(answer)) => job.clone().done(self.index, answer),
                        Some(Err(cause)) => job.clone().failed(self.index, cause),
                    }));
                    if entered.is_err() {
                        job.broken(self.index);
                    }
                }
            }
        }
        let keys: Vec<usize> = self.sessions.keys().copied().collect();
        keys.into_iter().for_each(|key| self.close(key));
    }

    /// Wait for work, which from then on can become overdue; `None` when this thread is not the lane's any more. A shard's successor
    /// on another core is mostly there within microseconds, sooner than a thread that sleeps wakes up: so look for
    /// [`AWAKE`], giving way to other threads, and then sleep.
    fn next(&self) -> Option<Work> {
        let lane = self.lane();
        let start = Instant::now();
        while lane.pending.load(Ordering::SeqCst) == 0 && start.elapsed() < AWAKE {
            std::thread::yield_now();
        }
        let mut state = lane.state();
        loop {
            if state.epoch != self.epoch {
                return None;
            }
            if let Some(work) = state.next() {
                lane.pending.fetch_sub(1, Ordering::SeqCst);
                state.running = Some((work.clone(), Instant::now()));
                return Some(work);
            }
            state.asleep = true;
            state = lane.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.asleep = false;
        }
    }

    /// Start the time of what is running anew. Gives whether this thread still is the lane's.
    fn begin_again(&self) -> bool {
        let mut state = self.lane().state();
        let ours = state.epoch == self.epoch;
        if let Some((_, since)) = state.running.as_mut().filter(|_| ours) {
            *since = Instant::now();
        }
        ours
    }

    /// What was running has ended. Gives whether this thread still is the lane's.
    fn end(&self) -> bool {
        let mut state = self.lane().state();
        let ours = state.epoch == self.epoch;
        let work = if ours { state.take_running() } else { None };
        drop(state);
        drop(work);
        ours
    }

    fn run(&mut self, job: &Arc<dyn Job>) -> Result<Answer, Cause> {
        let (key, file) = (job.key(), job.file());
        let core = self.lanes.core(self.index);
        if !self.sessions.contains_key(&key) {
            self.open(key, file).map_err(Cause::Failed)?;
            if !self.begin_again() {
                let detail = "it took too long to open";
                let error = DeviceError::new(DeviceErrorKind::Run, &file.name, core, detail);
                return Err(Cause::Failed(error));
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
            let (core, device) = (self.lane().core, &self.lane().device);
            let session = guarded(&file.name, core, || device.open(file, core))?;
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

/// What a device gives must be what the shard declares.
fn checked(
    file: &ShardFile,
    core: CoreId,
    completion: Completion<Value>,
) -> Result<Completion<Value>, DeviceError> {
    let fits = |(spec, v): (&TensorSpec, &Value)| {
        spec.shape == v.shape() && spec.dtype.is_float() == v.is_float()
    };
    let (declared, given) = (&file.outputs, &completion.outputs);
    if declared.len() == given.len() && declared.iter().zip(given).all(fits) {
        return Ok(completion);
    }
    let detail = format!("the device gave {given:?} instead of {declared:?}");
    Err(DeviceError::new(DeviceErrorKind::Run, &file.name, core, detail))
}

/// A panic in a device is a failed run of that shard, not the end of the process.
fn guarded<T>(
    shard: &str,
    core: CoreId,
    work: impl FnOnce() -> Result<T, DeviceError>,
) -> Result<T, DeviceError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        let detail = format!("the device panicked: {text}");
        Err(DeviceError::new(DeviceErrorKind::Run, shard, core, detail))
    })
}
