//! The device against ONNX Runtime's recorded outputs. `data/make.py` writes the graph and the tensors.

use rockshard_device::{Device, DeviceErrorKind, ShardFile};
use rockshard_device_cpu::CpuDevice;
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::{DType, Tensor, map_file, read_npy};
use std::path::{Path, PathBuf};

fn data(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(file)
}

fn recorded(name: &str) -> Tensor {
    read_npy(&map_file(&data(&format!("{name}.npy"))).unwrap()).unwrap()
}

fn spec(name: &str, dtype: DType, shape: &[usize]) -> TensorSpec {
    TensorSpec { name: name.into(), dtype, shape: shape.to_vec(), scale: 1.0 }
}

fn shard(path: PathBuf) -> ShardFile {
    ShardFile {
        name: "ops".into(),
        path,
        // Neither side is in the graph's order: the device matches by name.
        inputs: vec![spec("ids", DType::I64, &[2, 3]), spec("x", DType::F32, &[1, 4, 6, 6])],
        outputs: vec![
            spec("mask", DType::Bool, &[2, 3]),
            spec("next_ids", DType::I64, &[2, 3]),
            spec("image", DType::F32, &[1, 4, 12, 12]),
            spec("tokens", DType::F32, &[2, 3, 8]),
            spec("angles", DType::F32, &[2, 3, 24]),
        ],
    }
}

fn open_error(shard: &ShardFile) -> String {
    let error = CpuDevice::new().open(shard, CoreId::Host).err().expect("opening fails");
    assert_eq!(error.kind, DeviceErrorKind::Load);
    error.to_string()
}

#[test]
fn agrees_with_onnx_runtime_on_every_core() {
    for (device, core) in
        [(CpuDevice::new(), CoreId::Host), (CpuDevice::with_threads(2), CoreId::Npu(2))]
    {
        let shard = shard(data("ops.onnx"));
        let mut session = device.open(&shard, core).unwrap();
        let done = session.run(&[recorded("ids"), recorded("x")]).unwrap();
        assert_eq!(done.modelled, None);
        for (spec, found) in shard.outputs.iter().zip(&done.outputs) {
            let expected = recorded(&spec.name);
            assert_eq!(
                (found.dtype(), found.shape()),
                (expected.dtype(), expected.shape()),
                "{}",
                spec.name
            );
            if spec.dtype.is_float() {
                let (found, expected) = (found.to_f32().unwrap(), expected.to_f32().unwrap());
                let worst = found
                    .iter()
                    .zip(expected.iter())
                    .map(|(a, b)| (a - b).abs())
                    .fold(0.0, f32::max);
                assert!(worst < 1e-5, "{}: {worst}", spec.name);
            } else {
                assert_eq!(found.bytes(), expected.bytes(), "{}", spec.name);
            }
        }
    }
}

#[test]
fn half_precision_inputs_are_widened_and_sessions_run_again() {
    let mut session = CpuDevice::new().open(&shard(data("ops.onnx")), CoreId::Npu(0)).unwrap();
    let whole = session.run(&[recorded("ids"), recorded("x")]).unwrap();
    let half =
        session.run(&[recorded("ids"), recorded("x").to_float(DType::F16).unwrap()]).unwrap();
    assert!(whole.outputs[2] == half.outputs[2]);
}

#[test]
fn unused_inputs_scalars_and_outputs_that_are_inputs_or_constants_work() {
    let two = |name: &str| spec(name, DType::F32, &[2]);
    let shard = ShardFile {
        name: "edges".into(),
        path: data("edges.onnx"),
        inputs: vec![two("a"), spec("factor", DType::F32, &[]), spec("unused", DType::F32, &[3])],
        outputs: vec![two("product"), two("same"), two("a"), spec("constant", DType::F32, &[1])],
    };
    let mut session = CpuDevice::new().open(&shard, CoreId::Host).unwrap();
    let inputs = [
        Tensor::from_f32([2], vec![1.5, -2.0]),
        Tensor::scalar(2.0),
        Tensor::from_f32([3], vec![0.0; 3]),
    ];
    let outputs = session.run(&inputs).unwrap().outputs;
    let values: Vec<Vec<f32>> = outputs.iter().map(|t| t.to_f32().unwrap().into_owned()).collect();
    assert_eq!(values, [vec![3.0, -4.0], vec![1.5, -2.0], vec![1.5, -2.0], vec![7.0]]);
}

#[test]
fn an_index_beyond_int32_is_refused_with_its_place() {
    let mut session = CpuDevice::new().open(&shard(data("ops.onnx")), CoreId::Host).unwrap();
    let ids = Tensor::from_i64([2, 3], vec![0, 1, 1 << 40, 0, 0, 0]);
    let error = session.run(&[ids, recorded("x")]).unwrap_err();
    assert_eq!(error.kind, DeviceErrorKind::Input);
    assert!(error.to_string().contains("\"ids\": value 1099511627776 at 2"), "{error}");
}

#[test]
fn wrong_inputs_and_out_of_range_indices_are_errors() {
    let mut session = CpuDevice::new().open(&shard(data("ops.onnx")), CoreId::Host).unwrap();
    assert_eq!(
        session.run(&[recorded("x"), recorded("ids")]).unwrap_err().kind,
        DeviceErrorKind::Input
    );
    assert_eq!(session.run(&[recorded("x")]).unwrap_err().kind, DeviceErrorKind::Input);
    let error = session.run(&[Tensor::from_i64([2, 3], vec![10; 6]), recorded("x")]).unwrap_err();
    assert_eq!(error.kind, DeviceErrorKind::Run);
}

#[test]
fn a_boundary_that_disagrees_with_the_graph_does_not_open() {
    let good = shard(data("ops.onnx"));
    let mut missing = good.clone();
    missing.inputs.pop();
    assert!(open_error(&missing).contains("ops.onnx: the graph needs input \"x\""));
    let mut unknown = good.clone();
    unknown.outputs[0].name = "nowhere".into();
    assert!(open_error(&unknown).contains("output \"nowhere\""));
    let mut shape = good.clone();
    shape.inputs[1].shape[3] = 7;
    assert!(open_error(&shape).contains("declares [1, 4, 6, 7]"));
    let mut dtype = good;
    dtype.inputs[0].dtype = DType::F32;
    assert!(open_error(&dtype).contains("input \"ids\""));
}

#[test]
fn files_that_cannot_be_read_are_named() {
    assert!(open_error(&shard(data("absent.onnx"))).contains("absent.onnx"));
    assert!(open_error(&shard(data("ops.rknn"))).contains(".onnx graphs"));
    let folder = tempfile::tempdir().unwrap();
    let bytes = std::fs::read(data("ops.onnx")).unwrap();
    let cut = folder.path().join("cut.onnx");
    std::fs::write(&cut, &bytes[..bytes.len() / 2]).unwrap();
    assert!(open_error(&shard(cut)).contains("cut.onnx"));
    let alone = folder.path().join("alone.onnx");
    std::fs::write(&alone, &bytes).unwrap();
    assert!(open_error(&shard(alone.clone())).contains("ops.onnx_data"));
    std::fs::write(folder.path().join("ops.onnx_data"), [0; 16]).unwrap();
    assert!(open_error(&shard(alone)).contains("too short"));
}

#[test]
fn a_core_that_is_not_there_is_unavailable() {
    let error = CpuDevice::new().open(&shard(data("ops.onnx")), CoreId::Npu(3)).err().unwrap();
    assert_eq!(error.kind, DeviceErrorKind::Unavailable);
}
