//! Packs on the mock device, whose outputs depend on the shard's name and on every byte of its inputs.

mod common;

use common::{items, load, run};
use rockshard_device::DeviceErrorKind;
use rockshard_device_kit::packs::{devices, pack};
use rockshard_device_kit::{Fault, FaultyDevice, MockDevice, Place};
use rockshard_pack::Mode;
use rockshard_runtime::{Cores, CoresOptions, RunOptions, RuntimeError};
use rockshard_tensor::Tensor;
use std::sync::Arc;
use std::time::Duration;

fn faulty(cores: u8) -> (MockDevice, FaultyDevice) {
    let mock = MockDevice::new(cores);
    (mock.clone(), FaultyDevice::new(Arc::new(mock)))
}

#[test]
fn results_do_not_depend_on_cores_placement_or_interleaving() {
    let (_folder, pack) = pack(9);
    let alone = load(&pack, &devices(&MockDevice::new(3)), 1, Mode::Pipeline).unwrap();
    let expected = run(&alone, items(12)).outputs.unwrap();
    for (cores, mode) in [(2, Mode::Pipeline), (3, Mode::Pipeline), (3, Mode::Replicate)] {
        let (mock, device) = faulty(3);
        for (shard, micros) in [("shard1", 900), ("shard4", 300), ("shard7", 2000)] {
            device.inject(
                Place::shard(shard),
                Fault::Slow(Duration::from_micros(micros)),
                u64::MAX,
            );
        }
        let loaded = load(&pack, &devices(&device), cores, mode).unwrap();
        let outputs = run(&loaded, items(12)).outputs.unwrap();
        assert_eq!(outputs, expected, "{cores} cores, {mode:?}");
        assert_eq!(mock.runs(), 9 * 12);
    }
}

#[test]
fn the_modelled_timeline_does_not_depend_on_measured_times() {
    let (_folder, pack) = pack(6);
    let total = |slow: u64| {
        let (_, device) = faulty(3);
        device.inject(Place::shard("shard2"), Fault::Slow(Duration::from_micros(slow)), u64::MAX);
        let loaded = load(&pack, &devices(&device), 3, Mode::Pipeline).unwrap();
        let trace = run(&loaded, items(6)).trace;
        assert!(trace.timeline_svg().contains("core 2"));
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
    for (fault, expected) in [
        (Fault::Run(DeviceErrorKind::Run), "injected fault on run"),
        (Fault::Panic, "injected panic"),
    ] {
        let (_, device) = faulty(3);
        device.inject(Place::shard("shard4"), fault, u64::MAX);
        let loaded = load(&pack, &devices(&device), 3, Mode::Pipeline).unwrap();
        let error = run(&loaded, items(4)).outputs.unwrap_err().to_string();
        assert!(
            error.contains("shard4 on core 1")
                && error.contains(expected)
                && error.contains("also tried: core"),
            "{error}"
        );
    }
    let (_, device) = faulty(3);
    device.inject(Place::shard("shard5"), Fault::Open(DeviceErrorKind::Load), 1);
    let error = load(&pack, &devices(&device), 3, Mode::Pipeline).err().unwrap().to_string();
    assert_eq!(error, "shard shard5 on core 2: injected fault on open");
}

#[test]
fn inputs_cores_and_models_are_checked() {
    let (_folder, pack) = pack(3);
    let mock = MockDevice::new(2);
    assert!(matches!(
        Cores::new(&devices(&mock), CoresOptions::new(3)),
        Err(RuntimeError::Cores { asked: 3, available: 2, .. })
    ));
    let loaded = load(&pack, &devices(&mock), 2, Mode::Pipeline).unwrap();
    let submit = |model: &str, name: &str, shape: [usize; 2]| {
        let tensor = Tensor::from_f32(shape, vec![0.0; shape.iter().product()]);
        let items = vec![[(name.to_owned(), tensor)].into()];
        loaded.submit(model, items, &RunOptions::default()).err().unwrap().to_string()
    };
    assert_eq!(submit("x", "v0", [1, 8]), "the pack has no model \"x\"; it has m");
    assert!(submit("m", "other", [1, 8]).contains("input \"v0\" is missing"));
    assert!(submit("m", "v0", [2, 8]).contains("is float32[1, 8], got float32[2, 8]"));
    assert_eq!(mock.runs(), 0);
}
