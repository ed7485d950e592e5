//! What several tests of the runtime need: random packs of mock shards, and packs on cores of their own.
#![allow(dead_code)] // Each test uses some of it.

pub mod counting;
pub mod memory;

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rockshard_device_kit::packs::{model, pack_of, shard, spec};
use rockshard_manifest::CoreId;
use rockshard_pack::{Devices, Mode, Pack};
use rockshard_runtime::{
    Cores, CoresOptions, LoadedPack, Outcome, RunOptions, RuntimeError, TensorMap,
};
use rockshard_tensor::Tensor;

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

/// All models of a pack on cores of their own.
pub fn load(
    pack: &Pack,
    devices: &Devices,
    cores: u8,
    mode: Mode,
) -> Result<LoadedPack, RuntimeError> {
    Cores::new(devices, CoresOptions::new(cores))?.load(pack, mode, |_| true)
}

/// Run items of model `m`.
pub fn run(loaded: &LoadedPack, items: Vec<TensorMap>) -> Outcome {
    loaded.run("m", items, &RunOptions::default()).unwrap()
}

/// Items 0 up to `count`.
pub fn items(count: usize) -> Vec<TensorMap> {
    (0..count).map(item).collect()
}

/// Item i: `v0` with i everywhere.
pub fn item(i: usize) -> TensorMap {
    [("v0".to_owned(), Tensor::from_f32([1, 8], vec![i as f32; 8]))].into()
}
