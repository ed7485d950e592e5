//! Packs of mock shards.
#![allow(dead_code)] // Each test uses some of it.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use rockshard_device::Device;
use rockshard_manifest::{
    Conversion, CoreId, FileEntry, Generator, Manifest, Model, ModelledCost, SCHEMA, Shard,
    TensorSpec,
};
use rockshard_runtime::{Devices, Pack, Variant};
use rockshard_tensor::DType;
use std::sync::Arc;

pub fn spec(name: &str) -> TensorSpec {
    TensorSpec { name: name.into(), dtype: DType::F32, shape: vec![1, 8], scale: 1.0 }
}

/// A shard that runs the mock's graph.
pub fn shard(name: String, core: CoreId, inputs: Vec<TensorSpec>, output: &str) -> Shard {
    Shard {
        name,
        file: "graph".into(),
        reference: "graph".into(),
        core,
        stage: 0,
        inputs,
        outputs: vec![spec(output)],
        operators: Default::default(),
        weight_bytes: 0,
        modelled: Default::default(),
        sandwich: vec![],
        attention: vec![],
        golden: None,
        compiled: None,
    }
}

/// A model that reads v0.
pub fn model(name: &str, shards: Vec<Shard>, output: &str) -> Model {
    let (inputs, outputs) = (vec![spec("v0")], vec![spec(output)]);
    Model {
        name: name.into(),
        resolution: None,
        inputs,
        outputs,
        shards,
        declined: vec![],
        golden: None,
    }
}

/// A model of shards NAME0, NAME1, ..., on all cores in turn, each reading what the one before wrote.
pub fn chain(name: &str, count: usize, weight_bytes: u64, internal_bytes: u64) -> Model {
    let shard = |i: usize| Shard {
        weight_bytes,
        modelled: ModelledCost { micros: 0.0, internal_bytes },
        ..shard(
            format!("{name}{i}"),
            CoreId::Npu((i % 3) as u8),
            vec![spec(&format!("v{i}"))],
            &format!("v{}", i + 1),
        )
    };
    model(name, (0..count).map(shard).collect(), &format!("v{count}"))
}

/// A pack of mock models.
pub fn pack_of(models: Vec<Model>) -> (tempfile::TempDir, Pack) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("graph"), b"mock").unwrap();
    let word = |w: &str| w.to_owned();
    let manifest = Manifest {
        schema: SCHEMA,
        generator: Generator { name: word("test"), version: word("0") },
        target: word("rk3588"),
        conversion: Conversion {
            sandwich: word("off"),
            tile: word("off"),
            shards: word("block"),
            placement: word("round-robin"),
            optimise: word("latency"),
            loras: Vec::new(),
        },
        models,
        files: [(word("graph"), FileEntry::of(b"mock"))].into(),
    };
    std::fs::write(folder.path().join("manifest.json"), manifest.to_json()).unwrap();
    let pack = Pack::open(folder.path()).unwrap();
    (folder, pack)
}

/// A pack of one model of `count` shards: shard i reads value i and, from the third on, also value i - 2 (a skip connection).
pub fn pack(count: usize) -> (tempfile::TempDir, Pack) {
    let inputs = |i: usize| {
        if i < 2 {
            vec![spec(&format!("v{i}"))]
        } else {
            vec![spec(&format!("v{i}")), spec(&format!("v{}", i - 2))]
        }
    };
    let shards = (0..count).map(|i| {
        shard(format!("shard{i}"), CoreId::Npu((i % 3) as u8), inputs(i), &format!("v{}", i + 1))
    });
    pack_of(vec![model("m", shards.collect(), &format!("v{count}"))])
}

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

pub fn devices<D: Device + Clone + 'static>(device: &D) -> Devices {
    Devices {
        npu: Arc::new(device.clone()),
        host: Arc::new(device.clone()),
        variant: Variant::Device,
    }
}
