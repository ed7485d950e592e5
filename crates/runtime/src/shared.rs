//! What runs, lanes and the keeper share: the lanes, the ledger of memory, and which lane an item or a shard goes to.

use crate::executor::Lanes;
use crate::keeper::Bell;
use crate::ledger::{Ledger, Waiting};
use crate::loaded::{LoadedModel, LoadedShard};
use crate::run::Run;
use rockshard_manifest::CoreId;
use rockshard_pack::Mode;
use std::sync::atomic::{AtomicIsize, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Instant;

pub(crate) struct Shared {
    pub lanes: Arc<Lanes>,
    pub ledger: Ledger,
    pub bell: Bell,
    started: Instant,
    /// Items of replicated runs that are under way on each NPU core.
    items: Vec<AtomicUsize>,
    /// Runs that are active.
    active: AtomicIsize,
    runs: AtomicU64,
    ticks: AtomicU64,
    keys: AtomicUsize,
    deadlines: Mutex<Vec<(Instant, Weak<Run>)>>,
}

impl Shared {
    pub fn new(lanes: Arc<Lanes>, ledger: Ledger) -> Self {
        let items = (0..lanes.cores()).map(|_| AtomicUsize::new(0)).collect();
        Shared {
            lanes,
            ledger,
            bell: Bell::default(),
            started: Instant::now(),
            items,
            active: AtomicIsize::new(0),
            runs: AtomicU64::new(0),
            ticks: AtomicU64::new(0),
            keys: AtomicUsize::new(0),
            deadlines: Mutex::default(),
        }
    }

    /// Microseconds since the cores were taken.
    pub fn micros(&self, at: Instant) -> f64 {
        at.saturating_duration_since(self.started).as_secs_f64() * 1e6
    }

    pub fn next_run(&self) -> u64 {
        self.runs.fetch_add(1, Ordering::Relaxed)
    }

    /// The order of events of runs.
    pub fn tick(&self) -> u64 {
        self.ticks.fetch_add(1, Ordering::SeqCst)
    }

    /// The first of `count` session keys that nobody else has.
    pub fn take_keys(&self, count: usize) -> usize {
        // A model without shards has a key too: the ledger knows it by that.
        self.keys.fetch_add(count.max(1), Ordering::Relaxed)
    }

    /// A run became active, or ended.
    pub fn active_runs(&self, change: isize) {
        self.active.fetch_add(change, Ordering::SeqCst);
        if change > 0 {
            self.bell.wake_if_idle();
        }
    }

    /// Whether something may hang.
    pub fn is_busy(&self) -> bool {
        self.active.load(Ordering::SeqCst) > 0
    }

    /// The core for an item of a replicated run: in turn where the run has the cores to itself, so that timelines do not depend on
    /// measured times; else the one with the fewest items.
    pub fn take_lane(&self, item: usize) -> usize {
        let cores = self.items.len();
        let lane = if self.active.load(Ordering::SeqCst) <= 1 {
            item % cores
        } else {
            let load = |&lane: &usize| self.items[lane].load(Ordering::SeqCst);
            (0..cores).min_by_key(load).unwrap_or(0)
        };
        self.items[lane].fetch_add(1, Ordering::SeqCst);
        lane
    }

    /// An item is no longer on its way.
    pub fn give_lane(&self, lane: usize) {
        self.items[lane].fetch_sub(1, Ordering::SeqCst);
    }

    /// The lanes that may run a shard, the preferred ones first.
    pub fn candidates(&self, shard: &LoadedShard, mode: Mode, home: usize) -> Vec<usize> {
        let first = self.home(shard, mode, home);
        if shard.core == CoreId::Host {
            return vec![first];
        }
        let cores = self.lanes.cores();
        let mut lanes: Vec<usize> = (0..cores).map(|i| (first + i) % cores).collect();
        lanes.sort_by_key(|&lane| !self.is_good(shard, lane));
        lanes
    }

    /// The lane that runs a shard next.
    pub fn first(&self, shard: &LoadedShard, mode: Mode, home: usize) -> usize {
        let lane = self.home(shard, mode, home);
        if self.is_good(shard, lane) { lane } else { self.candidates(shard, mode, home)[0] }
    }

    /// The lane that runs a shard as long as nothing is wrong with it.
    fn home(&self, shard: &LoadedShard, mode: Mode, home: usize) -> usize {
        let cores = self.lanes.cores();
        match (shard.core, mode) {
            (CoreId::Host, _) => cores,
            (CoreId::Npu(pinned), Mode::Pipeline) => usize::from(pinned) % cores,
            (CoreId::Npu(_), Mode::Replicate) => home,
        }
    }

    fn is_good(&self, shard: &LoadedShard, lane: usize) -> bool {
        !self.lanes.is_set_aside(lane) && !shard.is_shut_out(lane)
    }

    /// Start a run when its model is open.
    pub fn wait_for(&self, run: Arc<Run>) {
        if self.ledger.enter(Waiting::Run(run.clone())) {
            run.start();
        } else {
            self.bell.ring();
        }
    }

    /// A use of a model has ended.
    pub fn leave(&self, model: &LoadedModel) {
        if self.ledger.leave(model) {
            self.bell.ring();
        }
    }

    fn deadlines(&self) -> MutexGuard<'_, Vec<(Instant, Weak<Run>)>> {
        self.deadlines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Give a run up at its deadline.
    pub fn watch_deadline(&self, run: &Arc<Run>) {
        if let Some(deadline) = run.deadline() {
            self.deadlines().push((deadline, Arc::downgrade(run)));
            self.bell.ring();
        }
    }

    /// The runs whose deadline has passed, and the next deadline.
    pub fn due(&self) -> (Vec<Arc<Run>>, Option<Instant>) {
        let (now, mut due) = (Instant::now(), Vec::new());
        let mut deadlines = self.deadlines();
        deadlines.retain(|(at, run)| match run.upgrade().filter(|run| !run.is_over()) {
            Some(run) if *at <= now => {
                due.push(run);
                false
            }
            found => found.is_some(),
        });
        (due, deadlines.iter().map(|(at, _)| *at).min())
    }
}
