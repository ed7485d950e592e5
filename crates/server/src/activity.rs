//! What the cores do just now, as runs tell of it.

use rockshard::{CoreId, Event, Observer, ShardRun};
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long is remembered.
const REMEMBERED: Duration = Duration::from_secs(2);
/// The time over which a core's busy share is told.
const WINDOW_US: f64 = 1e6;
/// Short runs of one model that follow each other within this time are told as one, up to this length: a chain of small shards has thousands a second.
const GAP_US: f64 = 2e3;
const SPAN_US: f64 = 2e4;

/// A run of a shard, or several short ones.
#[derive(Clone, Debug, Serialize)]
pub struct RecentRun {
    /// Number of the core.
    pub core: u8,
    /// Model.
    pub model: String,
    /// Shard, the last one of several.
    pub shard: String,
    /// Measured start and end, in microseconds of the server's clock.
    pub start_us: f64,
    /// End.
    pub end_us: f64,
    /// What the NPU would take, as modelled, in microseconds.
    pub modelled_us: Option<f64>,
    /// Microseconds of it in which the core was busy.
    #[serde(skip)]
    busy_us: f64,
}

impl RecentRun {
    fn is_followed_by(&self, next: &RecentRun) -> bool {
        self.model == next.model
            && next.start_us - self.end_us < GAP_US
            && next.end_us - self.start_us < SPAN_US
    }

    fn extend(&mut self, next: RecentRun) {
        self.shard = next.shard;
        self.end_us = next.end_us;
        self.busy_us += next.busy_us;
        self.modelled_us =
            self.modelled_us.zip(next.modelled_us).map(|(before, more)| before + more);
    }
}

/// A core.
#[derive(Clone, Debug, Serialize)]
pub struct CoreActivity {
    /// Number.
    pub core: u8,
    /// Share of the last second in which it was busy, measured, 0 to 1.
    pub busy: f64,
    /// Model and shard that it ran last.
    pub model: Option<String>,
    /// Shard.
    pub shard: Option<String>,
    /// Runs of shards since the server was started.
    pub runs: u64,
    /// Seconds in which it was busy, measured.
    #[serde(skip)]
    pub busy_s: f64,
    /// The same, modelled.
    #[serde(skip)]
    pub modelled_s: f64,
}

struct State {
    recent: VecDeque<(Instant, RecentRun)>,
    cores: Vec<CoreActivity>,
}

/// What the cores do.
pub struct Activity {
    started: Instant,
    state: Mutex<State>,
}

impl Activity {
    /// Of so many cores.
    pub fn new(cores: u8) -> Arc<Self> {
        let core = |core| CoreActivity {
            core,
            busy: 0.0,
            model: None,
            shard: None,
            runs: 0,
            busy_s: 0.0,
            modelled_s: 0.0,
        };
        let state = State { recent: VecDeque::new(), cores: (0..cores).map(core).collect() };
        Arc::new(Activity { started: Instant::now(), state: Mutex::new(state) })
    }

    /// What runs are watched with.
    pub fn observer(self: &Arc<Self>) -> Observer {
        let activity = self.clone();
        Observer::new(move |event| {
            if let Event::Shard(run) = event {
                activity.ran(run);
            }
        })
    }

    /// Microseconds on the server's clock.
    pub fn now_us(&self) -> f64 {
        self.started.elapsed().as_secs_f64() * 1e6
    }

    fn ran(&self, run: &ShardRun) {
        let CoreId::Npu(core) = run.core else { return };
        let (now, took) = (self.now_us(), run.end_us - run.start_us);
        let recent = RecentRun {
            core,
            model: run.model.clone(),
            shard: run.shard.clone(),
            start_us: now - took,
            end_us: now,
            modelled_us: run.modelled_us,
            busy_us: took,
        };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = state.cores.get_mut(usize::from(core)) {
            own.runs += 1;
            own.busy_s += took / 1e6;
            own.modelled_s += run.modelled_us.unwrap_or(0.0) / 1e6;
            (own.model, own.shard) = (Some(run.model.clone()), Some(run.shard.clone()));
        }
        let last = state.recent.iter_mut().rev().map(|(_, last)| last).find(|r| r.core == core);
        match last.filter(|last| last.is_followed_by(&recent)) {
            Some(last) => last.extend(recent),
            None => state.recent.push_back((Instant::now(), recent)),
        }
        while state.recent.front().is_some_and(|(at, _)| at.elapsed() > REMEMBERED) {
            state.recent.pop_front();
        }
    }

    /// The cores, and what ran in the last two seconds.
    pub fn now(&self) -> (Vec<CoreActivity>, Vec<RecentRun>) {
        let now = self.now_us();
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh = state.recent.iter().filter(|(at, _)| at.elapsed() <= REMEMBERED);
        let recent: Vec<RecentRun> = fresh.map(|(_, run)| run.clone()).collect();
        let busy = |core: u8| {
            let own = recent.iter().filter(|run| run.core == core);
            let within = own.map(|run| {
                let long = (run.end_us - run.start_us).max(f64::MIN_POSITIVE);
                let inside = (run.end_us - run.start_us.max(now - WINDOW_US)).max(0.0);
                run.busy_us * inside / long
            });
            (within.sum::<f64>() / WINDOW_US).clamp(0.0, 1.0) + 0.0
        };
        let cores = state.cores.iter().map(|c| CoreActivity { busy: busy(c.core), ..c.clone() });
        (cores.collect(), recent)
    }
}
