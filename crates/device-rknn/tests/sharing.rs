//! Sessions of one file share its weights; what a board's memory and driver refuse is a device error. The runtime's double reads its
//! chip from the environment once a process, so each test runs in one of its own.

use rockshard_cost::Rk3588;
use rockshard_device::{Device, DeviceError, DeviceErrorKind, Value};
use rockshard_device_kit::conformance::Files;
use rockshard_device_rknn::RknnDevice;
use rockshard_device_sim::SimDevice;
use rockshard_import::{ImportOptions, import_file};
use rockshard_manifest::CoreId;
use std::process::Command;
use tempfile::TempDir;

/// The suite's shards in a folder that is removed with them.
fn written() -> (TempDir, Files) {
    let folder = tempfile::tempdir().unwrap();
    let files = Files::write(folder.path()).unwrap();
    (folder, files)
}

fn device() -> RknnDevice {
    let beside = std::env::current_exe().unwrap().with_file_name("librknnrt.so");
    RknnDevice::load(Some(&beside)).unwrap()
}

/// Run the test of a name in a process with this variable.
fn with(name: &str, variable: (&str, String), body: impl FnOnce()) {
    const CHILD: &str = "ROCKSHARD_TEST_CHILD";
    if std::env::var_os(CHILD).is_some() {
        return body();
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    let output = child
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, "1")
        .env(variable.0, variable.1)
        .output()
        .unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[test]
fn sessions_on_all_cores_take_the_weights_once() {
    let (_folder, files) = written();
    let graph = import_file(&files.shard().path, &ImportOptions::fixed()).unwrap();
    let cost = Rk3588::default().graph(&graph);
    let space = cost.weight_bytes + 3 * cost.internal_bytes;
    let variable = ("ROCKSHARD_RK3588", format!("{{\"address_space\": {space}}}"));
    with("sessions_on_all_cores_take_the_weights_once", variable, || {
        // Buffers of inputs and outputs would need space too.
        let (device, (_folder, files)) = (device().copying(), written());
        let open = |core| device.open(&files.shard(), CoreId::Npu(core));
        for _ in 0..2 {
            // As the runtime does: each session in the thread of its core.
            let barrier = std::sync::Barrier::new(3);
            std::thread::scope(|scope| {
                for core in 0..3 {
                    let (open, barrier, inputs) = (&open, &barrier, files.inputs(core.into()));
                    scope.spawn(move || {
                        let session = open(core);
                        barrier.wait();
                        let outputs = session.unwrap().run(&inputs).unwrap().outputs;
                        assert_eq!(outputs.len(), 2);
                    });
                }
            });
        }
        let mut three = [0, 1, 2].map(|core| open(core).unwrap());
        let error = open(0).err().unwrap();
        assert!(
            error.kind == DeviceErrorKind::Memory && error.detail.contains("RKNN_ERR_MALLOC_FAIL"),
            "{error}"
        );
        assert!(three[2].run(&files.inputs(0)).is_ok());
        drop(three);
        assert!(open(2).is_ok(), "closed sessions leave nothing");
    });
}

#[test]
fn a_file_that_was_written_again_is_loaded_again() {
    let (device, (_folder, files)) = (device(), written());
    let mut before = device.open(&files.shard(), CoreId::Npu(0)).unwrap();
    let wanted = before.run(&files.inputs(0)).unwrap().outputs;
    std::fs::write(&files.shard().path, "no model any more").unwrap();
    let error = device.open(&files.shard(), CoreId::Npu(1)).err().unwrap();
    assert_eq!(error.kind, DeviceErrorKind::Load);
    assert!(before.run(&files.inputs(0)).unwrap().outputs == wanted);
}

#[test]
fn a_run_that_hangs_fails_with_what_to_do_and_the_session_runs_again() {
    let variable = ("ROCKSHARD_RKNNRT_HANG", "1".to_owned());
    with("a_run_that_hangs_fails_with_what_to_do_and_the_session_runs_again", variable, || {
        let (device, (_folder, files)) = (device(), written());
        let mut session = device.open(&files.shard(), CoreId::Npu(1)).unwrap();
        let mut run = || session.run(&files.inputs(0)).map(|done| done.outputs);
        let wanted = run().unwrap();
        let error: DeviceError = run().unwrap_err();
        assert_eq!(error.kind, DeviceErrorKind::Run);
        let text = error.to_string();
        assert!(text.contains("conformance on core 1: rknn_run gave RKNN_ERR_TIMEOUT (-2): the driver has reset all cores"), "{text}");
        assert!(run().unwrap() == wanted);
    });
}

#[test]
fn the_library_tells_its_file_version_and_kind_before_anything_is_loaded() {
    let (device, (_folder, files)) = (device(), written());
    assert!(device.is_simulated() && device.library().unwrap().ends_with("librknnrt.so"));
    assert_eq!(device.runtime(), Some("2.3.2 (rockshard rknnrt-sim)"));
    let versions = device.versions(&files.shard()).unwrap();
    assert_eq!(
        (versions.runtime.as_str(), versions.driver.as_str()),
        ("2.3.2 (rockshard rknnrt-sim)", "0.9.8")
    );
    let missing = rockshard_device::ShardFile { path: "nowhere.onnx".into(), ..files.shard() };
    assert_eq!(device.versions(&missing).unwrap_err().kind, DeviceErrorKind::Load);
}

#[test]
fn sessions_of_a_core_share_the_memory_of_activations() {
    let (_folder, files) = written();
    let cost = Rk3588::default()
        .graph(&import_file(&files.shard().path, &ImportOptions::fixed()).unwrap());
    // A page for each core's activations, for the inputs of two sessions and for the outputs of one run.
    let variable = (
        "ROCKSHARD_RK3588",
        format!("{{\"address_space\": {}}}", cost.weight_bytes + (3 + 6 + 2) * 4096),
    );
    with("sessions_of_a_core_share_the_memory_of_activations", variable, || {
        let (device, (_folder, files)) = (device(), written());
        let mut sessions: Vec<_> =
            (0..200).map(|i| device.open(&files.shard(), CoreId::Npu(i % 3)).unwrap()).collect();
        let wanted = sessions[0].run(&files.inputs(0)).unwrap().outputs;
        assert!(sessions[31].run(&files.inputs(0)).unwrap().outputs == wanted);
        drop(sessions);
        let left_to_the_runtime = device.copying();
        let opened = (0..200)
            .map_while(|i| left_to_the_runtime.open(&files.shard(), CoreId::Npu(i % 3)).ok())
            .collect::<Vec<_>>()
            .len();
        assert!(opened < 200, "{opened} sessions with activations of their own");
    });
}

/// Buffers of the runtime's double that this process has.
fn buffers() -> usize {
    let links = std::fs::read_dir("/proc/self/fd")
        .unwrap()
        .filter_map(|entry| std::fs::read_link(entry.unwrap().path()).ok());
    links.filter(|link| link.to_string_lossy().contains("memfd:rknnrt-sim")).count()
}

#[test]
fn a_chain_of_sessions_needs_the_buffers_of_two() {
    const CHILD: (&str, &str) = ("ROCKSHARD_TEST_ALONE", "1");
    with("a_chain_of_sessions_needs_the_buffers_of_two", (CHILD.0, CHILD.1.to_owned()), || {
        let (device, (_folder, files)) = (device(), written());
        let mut simulator = SimDevice::default().open(&files.shard(), CoreId::Npu(0)).unwrap();
        let mut sessions: Vec<_> =
            (0..12).map(|i| device.open(&files.shard(), CoreId::Npu(i % 3)).unwrap()).collect();
        for seed in 0..20 {
            let mut inputs: Vec<Value> = files.inputs(seed).into_iter().map(Value::Host).collect();
            let mut tensors = files.inputs(seed);
            for session in &mut sessions {
                let made = session.run_between(&inputs, &[true, true]).unwrap().outputs;
                assert!(made.iter().all(|v| matches!(v, Value::Kept(_))));
                let wanted = simulator.run(&tensors).unwrap().outputs;
                assert!(made.iter().map(Value::tensor).collect::<Vec<_>>() == wanted);
                // Both four-axis inputs are the sum, where it lies.
                inputs = vec![made[1].clone(), made[1].clone(), made[0].clone()];
                tensors = vec![wanted[1].clone(), wanted[1].clone(), wanted[0].clone()];
                // Two outputs of this session and of the one before, the first session's three inputs, and each core's activations.
                assert!(buffers() <= 10, "{} buffers", buffers());
            }
        }
        drop((sessions, device));
        assert_eq!(buffers(), 0);
    });
}

#[test]
fn a_run_on_memory_in_the_npus_layout_converts_nothing() {
    // 1 us for two bytes: 192 elements of each tensor of four axes take 192 us.
    let variable = ("ROCKSHARD_RK3588", "{\"transpose_bytes_per_second\": 2e6}".to_owned());
    with("a_run_on_memory_in_the_npus_layout_converts_nothing", variable, || {
        let (device, (_folder, files)) = (device(), written());
        let modelled = |device: RknnDevice| {
            let mut session = device.open(&files.shard(), CoreId::Npu(0)).unwrap();
            session.run(&files.inputs(0)).unwrap().modelled.unwrap().as_micros()
        };
        let (copied, native) = (modelled(device.clone().copying()), modelled(device));
        assert!(
            (3 * 192 - 1..=3 * 192 + 1).contains(&(copied - native)),
            "{copied} and {native} us"
        );
    });
}
