//! The queue of one process: threads that take work in fair order and do it on the cores.

use super::fair::FairQueue;
use super::{Job, JobId, Load, Owed, Phase, Position, Queue, Refusal};
use crate::metrics::Metrics;
use crate::studio::Studio;
use crate::work::{Failure, FailureKind, Output, Terms, Work};
use rockshard::{Cancel, Priority};
use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long what came of a job is kept for who asks later.
pub const KEPT: Duration = Duration::from_secs(600);
/// Most jobs that are kept; the oldest are forgotten first.
const MOST_KEPT: usize = 256;
/// Descriptions at a time: each has the language model on all cores of the host.
const DESCRIPTIONS: usize = 2;
/// How often threads that wait look for deadlines and old jobs.
const LOOK: Duration = Duration::from_millis(500);
/// How much the last job counts in the pace.
const NEWEST: f64 = 0.1;

/// How much a queue takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueLimits {
    /// Jobs that wait, of all clients.
    pub waiting: usize,
    /// Jobs of one client that wait.
    pub waiting_of_client: usize,
    /// Jobs that are done at a time.
    pub running: usize,
}

struct Task {
    work: Work,
    terms: Terms,
    job: Arc<Job>,
}

struct Running {
    cancel: Cancel,
    job: Arc<Job>,
    cost: f64,
}

#[derive(Default)]
struct State {
    waiting: FairQueue<Task>,
    running: HashMap<JobId, Running>,
    describing: usize,
    /// Jobs by name: all that are not over, and those that are kept.
    jobs: HashMap<JobId, Arc<Job>>,
    kept: VecDeque<(Instant, JobId)>,
    draining: bool,
    stopped: bool,
    /// Seconds that a unit of cost takes.
    pace: Option<f64>,
}

struct Shared {
    limits: QueueLimits,
    studio: Arc<Studio>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    changed: Condvar,
}

