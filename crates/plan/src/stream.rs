//! A stream of frames on the virtual clock: each frame is encoded, goes through rows of the U-Net, and is decoded, on whichever core has
//! the least before it; so many frames are on their way at a time.

use crate::{ModelCost, ShardCost};
use rockshard_clock::{Memory, Task, simulate};
use rockshard_manifest::CoreId;
use serde::Serialize;

/// What a frame takes.
#[derive(Clone, Debug)]
pub struct FrameCost<'a> {
    /// What makes its latent; none for frames of the prompt alone.
    pub encoder: Option<&'a ModelCost>,
    /// What does its rows.
    pub unet: &'a ModelCost,
    /// What makes its picture.
    pub decoder: &'a ModelCost,
    /// Rows of each of its levels, which do not wait for each other.
    pub rows: Vec<usize>,
}

/// Modelled figures of a stream.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct StreamFigures {
    /// Microseconds from one frame to the next, in steady state.
    pub interval_us: f64,
    /// Microseconds from a frame's start to its picture, in steady state.
    pub latency_us: f64,
    /// Cores that are busy, on average.
    pub busy: f64,
}

/// Frames that are simulated for each that is on its way, and that are not counted at either end.
const ROUNDS: usize = 20;
const WARM: usize = 2;

/// A frame that is being laid out.
#[derive(Clone, Default)]
struct Frame {
    stage: usize,
    ready_us: f64,
    /// The last tasks of the stage before.
    last: Vec<usize>,
    begun: Option<usize>,
}

/// Let frames stream over `cores` cores, `on_their_way` of them at a time, each row whole on one core.
pub fn stream(
    cost: &FrameCost<'_>,
    cores: u8,
    on_their_way: usize,
    memory: Memory,
) -> StreamFigures {
    let on_their_way = on_their_way.max(1);
    let count = ROUNDS * on_their_way.max(usize::from(cores));
    let stages: Vec<(&ModelCost, usize)> = cost
        .encoder
        .map(|e| (e, 1))
        .into_iter()
        .chain(cost.rows.iter().map(|&rows| (cost.unet, rows)))
        .chain([(cost.decoder, 1)])
        .collect();
    let mut free = vec![0.0f64; usize::from(cores.max(1))];
    let mut frames = vec![Frame::default(); count];
    let mut tasks: Vec<Task> = Vec::new();
    loop {
        // The frame that is ready first; a frame is admitted when the one that makes room for it is over.
        let admitted =
            |n: usize| n < on_their_way || frames[n - on_their_way].stage == stages.len();
        let open = (0..count).filter(|&n| frames[n].stage < stages.len() && admitted(n));
        let Some(n) = open.min_by(|&a, &b| frames[a].ready_us.total_cmp(&frames[b].ready_us))
        else {
            break;
        };
        if frames[n].stage == 0 && n >= on_their_way {
            let before = &frames[n - on_their_way];
            let (ready, last) = (before.ready_us, before.last.clone());
            if frames[n].ready_us < ready {
                (frames[n].ready_us, frames[n].last) = (ready, last);
                continue;
            }
        }
        let (model, items) = stages[frames[n].stage];
        let (mut ends, mut last) = (frames[n].ready_us, Vec::new());
        for _ in 0..items {
            let core = (0..free.len()).min_by(|&a, &b| free[a].total_cmp(&free[b])).unwrap_or(0);
            frames[n].begun.get_or_insert(tasks.len());
            last.push(tasks.len());
            tasks.push(Task {
                name: model.name.clone(),
                model: model.name.clone(),
                item: n,
                cores: vec![core as u8],
                needs: frames[n].last.clone(),
                phases: on_core(model).flat_map(|s| s.phases.iter().copied()).collect(),
            });
            free[core] = free[core].max(frames[n].ready_us) + micros(model);
            ends = ends.max(free[core]);
        }
        frames[n].stage += 1;
        (frames[n].ready_us, frames[n].last) = (ends, last);
    }
    let schedule = simulate(&tasks, memory);
    let end = |f: &Frame| f.last.iter().map(|&t| schedule.spans[t].end_us).fold(0.0, f64::max);
    let mut ends: Vec<f64> = frames.iter().map(end).collect();
    let latencies =
        frames.iter().map(|f| end(f) - f.begun.map_or(0.0, |t| schedule.spans[t].start_us));
    let warm = WARM * on_their_way.max(usize::from(cores));
    let counted = count - 2 * warm;
    let latency_us = latencies.skip(warm).take(counted).sum::<f64>() / counted as f64;
    ends.sort_by(f64::total_cmp);
    let interval_us = (ends[count - warm - 1] - ends[warm - 1]) / counted as f64;
    let work: f64 = stages.iter().map(|(model, items)| micros(model) * *items as f64).sum();
    StreamFigures { interval_us, latency_us, busy: work / interval_us }
}

/// The shards of a model that the NPU runs. Of a stream's jobs on a core the earliest frame's go first, so that they follow each other.
fn on_core(model: &ModelCost) -> impl Iterator<Item = &ShardCost> {
    model.shards.iter().filter(|s| s.core != CoreId::Host)
}

/// Microseconds of a model on one core, alone.
fn micros(model: &ModelCost) -> f64 {
    on_core(model).map(ShardCost::micros).sum()
}
