//! The runner on the mock device, whose outputs depend on the shard's name and on every byte of its inputs.

use rockshard_device::{Fault, MockDevice};
use rockshard_manifest::{Conversion, CoreId, FileEntry, Generator, Manifest, Model, SCHEMA, Shard, TensorSpec};
use rockshard_runtime::{Devices, Pack, Placement, Runner, RuntimeError, TensorMap, Variant, timeline_svg};
use rockshard_tensor::{DType, Tensor};
use std::sync::Arc;
use std::time::Duration;

fn spec(name: &str) -> TensorSpec {
    TensorSpec { name: name.into(), dtype: DType::F32, shape: vec![1, 8], scale: 1.0 }
}

/// A pack of one model of `count` shards: shard i reads value i and, from the third on, also value i - 2 (a skip connection).
fn pack(count: usize) -> (tempfile::TempDir, Pack) {
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

fn devices(mock: &MockDevice) -> Devices {
    Devices { npu: Arc::new(mock.clone()), host: Arc::new(mock.clone()), variant: Variant::Device }
}

fn items(count: usize) -> Vec<TensorMap> {
    (0..count).map(|i| [("v0".to_owned(), Tensor::from_f32([1, 8], vec![i as f32; 8]))].into()).collect()
}

#[test]
fn results_do_not_depend_on_cores_placement_or_interleaving() {
    let (_folder, pack) = pack(9);
    let expected = Runner::new(&pack, &[], &devices(&MockDevice::new(3)), 1, Placement::Pinned).unwrap().run("m", items(12)).unwrap();
    for (cores, placement) in [(2, Placement::Pinned), (3, Placement::Pinned), (3, Placement::Replicate)] {
        let mock = MockDevice::new(3);
        for (shard, micros) in [("shard1", 900), ("shard4", 300), ("shard7", 2000)] {
            mock.inject(shard, Fault::Slow(Duration::from_micros(micros)));
        }
        let runner = Runner::new(&pack, &[], &devices(&mock), cores, placement).unwrap();
        assert_eq!(runner.run("m", items(12)).unwrap(), expected, "{cores} cores, {placement:?}");
        assert_eq!(mock.runs(), 9 * 12);
    }
}

#[test]
fn the_modelled_timeline_does_not_depend_on_measured_times() {
    let (_folder, pack) = pack(6);
    let total = |slow: u64| {
        let mock = MockDevice::new(3);
        mock.inject("shard2", Fault::Slow(Duration::from_micros(slow)));
        let runner = Runner::new(&pack, &[], &devices(&mock), 3, Placement::Pinned).unwrap();
        runner.run("m", items(6)).unwrap();
        let trace = runner.trace();
        assert!(timeline_svg(&trace).contains("core 2"));
        trace.modelled_total_us()
    };
    let modelled = total(0);
    assert_eq!(modelled, total(3000));
    // 36 runs of 100 us: at least a third each, at most all in a row.
    assert!((1200.0..3600.0).contains(&modelled), "{modelled}");
}

#[test]
fn failures_are_reported_with_their_shard_and_core() {
    let (_folder, pack) = pack(6);
    for (fault, expected) in [(Fault::Run, "injected fault on run"), (Fault::Panic, "injected panic")] {
        let mock = MockDevice::new(3);
        mock.inject("shard4", fault);
        let runner = Runner::new(&pack, &[], &devices(&mock), 3, Placement::Pinned).unwrap();
        let error = runner.run("m", items(4)).unwrap_err().to_string();
        assert!(error.contains("shard4") && error.contains("core 1") && error.contains(expected), "{error}");
    }
    let mock = MockDevice::new(3);
    mock.inject("shard5", Fault::Open);
    let error = Runner::new(&pack, &[], &devices(&mock), 3, Placement::Pinned).err().unwrap().to_string();
    assert!(error.contains("shard5 on core 2"), "{error}");
}

#[test]
fn inputs_cores_and_models_are_checked() {
    let (_folder, pack) = pack(3);
    let mock = MockDevice::new(2);
    assert!(matches!(
        Runner::new(&pack, &[], &devices(&mock), 3, Placement::Pinned),
        Err(RuntimeError::Cores { asked: 3, available: 2, .. })
    ));
    assert!(matches!(Runner::new(&pack, &["x"], &devices(&mock), 1, Placement::Pinned), Err(RuntimeError::NoModel { .. })));
    let runner = Runner::new(&pack, &[], &devices(&mock), 2, Placement::Pinned).unwrap();
    let run = |name: &str, shape: [usize; 2]| {
        let tensor = Tensor::from_f32(shape, vec![0.0; shape.iter().product()]);
        runner.run("m", vec![[(name.to_owned(), tensor)].into()]).unwrap_err().to_string()
    };
    assert!(run("other", [1, 8]).contains("input \"v0\" is missing"));
    assert!(run("v0", [2, 8]).contains("is float32[1, 8], got float32[2, 8]"));
    assert_eq!(mock.runs(), 0);
}
