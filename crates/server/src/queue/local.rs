//! The queue of one process: threads that take work in fair order and do it on the cores. Jobs of several pictures are taken picture by picture, so that who asks for many
//! gets no more of the cores than who asks for one.

use super::fair::FairQueue;
use super::{Job, JobId, Load, Owed, Phase, Position, Queue, Refusal};
use crate::metrics::Metrics;
use crate::studio::{Done, Studio};
use crate::work::{Failure, FailureKind, Output, Terms, Times, Work};
use rockshard::Cancel;
use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long what came of a job is kept for who asks later.
pub const KEPT: Duration = Duration::from_secs(600);
/// Most jobs that are kept, and bytes of what came of them; the oldest are forgotten first.
const MOST_KEPT: usize = 256;
const MOST_KEPT_BYTES: usize = 256 << 20;
/// Most bytes of pictures in jobs that are not over.
const MOST_HELD: usize = 256 << 20;
/// Descriptions at a time: each has the language model on all cores of the host.
const DESCRIPTIONS: usize = 2;
/// How often threads that wait look for deadlines and old jobs.
const LOOK: Duration = Duration::from_millis(500);
/// Seconds that a unit of cost takes, before anything is known of it.
const FIRST_PACE: f64 = 0.25;
/// How much the last part counts in the pace.
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

/// A part of a job, which a thread does.
struct Task {
    part: Work,
    number: usize,
    terms: Terms,
    job: Arc<Job>,
}

/// A job that is not over.
struct Active {
    job: Arc<Job>,
    terms: Terms,
    work: Work,
    cancel: Cancel,
    /// When its first part was begun.
    began: Option<Instant>,
    /// What came of the parts that are done.
    done: Vec<Option<Done>>,
}

#[derive(Default)]
struct State {
    waiting: FairQueue<Task>,
    active: HashMap<JobId, Active>,
    describing: usize,
    /// Jobs that are over and kept, and when they ended.
    kept: VecDeque<(Instant, Arc<Job>)>,
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
        let active = {
            let mut state = self.shared.state();
            state.stopped = true;
            state.waiting.remove(|_| true);
            std::mem::take(&mut state.active)
        };
        self.shared.changed.notify_all();
        for active in active.into_values() {
            active.cancel.cancel();
            active.job.end(Err(cancelled()));
        }
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
        if state.jobs_waiting(None) >= limits.waiting {
            return refuse(Refusal::Full(wait), "queue_full");
        }
        let held: usize = state.active.values().map(|active| active.work.bytes()).sum();
        if held + work.bytes() > MOST_HELD {
            return refuse(Refusal::Full(wait), "queue_full");
        }
        if state.jobs_waiting(Some(&terms.client)) >= limits.waiting_of_client {
            return refuse(Refusal::TooMany(wait), "client_full");
        }
        let job = Arc::new(Job::new(&work, &terms.client));
        metrics.jobs_accepted.with_label_values(&[work.kind()]).inc();
        let parts = work.parts();
        let count = parts.len();
        for (number, part) in parts.into_iter().enumerate() {
            let (cost, weight) = (part.cost(), terms.priority.weight());
            let task = Task { part, number, terms: terms.clone(), job: job.clone() };
            state.waiting.push(&terms.client, task, cost, weight);
        }
        let active = Active {
            job: job.clone(),
            terms,
            work,
            cancel: Cancel::default(),
            began: None,
            done: (0..count).map(|_| None).collect(),
        };
        state.active.insert(job.id.clone(), active);
        drop(state);
        self.shared.changed.notify_all();
        Ok(job)
    }

    fn find(&self, id: &JobId) -> Option<Arc<Job>> {
        let state = self.shared.state();
        let kept = || state.kept.iter().map(|(_, job)| job).find(|job| job.id == *id);
        state.active.get(id).map(|active| &active.job).or_else(kept).cloned()
    }

    fn cancel(&self, id: &JobId) {
        self.shared.give_up(id, cancelled());
    }

    fn forget(&self, id: &JobId) {
        self.shared.state().kept.retain(|(_, job)| job.id != *id);
    }

    fn jobs_of(&self, client: &str) -> Vec<Arc<Job>> {
        let state = self.shared.state();
        let jobs = state.active.values().map(|active| &active.job);
        jobs.filter(|job| crate::http::Caller::is_of(&job.client, client)).cloned().collect()
    }

    fn position(&self, id: &JobId) -> Option<Position> {
        let state = self.shared.state();
        if state.active.get(id)?.began.is_some() {
            return None;
        }
        let before = state.waiting.ahead(|task| task.job.id == *id)?;
        let cost = before.iter().map(|(_, cost)| cost).sum();
        let waits = |id: &&JobId| state.active.get(*id).is_some_and(|a| a.began.is_none());
        let jobs: HashSet<&JobId> =
            before.iter().map(|(task, _)| &task.job.id).filter(waits).collect();
        let wait = state.wait_for(cost, self.shared.limits.running);
        Some(Position { ahead: jobs.len(), wait })
    }

    fn load(&self) -> Load {
        let state = self.shared.state();
        let waiting = state.jobs_waiting(None);
        Load {
            waiting,
            running: state.active.len() - waiting,
            limit: self.shared.limits.waiting,
            wait: state.wait_for(state.waiting.cost(), self.shared.limits.running),
            draining: state.draining,
        }
    }

    fn drain(&self) {
        self.shared.state().draining = true;
    }

    fn owed(&self) -> Owed {
        let state = self.shared.state();
        let unfetched = state.kept.iter().filter(|(_, job)| !job.is_fetched()).count();
        Owed { running: state.active.len(), unfetched }
    }
}

