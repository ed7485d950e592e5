//! Packs of shards that a [`MockDevice`](crate::MockDevice) runs.

use rockshard_device::Device;
use rockshard_manifest::{
    Conversion, CoreId, Family, FileEntry, Generator, MANIFEST_FILE, Manifest, Model, ModelledCost,
    Optimise, Placement, Role, SCHEMA, Shard, TensorSpec,
};
use rockshard_pack::{Devices, Pack, Variant};
use rockshard_tensor::DType;
use std::sync::Arc;
use tempfile::TempDir;

/// A real-valued tensor of 8 elements.
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
        role: Role::Network,
        resolution: None,
        inputs,
        outputs,
        shards,
        notes: vec![],
        passes: vec![],
        declined: vec![],
        golden: None,
        import: None,
        unchanged_us: None,
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

/// A pack of models that is pinned in turn; their shards have the file `graph`.
///
/// # Panics
/// The directory cannot be written.
pub fn pack_of(models: Vec<Model>) -> (TempDir, Pack) {
    pack_with(models, Placement::RoundRobin, &["graph"])
}

/// A pack of models, with files whose contents are their names, in a directory that is removed when it is dropped.
///
/// # Panics
/// The directory cannot be written.
pub fn pack_with(models: Vec<Model>, placement: Placement, files: &[&str]) -> (TempDir, Pack) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let write = |name: &str, contents: &[u8]| {
        std::fs::write(folder.path().join(name), contents).expect("it can be written");
    };
    files.iter().for_each(|name| write(name, name.as_bytes()));
    let word = |w: &str| w.to_owned();
    let manifest = Manifest {
        schema: SCHEMA,
        generator: Generator { name: word("test"), version: word("0") },
        target: word("rk3588"),
        family: Family::Network,
        conversion: Conversion {
            sandwich: word("off"),
            tile: word("off"),
            shards: word("block"),
            placement,
            optimise: Optimise::Latency,
            loras: Vec::new(),
            language: None,
        },
        models,
        companions: Default::default(),
        files: files.iter().map(|f| (word(f), FileEntry::of(f.as_bytes()))).collect(),
    };
    write(MANIFEST_FILE, manifest.to_json().as_bytes());
    let pack = Pack::open(folder.path()).expect("the manifest is sound");
    (folder, pack)
}

/// A pack of one model `m` of `count` shards: shard i reads value i and, from the third on, also value i - 2 (a skip connection).
pub fn pack(count: usize) -> (TempDir, Pack) {
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

/// A device as the NPU and as the host.
pub fn devices<D: Device + Clone + 'static>(device: &D) -> Devices {
    Devices {
        npu: Arc::new(device.clone()),
        host: Arc::new(device.clone()),
        variant: Variant::Device,
    }
}
