//! The device over `rknnrt-sim`, which the tests' dependency on it builds beside them.

use rockshard_device::{Device, DeviceErrorKind, Session, ShardFile};
use rockshard_device_rknn::RknnDevice;
use rockshard_device_sim::SimDevice;
use rockshard_graph::ValueId;
use rockshard_import::{ImportOptions, import_file};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::{DType, Tensor};
use std::path::Path;

fn device() -> RknnDevice {
    let beside = std::env::current_exe().unwrap().with_file_name("librknnrt.so");
    RknnDevice::load(Some(&beside)).unwrap()
}

fn shard(name: &str) -> ShardFile {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../device-sim/tests/data")
        .join(format!("{name}.onnx"));
    let graph = import_file(&path, &ImportOptions::fixed()).unwrap();
    let specs = |ids: &[ValueId]| {
        let values = ids.iter().map(|&v| graph.value(v));
        values
            .map(|v| TensorSpec {
                name: v.name.clone(),
                dtype: v.dtype,
                shape: v.shape.clone(),
                scale: 1.0,
            })
            .collect()
    };
    ShardFile {
        name: name.into(),
        path,
        inputs: specs(&graph.inputs),
        outputs: specs(&graph.outputs),
    }
}

fn inputs(shard: &ShardFile, shift: usize) -> Vec<Tensor> {
    let values = |t: &TensorSpec| {
        (0..t.shape.iter().product())
            .map(|i: usize| ((i * 37 + shift) % 101) as f32 / 50.0 - 1.0)
            .collect()
    };
    shard.inputs.iter().map(|t| Tensor::from_f32(t.shape.clone(), values(t))).collect()
}

fn values(session: &mut dyn Session, inputs: &[Tensor]) -> Vec<f32> {
    session.run(inputs).unwrap().outputs[0].to_f32().unwrap().into_owned()
}

#[test]
fn results_and_times_are_the_simulators() {
    for name in ["conv-swish", "conv-residual", "attention", "layer-norm"] {
        let shard = shard(name);
        let given = inputs(&shard, 0);
        let wanted =
            SimDevice::default().open(&shard, CoreId::Npu(0)).unwrap().run(&given).unwrap();
        // Memory in the NPU's layout is not converted in a run; copies are.
        let all = [true; 8];
        let graph = import_file(&shard.path, &ImportOptions::fixed()).unwrap();
        let beside = SimDevice::default()
            .session(graph, &shard, CoreId::Npu(0))
            .unwrap()
            .modelled_beside(&all, &all);
        let narrow: Vec<Tensor> = given.iter().map(|t| t.to_float(DType::F16).unwrap()).collect();
        for core in (0..3).map(CoreId::Npu) {
            for (device, modelled) in
                [(device(), beside), (device().copying(), wanted.modelled.unwrap())]
            {
                let mut session = device.open(&shard, core).unwrap();
                let found = session.run(&given).unwrap();
                assert_eq!(found.outputs[0].shape(), wanted.outputs[0].shape(), "{name} on {core}");
                assert_eq!(
                    found.outputs[0].to_f32().unwrap(),
                    wanted.outputs[0].to_f32().unwrap(),
                    "{name} on {core}"
                );
                assert_eq!(
                    found.modelled.unwrap().as_micros(),
                    modelled.as_micros(),
                    "{name} on {core}"
                );
                assert_eq!(
                    values(&mut *session, &narrow),
                    *wanted.outputs[0].to_f32().unwrap(),
                    "{name} on {core}, float16"
                );
            }
        }
    }
}

#[test]
fn sessions_and_threads_do_not_mix() {
    let (shard, device) = (shard("conv-residual"), device());
    let given = [inputs(&shard, 0), inputs(&shard, 50)];
    let sim = || SimDevice::default().open(&shard, CoreId::Npu(0)).unwrap();
    let wanted = given.each_ref().map(|g| values(&mut *sim(), g));
    assert_ne!(wanted[0], wanted[1]);
    let mut two = [0, 1].map(|n| device.open(&shard, CoreId::Npu(n)).unwrap());
    for at in [0, 1, 1, 0, 1] {
        assert_eq!(values(&mut *two[at], &given[at]), wanted[at]);
    }
    std::thread::scope(|scope| {
        for (n, (given, wanted)) in (0..).zip(given.iter().zip(&wanted)) {
            let (device, shard) = (&device, &shard);
            scope.spawn(move || {
                let mut session = device.open(shard, CoreId::Npu(n)).unwrap();
                (0..20).for_each(|_| assert_eq!(values(&mut *session, given), *wanted));
            });
        }
    });
}

#[test]
fn failures_name_shard_core_and_code() {
    let (good, device) = (shard("conv-residual"), device());
    let named = |text: &str| ShardFile { path: text.into(), ..good.clone() };
    let mut other = good.clone();
    other.outputs[0].shape = vec![1, 16, 8, 9];
    let mut integers = good.clone();
    integers.inputs[1].dtype = DType::I64;
    let table = [
        (
            named("none.onnx"),
            CoreId::Npu(1),
            DeviceErrorKind::Load,
            "shard conv-residual on core 1: rknn_init gave RKNN_ERR_MODEL_INVALID (-6)",
        ),
        (other, CoreId::Npu(0), DeviceErrorKind::Load, "[1, 16, 8, 9]"),
        (integers, CoreId::Npu(0), DeviceErrorKind::Load, "run this shard on the host"),
        (good.clone(), CoreId::Npu(3), DeviceErrorKind::Unavailable, "the NPU has 3 cores"),
        (good.clone(), CoreId::Host, DeviceErrorKind::Unavailable, "open them on the CPU device"),
    ];
    for (shard, core, kind, text) in table {
        let error = device.open(&shard, core).err().unwrap();
        assert!(error.kind == kind && error.to_string().contains(text), "{error}");
    }
    let mut session = device.open(&good, CoreId::Npu(2)).unwrap();
    let given = inputs(&good, 0);
    let error = session.run(&given[..1]).unwrap_err();
    assert!(
        error.kind == DeviceErrorKind::Input
            && error.to_string() == "shard conv-residual on core 2: takes 2 inputs, got 1",
        "{error}"
    );
    assert!(session.run(&given).is_ok(), "a refused run leaves the session usable");
}

#[test]
fn a_library_that_is_not_there_is_said_so() {
    let error =
        RknnDevice::load(Some(Path::new("nowhere/librknnrt.so"))).err().unwrap().to_string();
    assert!(
        error.starts_with("nowhere/librknnrt.so cannot be loaded")
            && error.contains("install Rockchip's librknnrt"),
        "{error}"
    );
}