impl State {
    /// Jobs, of a client or of all, of which nothing is begun yet.
    fn jobs_waiting(&self, client: Option<&str>) -> usize {
        let waiting = self.active.values().filter(|active| active.began.is_none());
        waiting.filter(|active| client.is_none_or(|client| active.terms.client == client)).count()
    }

    /// About how long work of a cost takes.
    fn wait_for(&self, cost: f64, at_a_time: usize) -> Duration {
        let seconds = cost * self.pace.unwrap_or(FIRST_PACE) / at_a_time.max(1) as f64;
        Duration::from_secs_f64(seconds.clamp(0.0, 86_400.0))
    }

    /// Forget what was kept long enough; gives jobs whose deadline has passed before they were begun.
    fn sweep(&mut self) -> Vec<JobId> {
        let now = Instant::now();
        let mut bytes: usize = self.kept.iter().map(|(_, job)| job.bytes()).sum();
        while let Some((at, oldest)) = self.kept.front() {
            let old = now.duration_since(*at) > KEPT;
            if !old && bytes <= MOST_KEPT_BYTES && self.kept.len() <= MOST_KEPT {
                break;
            }
            // One that ends just now has more than it had.
            bytes = bytes.saturating_sub(oldest.bytes());
            self.kept.pop_front();
        }
        let late = |active: &&Active| {
            active.began.is_none() && active.terms.deadline.is_some_and(|deadline| deadline < now)
        };
        self.active.values().filter(late).map(|active| active.job.id.clone()).collect()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Do one part after the other.
    fn serve(&self) {
        while let Some((task, cancel)) = self.next() {
            let start = Instant::now();
            let work = || self.studio.work(&task.part, &task.terms, &cancel, &task.job);
            // A defect that one request meets must not take the thread from all others.
            let outcome = catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
                let message = "a defect of the server was met: its log says more".into();
                Err(Failure { kind: FailureKind::Device, message })
            });
            let took = start.elapsed().as_secs_f64();
            let mut state = self.state();
            state.describing -= usize::from(matches!(task.part, Work::Describe(_)));
            if outcome.is_ok() {
                let pace = took / task.part.cost().max(1e-9);
                let before = state.pace.unwrap_or(pace);
                state.pace = Some(before + (pace - before) * NEWEST);
            }
            // One that was given up is over already.
            if let Some(active) = state.active.get_mut(&task.job.id) {
                match outcome {
                    Ok(done) => {
                        active.done[task.number] = Some(done);
                        if active.done.iter().all(Option::is_some) {
                            self.over(state, &task.job.id, None);
                        }
                    }
                    Err(failure) => self.over(state, &task.job.id, Some(failure)),
                }
            }
            self.changed.notify_all();
        }
    }

    /// The next part, and what gives it up.
    fn next(&self) -> Option<(Task, Cancel)> {
        let mut state = self.state();
        loop {
            if state.stopped {
                return None;
            }
            let late = state.sweep();
            if !late.is_empty() {
                drop(state);
                late.iter().for_each(|id| self.give_up(id, too_late()));
                state = self.state();
                continue;
            }
            let describing = state.describing;
            let may = |task: &Task| matches!(task.part, Work::Draw(_)) || describing < DESCRIPTIONS;
            if let Some((_, entry)) = state.waiting.take(may) {
                let task = entry.item;
                // A job's parts are taken out with it.
                let Some(active) = state.active.get_mut(&task.job.id) else { continue };
                let cancel = active.cancel.clone();
                if active.began.replace(active.began.unwrap_or_else(Instant::now)).is_none() {
                    self.metrics.job_wait.observe(task.job.since.elapsed().as_secs_f64());
                    task.job.change(|state| state.phase = Phase::Running);
                }
                state.describing += usize::from(matches!(task.part, Work::Describe(_)));
                return Some((task, cancel));
            }
            let waited = self.changed.wait_timeout(state, LOOK);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Give a job up that is not over: parts that wait are taken out, those that run end between shards.
    fn give_up(&self, id: &JobId, failure: Failure) {
        let state = self.state();
        if state.active.contains_key(id) {
            self.over(state, id, Some(failure));
        }
    }

    /// A job is over: all its parts are done, or one of them failed.
    fn over(&self, mut state: MutexGuard<'_, State>, id: &JobId, failure: Option<Failure>) {
        let Some(active) = state.active.remove(id) else { return };
        state.waiting.remove(|task| task.job.id == *id);
        let Active { job, terms, work, cancel, began, done, .. } = active;
        if terms.keep {
            state.kept.push_back((Instant::now(), job.clone()));
        }
        drop(state);
        cancel.cancel();
        if let Some(began) = began {
            self.metrics.job_run.observe(began.elapsed().as_secs_f64());
        }
        let outcome = match failure {
            Some(failure) => Err(failure),
            None => Ok(gathered(&work, began, done.into_iter().flatten())),
        };
        let word = outcome.as_ref().map_or_else(|failure| failure.kind.word(), |_| "done");
        self.metrics.jobs_finished.with_label_values(&[work.kind(), word]).inc();
        match &outcome {
            Ok(Output::Pictures { pictures, .. }) => {
                self.metrics.pictures.inc_by(pictures.len() as u64);
            }
            Ok(Output::Words { tokens, .. }) => self.metrics.tokens.inc_by(tokens[1] as u64),
            Err(_) => {}
        }
        job.end(outcome);
    }
}

/// What came of a job, from what came of its parts.
fn gathered(work: &Work, began: Option<Instant>, parts: impl Iterator<Item = Done>) -> Output {
    let (mut all, mut modelled, mut dropped_tokens) = (Vec::new(), None, 0);
    for part in parts {
        match part {
            Done::Words(output) => return output,
            Done::Pictures(drawn) => {
                all.extend(drawn.pictures);
                modelled = drawn.modelled_ms.map(|ms| ms + modelled.unwrap_or(0.0));
                dropped_tokens = drawn.dropped_tokens;
            }
        }
    }
    let (format, size) = match work {
        Work::Draw(draw) => (draw.format, [draw.request.width, draw.request.height]),
        Work::Describe(_) => Default::default(),
    };
    let times = Times::since(began.unwrap_or_else(Instant::now), modelled);
    Output::Pictures { pictures: all, format, size, dropped_tokens, times }
}
