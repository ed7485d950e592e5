//! What ran, and when: measured on this machine, and placed on the virtual clock.

use crate::Incident;
use rockshard_clock::{Memory, Phase, Schedule, Span, Task, simulate, timeline_svg};
use rockshard_manifest::CoreId;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};

/// One run of one shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShardRun {
    /// Number of the run it belonged to.
    pub run: u64,
    /// Item of that run.
    pub item: usize,
    /// Model.
    pub model: String,
    /// Shard.
    pub shard: String,
    /// Position of the shard in its model.
    pub order: usize,
    /// Positions of the shards it waited for.
    pub needs: Vec<usize>,
    /// Core it ran on.
    pub core: CoreId,
    /// Measured start on this machine, microseconds since the cores were taken.
    pub start_us: f64,
    /// Measured end.
    pub end_us: f64,
    /// Modelled time on the NPU in microseconds; `None` on the host.
    pub modelled_us: Option<f64>,
    /// The part of it that waits for the memory.
    pub streaming_us: f64,
    /// Bytes that crossed into the shard.
    pub bytes_in: u64,
    /// Bytes that crossed out.
    pub bytes_out: u64,
    /// How often it was tried, this run included; more than once after a fault.
    pub tries: usize,
}

/// When a run was submitted and when it was over, in the order of all such events of the process. A run follows those that were over
/// when it was submitted; others overlap it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Submission {
    /// Number of the run.
    pub run: u64,
    /// Place of its submission in that order.
    pub submitted: u64,
    /// Place of its end.
    pub ended: u64,
}

/// What ran for one run, or for several.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Trace {
    /// Runs of shards, run by run, in the order in which they ended.
    pub shard_runs: Vec<ShardRun>,
    /// The runs.
    pub submissions: Vec<Submission>,
    /// Faults that were met, and what was done about them.
    pub incidents: Vec<Incident>,
}

/// A run of a shard placed on a clock, the modelled or the measured one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScheduledRun {
    /// Index into [`Trace::shard_runs`].
    pub run: usize,
    /// Start in microseconds.
    pub start_us: f64,
    /// End.
    pub end_us: f64,
}

impl Trace {
    /// Add what another trace has.
    pub fn extend(&mut self, other: Trace) {
        self.shard_runs.extend(other.shard_runs);
        self.submissions.extend(other.submissions);
        self.incidents.extend(other.incidents);
    }

    /// Place all shard runs on the virtual clock: each core does one at a time, first come first served, cores share the memory, and
    /// a run starts when those that it follows have ended; runs that overlapped share the cores. Host work takes no modelled
    /// time: it is not modelled. The result does not depend on how shards interleaved on this machine.
    pub fn modelled(&self) -> Vec<ScheduledRun> {
        let (order, tasks) = self.tasks();
        let spans = simulate(&tasks, Memory::default()).spans;
        let place = |(&run, span): (&usize, Span)| ScheduledRun {
            run,
            start_us: span.start_us,
            end_us: span.end_us,
        };
        order.iter().zip(spans).map(place).collect()
    }

    /// The shard runs as the clock's tasks, and the shard run of each.
    fn tasks(&self) -> (Vec<usize>, Vec<Task>) {
        let mut submissions = self.submissions.clone();
        submissions.sort_by_key(|s| s.submitted);
        let place: HashMap<u64, usize> =
            submissions.iter().enumerate().map(|(i, s)| (s.run, i)).collect();
        let mut order: Vec<usize> = (0..self.shard_runs.len()).collect();
        let key = |r: &ShardRun| (place.get(&r.run).copied(), r.item, r.order);
        order.sort_by_key(|&i| key(&self.shard_runs[i]));
        // The tasks of each run that no other of it needs.
        let mut last: HashMap<u64, BTreeSet<usize>> = HashMap::new();
        let mut tasks: Vec<Task> = Vec::with_capacity(order.len());
        let mut places: HashMap<(u64, usize, usize), usize> = HashMap::new();
        for &index in &order {
            let r = &self.shard_runs[index];
            let own = last.entry(r.run).or_default();
            let made = r.needs.iter().filter_map(|&n| places.get(&(r.run, r.item, n)).copied());
            let mut needs: Vec<usize> = made.collect();
            needs.iter().for_each(|need| {
                own.remove(need);
            });
            own.insert(tasks.len());
            if needs.is_empty() {
                let before = place.get(&r.run).map_or(&[][..], |&i| &submissions[..i]);
                let own = place.get(&r.run).map(|&i| submissions[i]);
                for run in own.iter().flat_map(|own| follows(before, own)) {
                    needs.extend(last.get(&run).into_iter().flatten());
                }
            }
            places.insert((r.run, r.item, r.order), tasks.len());
            let cores = if let CoreId::Npu(n) = r.core { vec![n] } else { Vec::new() };
            let micros = r.modelled_us.unwrap_or(0.0);
            tasks.push(Task {
                name: r.shard.clone(),
                model: r.model.clone(),
                item: r.item,
                cores,
                needs,
                phases: vec![Phase { micros, streaming: r.streaming_us }],
            });
        }
        (order, tasks)
    }

    /// Whether any run has a modelled time.
    pub fn is_modelled(&self) -> bool {
        self.shard_runs.iter().any(|r| r.modelled_us.is_some())
    }

    /// All runs as measured on this machine, from the first one's start.
    pub fn measured(&self) -> Vec<ScheduledRun> {
        let first = self.shard_runs.iter().map(|r| r.start_us).fold(f64::INFINITY, f64::min);
        let place = |(run, r): (usize, &ShardRun)| ScheduledRun {
            run,
            start_us: r.start_us - first,
            end_us: r.end_us - first,
        };
        self.shard_runs.iter().enumerate().map(place).collect()
    }

    /// Modelled time from first start to last end, in microseconds.
    pub fn modelled_total_us(&self) -> f64 {
        self.modelled().iter().map(|s| s.end_us).fold(0.0, f64::max)
    }

    /// The timeline as a self-contained SVG: the modelled one, or the measured one where the device models nothing.
    pub fn timeline_svg(&self) -> String {
        let (order, tasks) = self.tasks();
        let (word, mut runs) = if self.is_modelled() {
            ("modelled", self.modelled())
        } else {
            ("measured", self.measured())
        };
        runs.sort_by_key(|r| r.run);
        let span = |(task, &run): (usize, &usize)| {
            let ScheduledRun { start_us, end_us, .. } = runs[run];
            Span { task, ready_us: start_us, start_us, end_us }
        };
        let spans = order.iter().enumerate().map(span).collect();
        timeline_svg("Timeline", word, &tasks, &Schedule { spans })
    }
}

/// The runs before `own` that it follows: over when it was submitted, and no other one that is over by then follows them.
fn follows(before: &[Submission], own: &Submission) -> Vec<u64> {
    let over: Vec<&Submission> = before.iter().filter(|s| s.ended < own.submitted).collect();
    let latest = over.iter().map(|s| s.submitted).max();
    over.iter().filter(|s| latest.is_none_or(|l| s.ended > l)).map(|s| s.run).collect()
}