/// The queue of this process. Dropped, it gives up what waits and waits for what runs.
pub struct LocalQueue {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl LocalQueue {
    /// Start its threads.
    ///
    /// # Errors
    /// Threads that cannot be started.
    pub fn start(
        limits: QueueLimits,
        studio: Arc<Studio>,
        metrics: Arc<Metrics>,
    ) -> std::io::Result<Self> {
        let (state, changed) = (Mutex::default(), Condvar::new());
        let shared = Arc::new(Shared { limits, studio, metrics, state, changed });
        let mut queue = LocalQueue { shared, threads: Vec::new() };
        for number in 0..limits.running.max(1) {
            let shared = queue.shared.clone();
            let thread = std::thread::Builder::new().name(format!("work-{number}"));
            queue.threads.push(thread.spawn(move || shared.serve())?);
        }
        Ok(queue)
    }
}

impl Drop for LocalQueue {
    fn drop(&mut self) {
        let gone = {
            let mut state = self.shared.state();
            state.stopped = true;
            state.running.values().for_each(|running| running.cancel.cancel());
            state.waiting.remove(|_| true)
        };
        self.shared.changed.notify_all();
        gone.into_iter().for_each(|task| task.job.end(Err(cancelled())));
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn cancelled() -> Failure {
    Failure { kind: FailureKind::Cancelled, message: "it was cancelled".into() }
}

fn too_late() -> Failure {
    let message = "its deadline passed before it was begun".into();
    Failure { kind: FailureKind::TooLate, message }
}

fn weight(priority: Priority) -> f64 {
    match priority {
        Priority::Low => 0.25,
        Priority::Normal => 1.0,
        Priority::High => 4.0,
    }
}

impl Queue for LocalQueue {
    fn submit(&self, work: Work, terms: Terms) -> Result<Arc<Job>, Refusal> {
        let Shared { limits, metrics, .. } = &*self.shared;
        let mut state = self.shared.state();
        let refuse = |refusal, reason| {
            metrics.jobs_refused.with_label_values(&[reason]).inc();
            Err(refusal)
        };
        if state.draining || state.stopped {
            return refuse(Refusal::Draining, "draining");
        }
        let wait = state.wait_for(state.waiting.cost(), limits.running);
        if state.waiting.len() >= limits.waiting {
            return refuse(Refusal::Full(wait), "queue_full");
        }
        if state.waiting.len_of(&terms.client) >= limits.waiting_of_client {
            return refuse(Refusal::TooMany(wait), "client_full");
        }
        let job = Arc::new(Job::new(work.kind(), work.pack(), &terms.client, work.pieces()));
        metrics.jobs_accepted.with_label_values(&[work.kind()]).inc();
        state.jobs.insert(job.id.clone(), job.clone());
        let (client, cost) = (terms.client.clone(), work.cost());
        let weight = weight(terms.priority);
        state.waiting.push(&client, Task { work, terms, job: job.clone() }, cost, weight);
        drop(state);
        self.shared.changed.notify_one();
        Ok(job)
    }

    fn find(&self, id: &JobId) -> Option<Arc<Job>> {
        self.shared.state().jobs.get(id).cloned()
    }

    fn cancel(&self, id: &JobId) {
        let removed = {
            let mut state = self.shared.state();
            if let Some(running) = state.running.get(id) {
                running.cancel.cancel();
                return;
            }
            state.waiting.remove(|task| task.job.id == *id)
        };
        removed.into_iter().for_each(|task| self.shared.over(&task, Err(cancelled())));
    }

    fn forget(&self, id: &JobId) {
        let mut state = self.shared.state();
        if state.jobs.get(id).is_some_and(|job| job.is_over()) {
            state.jobs.remove(id);
            state.kept.retain(|(_, kept)| kept != id);
        }
    }

    fn jobs_of(&self, client: &str) -> Vec<Arc<Job>> {
        let state = self.shared.state();
        let own = state.jobs.values().filter(|job| job.client == client && !job.is_over());
        own.cloned().collect()
    }

    fn position(&self, id: &JobId) -> Option<Position> {
        let state = self.shared.state();
        let (ahead, cost) = state.waiting.ahead(|task| task.job.id == *id)?;
        let running: f64 = state.running.values().map(Running::left).sum();
        Some(Position { ahead, wait: state.wait_for(cost + running, self.shared.limits.running) })
    }

    fn load(&self) -> Load {
        let state = self.shared.state();
        let running: f64 = state.running.values().map(Running::left).sum();
        let cost = state.waiting.cost() + running;
        Load {
            waiting: state.waiting.len(),
            running: state.running.len(),
            limit: self.shared.limits.waiting,
            wait: state.wait_for(cost, self.shared.limits.running),
            draining: state.draining,
        }
    }

    fn drain(&self) {
        self.shared.state().draining = true;
    }

    fn owed(&self) -> Owed {
        let state = self.shared.state();
        let running = state.jobs.values().filter(|job| !job.is_over()).count();
        let unfetched = state.jobs.values().filter(|job| job.is_over() && !job.is_fetched());
        Owed { running, unfetched: unfetched.count() }
    }
}

impl Running {
    /// The cost of what is left of it.
    fn left(&self) -> f64 {
        let done = self.job.state_done() as f64 / self.job.pieces.max(1) as f64;
        self.cost * (1.0 - done.min(1.0))
    }
}

impl State {
    /// About how long work of a cost takes.
    fn wait_for(&self, cost: f64, at_a_time: usize) -> Duration {
        let seconds = cost * self.pace.unwrap_or(0.25) / at_a_time.max(1) as f64;
        Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
    }

    /// Take out what is past its deadline, and forget what was kept long enough.
    fn sweep(&mut self) -> Vec<Task> {
        let now = Instant::now();
        let surplus = self.kept.len().saturating_sub(MOST_KEPT);
        let old = self.kept.iter().take_while(|(at, _)| now.duration_since(*at) > KEPT).count();
        for (_, id) in self.kept.drain(..old.max(surplus)) {
            self.jobs.remove(&id);
        }
        self.waiting.remove(|task| task.terms.deadline.is_some_and(|deadline| deadline < now))
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Do one work after the other.
    fn serve(&self) {
        while let Some((task, cancel)) = self.next() {
            self.metrics.job_wait.observe(task.job.since.elapsed().as_secs_f64());
            let start = Instant::now();
            let work = || self.studio.work(&task.work, &task.terms, &cancel, &task.job);
            // A defect that one request meets must not take the thread from all others.
            let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                let message = "a defect of the server was met: its log says more".into();
                Err(Failure { kind: FailureKind::Device, message })
            });
            let took = start.elapsed().as_secs_f64();
            self.metrics.job_run.observe(took);
            {
                let mut state = self.state();
                state.running.remove(&task.job.id);
                state.describing -= usize::from(matches!(task.work, Work::Describe(_)));
                if outcome.is_ok() {
                    let pace = took / task.work.cost().max(1e-9);
                    let before = state.pace.unwrap_or(pace);
                    state.pace = Some(before + (pace - before) * NEWEST);
                }
            }
            self.over(&task, outcome);
            self.changed.notify_all();
        }
    }

    /// The next work, marked as running.
    fn next(&self) -> Option<(Task, Cancel)> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return None;
            }
            let late = state.sweep();
            if !late.is_empty() {
                drop(state);
                late.iter().for_each(|task| self.over(task, Err(too_late())));
                state = self.state();
                continue;
            }
            let describing = state.describing;
            let may = |task: &Task| matches!(task.work, Work::Draw(_)) || describing < DESCRIPTIONS;
            if let Some((_, entry)) = state.waiting.take(may) {
                let (task, cancel) = (entry.item, Cancel::default());
                let (job, cost) = (task.job.clone(), entry.cost);
                state.describing += usize::from(matches!(task.work, Work::Describe(_)));
                job.change(|state| state.phase = Phase::Running);
                let running = Running { cancel: cancel.clone(), job: job.clone(), cost };
                state.running.insert(job.id.clone(), running);
                return Some((task, cancel));
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// A job is over.
    fn over(&self, task: &Task, outcome: Result<Output, Failure>) {
        let word = match &outcome {
            Ok(_) => "done",
            Err(failure) => failure.kind.word(),
        };
        self.metrics.jobs_finished.with_label_values(&[task.work.kind(), word]).inc();
        match &outcome {
            Ok(Output::Pictures { pictures, .. }) => {
                self.metrics.pictures.inc_by(pictures.len() as u64);
            }
            Ok(Output::Words { tokens, .. }) => self.metrics.tokens.inc_by(tokens[1] as u64),
            Err(_) => {}
        }
        let id = &task.job.id;
        {
            let mut state = self.state();
            if task.terms.keep {
                state.kept.push_back((Instant::now(), id.clone()));
            } else {
                state.jobs.remove(id);
            }
        }
        task.job.end(outcome);
    }
}
