//! What the virtual clock says of a mode: one item alone, and a stream long enough that its start does not count.

use crate::{Mode, ModelCost, tasks};
use rockshard_clock::{Memory, Phase, Schedule, Task, simulate};
use rockshard_manifest::CoreId;
use rockshard_pack::Footprint;
use serde::Serialize;

/// Items of a stream, per core, and those at its start that are not counted.
const STREAM: usize = 8;
const WARM: usize = 3;

/// What the time of all cores goes to, from the first task to the last end; shares of 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Shares {
    /// Operators that compute.
    pub compute: f64,
    /// Operators that move elements.
    pub moving: f64,
    /// Calls, and layouts that change at boundaries.
    pub calls: f64,
    /// Waiting for the memory that the cores share.
    pub memory: f64,
    /// Idle.
    pub idle: f64,
}

/// Modelled figures of a model in a mode.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Mode.
    pub mode: Mode,
    /// Cores.
    pub cores: u8,
    /// Microseconds of one item alone.
    pub latency_us: f64,
    /// Microseconds between the ends of two items of a stream, in steady state.
    pub interval_us: f64,
    /// Share of that time in which each core is busy.
    pub busy: Vec<f64>,
    /// What the cores' time goes to: of one item in `split` and `mask`, of the stream in the others.
    pub shares: Shares,
    /// Bytes resident on the device: all weights (shared by the cores in `replicate`), and one set of activations a core.
    pub resident_bytes: u64,
}

/// Let a model run in a mode.
pub fn figures(model: &ModelCost, mode: Mode, cores: u8, memory: Memory) -> Figures {
    let one = tasks(model, mode, cores, 1);
    let alone = simulate(&one, memory);
    let cores = cores.max(1);
    // Ends at a multiple of the cores, at which every core has done as many items.
    let (items, warm) = (STREAM * usize::from(cores), WARM * usize::from(cores));
    let many = tasks(model, mode, cores, items);
    let stream = simulate(&many, memory);
    let count = model.shards.len();
    let mut ends = vec![0.0f64; items];
    for span in &stream.spans {
        let item = span.task / count.max(1);
        ends[item] = ends[item].max(span.end_us);
    }
    ends.sort_by(f64::total_cmp);
    // The last items run beside fewer and fewer others.
    let (from, to) = (ends[warm - 1], ends[items - warm - 1]);
    let interval_us = (to - from) / (items - 2 * warm) as f64;
    let busy = (0..cores)
        .map(|c| (stream.busy_us(&many, c, from, to) / (to - from).max(f64::MIN_POSITIVE)).max(0.0))
        .collect();
    let single = mode == Mode::Split || mode == Mode::Mask;
    let shares = if single {
        shares(model, &one, &alone, cores, 0.0, alone.total_us())
    } else {
        shares(model, &many, &stream, cores, from, to)
    };
    Figures {
        mode,
        cores,
        latency_us: alone.total_us(),
        interval_us,
        busy,
        shares,
        resident_bytes: resident(model, mode, cores, &one),
    }
}

fn shares(
    model: &ModelCost,
    tasks: &[Task],
    schedule: &Schedule,
    cores: u8,
    from: f64,
    to: f64,
) -> Shares {
    let all = (to - from) * f64::from(cores);
    let (mut shares, mut busy) = (Shares::default(), 0.0);
    for span in schedule.spans.iter().filter(|s| !tasks[s.task].cores.is_empty()) {
        let inside = (span.end_us.min(to) - span.start_us.max(from)).max(0.0);
        let length = span.end_us - span.start_us;
        if length <= 0.0 {
            continue;
        }
        let task = &tasks[span.task];
        let width = task.cores.len() as f64;
        let work = model.shards[span.task % model.shards.len()].work;
        // Under a mask the operators' times are others; their proportions stand.
        let total = work.compute + work.moving + work.calls;
        let alone: f64 = task.phases.iter().map(|p: &Phase| p.micros).sum();
        let share = inside / length * width / all;
        let scale = alone / total.max(f64::MIN_POSITIVE);
        shares.compute += work.compute * scale * share;
        shares.moving += work.moving * scale * share;
        shares.calls += work.calls * scale * share;
        shares.memory += (length - alone).max(0.0) * share;
        busy += inside * width;
    }
    shares.idle = (1.0 - busy / all.max(f64::MIN_POSITIVE)).max(0.0);
    shares
}

/// What the shards take on the cores that hold them. A mask is one context.
fn resident(model: &ModelCost, mode: Mode, cores: u8, one: &[Task]) -> u64 {
    let shards = model.shards.iter().zip(one).filter(|(shard, _)| shard.core != CoreId::Host);
    let held = shards.map(|(shard, task)| {
        let on: Vec<usize> = match mode {
            Mode::Replicate => (0..usize::from(cores)).collect(),
            Mode::Mask => task.cores.iter().take(1).map(|&c| usize::from(c)).collect(),
            _ => task.cores.iter().map(|&c| usize::from(c)).collect(),
        };
        (shard.weight_bytes, shard.internal_bytes, on)
    });
    Footprint::sum(usize::from(cores), held).bytes()
}
