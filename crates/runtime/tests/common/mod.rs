//! Packs of mock shards.

use rockshard_device::Device;
use rockshard_manifest::{Conversion, CoreId, FileEntry, Generator, Manifest, Model, SCHEMA, Shard, TensorSpec};
use rockshard_runtime::{Devices, Pack, Variant};
use rockshard_tensor::DType;
use std::sync::Arc;

fn spec(name: &str) -> TensorSpec {
    TensorSpec { name: name.into(), dtype: DType::F32, shape: vec![1, 8], scale: 1.0 }
}

/// A pack of one model of `count` shards: shard i reads value i and, from the third on, also value i - 2 (a skip connection).
pub fn pack(count: usize) -> (tempfile::TempDir, Pack) {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("graph"), b"mock").unwrap();
    let shard = |i: usize| Shard {
        name: format!("shard{i}"),
        file: "graph".into(),
        reference: "graph".into(),
        core: CoreId::Npu((i % 3) as u8),
        stage: i as u32,
        inputs: if i < 2 { vec![spec(&format!("v{i}"))] } else { vec![spec(&format!("v{i}")), spec(&format!("v{}", i - 2))] },
        outputs: vec![spec(&format!("v{}", i + 1))],
        operators: Default::default(),
        weight_bytes: 0,
        modelled: Default::default(),
        sandwich: vec![],
        attention: vec![],
        golden: None,
        compiled: None,
    };
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
        models: vec![Model {
            name: word("m"),
            resolution: None,
            inputs: vec![spec("v0")],
            outputs: vec![spec(&format!("v{count}"))],
            shards: (0..count).map(shard).collect(),
            declined: vec![],
            golden: None,
        }],
        files: [(word("graph"), FileEntry::of(b"mock"))].into(),
    };
    std::fs::write(folder.path().join("manifest.json"), manifest.to_json()).unwrap();
    let pack = Pack::open(folder.path()).unwrap();
    (folder, pack)
}

pub fn devices<D: Device + Clone + 'static>(device: &D) -> Devices {
    Devices { npu: Arc::new(device.clone()), host: Arc::new(device.clone()), variant: Variant::Device }
}
