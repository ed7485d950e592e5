use crate::Incident;
use rockshard_clock::{Memory, Phase, Schedule, Span, Task, simulate, timeline_svg};
use rockshard_manifest::CoreId;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};

/// One run of one shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShardRun {
    /// Which call of the runner it belonged to; calls follow one another.
    pub call: usize,
    /// Item of that call.
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
    /// Measured start on this machine, microseconds since the shards were loaded.
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

/// Everything a runner ran.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Trace {
    /// Runs, call by call, in the order in which they ended.
    pub runs: Vec<ShardRun>,
    /// Faults that were met, and what was done about them.
    pub incidents: Vec<Incident>,
}

/// A run placed on a clock, the modelled or the measured one.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ScheduledRun {
    /// Index into [`Trace::runs`].
    pub run: usize,
    /// Start in microseconds.
    pub start_us: f64,
    /// End.
    pub end_us: f64,
}

impl Trace {
    /// Place all runs on the virtual clock: each core does one run at a time, first come first served, cores share the memory, and calls
    /// follow one another. Host work takes no modelled time: it is not modelled. The result does not depend on how the runs interleaved on
    /// this machine.
    pub fn modelled(&self) -> Vec<ScheduledRun> {
        let (order, tasks) = self.tasks();
        let spans = simulate(&tasks, Memory::default()).spans;
        order
            .iter()
            .zip(spans)
            .map(|(&run, span)| ScheduledRun { run, start_us: span.start_us, end_us: span.end_us })
            .collect()
    }

    /// The runs as the clock's tasks, and the run of each.
    fn tasks(&self) -> (Vec<usize>, Vec<Task>) {
        let mut order: Vec<usize> = (0..self.runs.len()).collect();
        order.sort_by_key(|&i| (self.runs[i].call, self.runs[i].item, self.runs[i].order));
        let mut tasks: Vec<Task> = Vec::with_capacity(order.len());
        let mut places: HashMap<(usize, usize), usize> = HashMap::new();
        // Tasks of the call so far that no other needs, and those of the call before.
        let (mut call, mut last, mut before): (_, BTreeSet<usize>, BTreeSet<usize>) =
            (None, BTreeSet::new(), BTreeSet::new());
        for &run in &order {
            let r = &self.runs[run];
            if call != Some(r.call) {
                call = Some(r.call);
                before = std::mem::take(&mut last);
                places.clear();
            }
            let mut needs: Vec<usize> =
                r.needs.iter().filter_map(|&n| places.get(&(r.item, n)).copied()).collect();
            for need in &needs {
                last.remove(need);
            }
            if needs.is_empty() {
                needs.extend(&before);
            }
            last.insert(tasks.len());
            places.insert((r.item, r.order), tasks.len());
            let cores = if let CoreId::Npu(n) = r.core { vec![n] } else { Vec::new() };
            let phases =
                vec![Phase { micros: r.modelled_us.unwrap_or(0.0), streaming: r.streaming_us }];
            tasks.push(Task {
                name: r.shard.clone(),
                model: r.model.clone(),
                item: r.item,
                cores,
                needs,
                phases,
            });
        }
        (order, tasks)
    }

    /// Whether any run has a modelled time.
    pub fn is_modelled(&self) -> bool {
        self.runs.iter().any(|r| r.modelled_us.is_some())
    }

    /// All runs as measured on this machine, from the first one's start.
    pub fn measured(&self) -> Vec<ScheduledRun> {
        let first = self.runs.iter().map(|r| r.start_us).fold(f64::INFINITY, f64::min);
        let place = |(run, r): (usize, &ShardRun)| ScheduledRun {
            run,
            start_us: r.start_us - first,
            end_us: r.end_us - first,
        };
        self.runs.iter().enumerate().map(place).collect()
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
