//! Which mode a pack is run in: priced from what its manifest says of each shard, so that nothing is read and it takes no time.

use crate::{ModelCost, Parallel, ShardCost, Work, tasks};
use rockshard_clock::{Memory, Phase, simulate};
use rockshard_manifest::{CoreId, Manifest, Model};
use rockshard_pack::Variant;
use rockshard_pack::{Footprint, Mode, walk};

/// Items beyond which it makes no difference how many there are, for each core.
const MOST_PER_CORE: usize = 4;

/// The mode in which a pack does `items` items soonest, modelled, on `cores` cores: the sum over its models, each at its first
/// resolution. For one item or on one core it is the mode that the pack was converted for, and so it is where both take the same time.
/// For several, replicated models must fit `memory_limit` bytes together.
pub fn pick(manifest: &Manifest, cores: u8, items: usize, memory_limit: Option<u64>) -> Mode {
    let converted = Mode::of(manifest.conversion.placement);
    if items <= 1 || cores <= 1 {
        return converted;
    }
    let resolution = manifest.models.iter().find_map(|m| m.resolution);
    let at_once = |m: &&Model| m.resolution.is_none() || m.resolution == resolution;
    let models: Vec<&Model> = manifest.models.iter().filter(at_once).collect();
    let lanes = usize::from(cores);
    let needed: Vec<_> = models.iter().map(|m| Footprint::of(m, lanes, Mode::Replicate)).collect();
    if memory_limit.is_some_and(|limit| Footprint::together(&needed).bytes() > limit) {
        return Mode::Pipeline;
    }
    let items = items.min(MOST_PER_CORE * lanes);
    let total = |parallel: Parallel| -> f64 {
        let time = |m: &&Model| {
            simulate(&tasks(&stated(m), parallel, cores, items), Memory::default()).total_us()
        };
        models.iter().map(time).sum()
    };
    let (pipeline, replicate) = (total(Parallel::Pipeline), total(Parallel::Replicate));
    if (pipeline - replicate).abs() <= 1e-9 * pipeline {
        converted
    } else if replicate < pipeline {
        Mode::Replicate
    } else {
        Mode::Pipeline
    }
}

/// A model's shards as the manifest states their times, which streams nothing.
fn stated(model: &Model) -> ModelCost {
    let walked = walk(model, Variant::Device);
    let shards = model.shards.iter().zip(walked.shards).map(|(shard, walked)| {
        let micros = if shard.core == CoreId::Host { 0.0 } else { shard.modelled.micros };
        ShardCost {
            name: shard.name.clone(),
            core: shard.core,
            stage: shard.stage,
            needs: walked.needs,
            phases: vec![Phase { micros, streaming: 0.0 }],
            masked: Default::default(),
            work: Work { compute: micros, ..Work::default() },
            weight_bytes: shard.weight_bytes,
            internal_bytes: shard.modelled.internal_bytes,
            cycles: 0,
            moved_bytes: 0,
        }
    });
    ModelCost { name: model.name.clone(), resolution: model.resolution, shards: shards.collect() }
}
