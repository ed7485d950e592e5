//! Random packs of mock shards.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rockshard_device_kit::packs::{model, pack_of, shard, spec};
use rockshard_manifest::CoreId;
use rockshard_pack::Pack;

/// A pack of one model: up to eight shards on random cores and the host that read random values made before.
pub fn random_pack(seed: u64) -> (tempfile::TempDir, Pack) {
    let mut rng = SmallRng::seed_from_u64(seed);
    let count = rng.random_range(1..=8);
    let mut shards = Vec::new();
    for i in 0..count {
        let core = if rng.random_range(0..8) == 0 {
            CoreId::Host
        } else {
            CoreId::Npu(rng.random_range(0..3))
        };
        let mut read: Vec<usize> =
            (0..rng.random_range(1..=3)).map(|_| rng.random_range(0..=i)).collect();
        read.sort_unstable();
        read.dedup();
        let inputs = read.iter().map(|v| spec(&format!("v{v}"))).collect();
        shards.push(shard(format!("s{i}"), core, inputs, &format!("v{}", i + 1)));
    }
    pack_of(vec![model("m", shards, &format!("v{count}"))])
}
