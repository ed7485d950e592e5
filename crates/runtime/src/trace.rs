use crate::Incident;
use rockshard_manifest::CoreId;
use serde::Serialize;
use std::collections::HashMap;

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
    /// Place all runs on the modelled clock: each core does one run at a time, a run starts when the shards it needs are done,
    /// calls follow one another, and among runs that could start at once the earlier item goes first. Host work takes no
    /// modelled time: it is not modelled. The result does not depend on how the runs interleaved on this machine.
    pub fn modelled(&self) -> Vec<ScheduledRun> {
        let mut order: Vec<usize> = (0..self.runs.len()).collect();
        order.sort_by_key(|&i| (self.runs[i].call, self.runs[i].item, self.runs[i].order));
        let mut free: HashMap<CoreId, f64> = HashMap::new();
        let mut ends: HashMap<(usize, usize, usize), f64> = HashMap::new();
        let mut scheduled = Vec::with_capacity(order.len());
        let mut floor = 0.0f64;
        let mut at = 0;
        while at < order.len() {
            let call = self.runs[order[at]].call;
            let size = order[at..].iter().take_while(|&&i| self.runs[i].call == call).count();
            let mut waiting = order[at..at + size].to_vec();
            while !waiting.is_empty() {
                // Earliest possible start among runs whose needs are placed; ties go to the earlier item and shard.
                let start_of = |i: usize| {
                    let run = &self.runs[i];
                    let ready = run.needs.iter().map(|&n| ends.get(&(call, run.item, n)).copied()).collect::<Option<Vec<_>>>()?;
                    let ready = ready.into_iter().fold(floor, f64::max);
                    Some(if run.core == CoreId::Host { ready } else { ready.max(free.get(&run.core).copied().unwrap_or(0.0)) })
                };
                let best = waiting.iter().enumerate().filter_map(|(w, &i)| start_of(i).map(|s| (w, s))).min_by(|a, b| a.1.total_cmp(&b.1));
                let Some((w, start_us)) = best else { break };
                let i = waiting.remove(w);
                let run = &self.runs[i];
                let end_us = start_us + run.modelled_us.unwrap_or(0.0);
                ends.insert((call, run.item, run.order), end_us);
                if run.core != CoreId::Host {
                    free.insert(run.core, end_us);
                }
                scheduled.push(ScheduledRun { run: i, start_us, end_us });
            }
            floor = scheduled.iter().map(|s| s.end_us).fold(floor, f64::max);
            at += size;
        }
        scheduled
    }

    /// Whether any run has a modelled time.
    pub fn is_modelled(&self) -> bool {
        self.runs.iter().any(|r| r.modelled_us.is_some())
    }

    /// All runs as measured on this machine, from the first one's start.
    pub fn measured(&self) -> Vec<ScheduledRun> {
        let first = self.runs.iter().map(|r| r.start_us).fold(f64::INFINITY, f64::min);
        let place = |(run, r): (usize, &ShardRun)| ScheduledRun { run, start_us: r.start_us - first, end_us: r.end_us - first };
        self.runs.iter().enumerate().map(place).collect()
    }

    /// Modelled time from first start to last end, in microseconds.
    pub fn modelled_total_us(&self) -> f64 {
        self.modelled().iter().map(|s| s.end_us).fold(0.0, f64::max)
    }
}
