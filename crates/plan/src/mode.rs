//! How items are laid over the cores: each parallel mode as a list of tasks for the virtual clock.

use crate::ModelCost;
use rockshard_clock::Task;
use rockshard_manifest::CoreId;
use rockshard_pack::IN_FLIGHT_PER_CORE;
use serde::Serialize;
use std::collections::BTreeMap;

/// A parallel mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Pinned shards, several items in flight.
    Pipeline,
    /// Whole items, a core each.
    Replicate,
    /// One item, shards of a stage on several cores.
    Split,
    /// Every shard under the vendor's mask of all cores.
    Mask,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 4] = [Mode::Pipeline, Mode::Replicate, Mode::Split, Mode::Mask];

    /// Name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Mode::Pipeline => "pipeline",
            Mode::Replicate => "replicate",
            Mode::Split => "split",
            Mode::Mask => "mask",
        }
    }
}

/// The runs of `items` items of a model in a mode on `cores` cores.
pub fn tasks(model: &ModelCost, mode: Mode, cores: u8, items: usize) -> Vec<Task> {
    let cores = cores.max(1);
    let count = model.shards.len();
    let spread = if mode == Mode::Split { spread(model, cores) } else { Vec::new() };
    let limit = if mode == Mode::Split || mode == Mode::Mask {
        1
    } else {
        IN_FLIGHT_PER_CORE * usize::from(cores)
    };
    let read: Vec<usize> = model.shards.iter().flat_map(|s| s.needs.iter().copied()).collect();
    let last: Vec<usize> = (0..count).filter(|i| !read.contains(i)).collect();
    let mut tasks = Vec::with_capacity(items * count);
    for item in 0..items {
        let base = item * count;
        for (i, shard) in model.shards.iter().enumerate() {
            let mut needs: Vec<usize> = shard.needs.iter().map(|n| base + n).collect();
            if needs.is_empty() && item >= limit {
                needs.extend(last.iter().map(|l| (item - limit) * count + l));
            }
            let pinned = |core: u8| vec![core % cores];
            let on = match (shard.core, mode) {
                (CoreId::Host, _) => Vec::new(),
                (CoreId::Npu(core), Mode::Pipeline) => pinned(core),
                (CoreId::Npu(_), Mode::Replicate) => vec![(item % usize::from(cores)) as u8],
                (CoreId::Npu(_), Mode::Split) => vec![spread[i]],
                (CoreId::Npu(_), Mode::Mask) => (0..cores).collect(),
            };
            let phases = match (mode, cores) {
                (Mode::Mask, 2) => shard.masked[0].clone(),
                (Mode::Mask, 3..) => shard.masked[1].clone(),
                _ => shard.phases.clone(),
            };
            tasks.push(Task {
                name: shard.name.clone(),
                model: model.name.clone(),
                item,
                cores: on,
                needs,
                phases,
            });
        }
    }
    tasks
}

/// A core for each shard, so that the shards of a stage, dearest first, are on the cores that have least of it. A stage that is pinned to
/// cores of its own stays there.
fn spread(model: &ModelCost, cores: u8) -> Vec<u8> {
    let mut stages: BTreeMap<u32, Vec<(usize, u8)>> = BTreeMap::new();
    for (i, shard) in model.shards.iter().enumerate() {
        if let CoreId::Npu(core) = shard.core {
            stages.entry(shard.stage).or_default().push((i, core));
        }
    }
    let mut of = vec![0; model.shards.len()];
    for mut shards in stages.into_values() {
        let mut own: Vec<u8> = shards.iter().map(|s| s.1).collect();
        own.sort_unstable();
        own.dedup();
        if own.len() == shards.len() && shards.len() > 1 && own.iter().all(|&c| c < cores) {
            shards.iter().for_each(|&(i, core)| of[i] = core);
            continue;
        }
        shards.sort_by(|a, b| model.shards[b.0].micros().total_cmp(&model.shards[a.0].micros()));
        let mut load = vec![0.0f64; usize::from(cores)];
        for (i, _) in shards {
            let core = (0..load.len()).min_by(|&a, &b| load[a].total_cmp(&load[b])).unwrap_or(0);
            load[core] += model.shards[i].micros();
            of[i] = core as u8;
        }
    }
    of
}
