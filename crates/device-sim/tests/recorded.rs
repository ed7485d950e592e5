//! The rules of the numerics against what Rockchip's simulator gave (`tools/record_simulator.py` recorded it).

use half::f16;
use rockshard_cost::Rk3588;
use rockshard_device::{Session, ShardFile};
use rockshard_device_sim::{Numerics, SimDevice};
use rockshard_graph::{Graph, ValueId};
use rockshard_import::{ImportOptions, import_file};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::{Tensor, read_npy};
use std::path::{Path, PathBuf};

/// Each case, and how many roundings in a row separate its sums from its output.
const CASES: [(&str, f32); 21] = [
    ("sum-whole", 1.0),
    ("sum-halves", 3.0),
    ("sum-three", 5.0),
    ("conv-rest", 3.0),
    ("conv-halves", 3.0),
    ("conv-residual", 2.0),
    ("conv-product", 2.0),
    ("conv-swish", 2.0),
    ("conv-gelu", 2.0),
    ("conv-folded", 1.0),
    ("conv-scaled", 1.0),
    ("layer-norm", 1.0),
    ("group-norm", 2.0),
    ("group-norm-conv", 2.0),
    ("group-norm-tokens", 5.0),
    ("instance-norm", 3.0),
    ("attention", 1.0),
    ("gelu", 1.0),
    ("gelu-tanh", 8.0),
    ("division", 1.0),
    ("sigmoid", 1.0),
];

fn data(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

fn read(name: &str) -> Tensor {
    read_npy(&std::fs::read(data(name)).unwrap().into()).unwrap()
}

fn specs(graph: &Graph, values: &[ValueId]) -> Vec<TensorSpec> {
    let spec = |v: &ValueId| {
        let value = graph.value(*v);
        TensorSpec {
            name: value.name.clone(),
            dtype: value.dtype,
            shape: value.shape.clone(),
            scale: 1.0,
        }
    };
    values.iter().map(spec).collect()
}

/// Distance in units in the last place of the larger of a value and the tensor's root mean square.
fn distance(expected: f32, found: f32, rms: f32) -> f32 {
    let exponent = expected.abs().max(rms).max(2f32.powi(-14)).log2().floor() as i32;
    (expected - found).abs() / 2f32.powi(exponent - 10)
}

#[test]
fn operators_are_as_in_the_vendors_simulator() {
    let mut failed = Vec::new();
    for (name, roundings) in CASES {
        let path = data(&format!("{name}.onnx"));
        let graph = import_file(&path, &ImportOptions::fixed()).unwrap();
        let inputs: Vec<Tensor> =
            (0..graph.inputs.len()).map(|i| read(&format!("{name}.x{i}.npy"))).collect();
        let shard = ShardFile {
            name: name.into(),
            path,
            inputs: specs(&graph, &graph.inputs),
            outputs: specs(&graph, &graph.outputs),
        };
        let mut session = SimDevice::new(Numerics::default(), Rk3588::default())
            .session(graph, &shard, CoreId::Npu(0))
            .unwrap();
        let found = session.run(&inputs).unwrap().outputs.remove(0);
        let (found, expected) = (found.to_f32().unwrap(), read(&format!("{name}.y.npy")));
        let expected = expected.to_f32().unwrap();
        assert_eq!(found.len(), expected.len(), "{name}");
        let rms = (expected.iter().map(|v| v * v).sum::<f32>() / expected.len() as f32).sqrt();
        let rms = f16::from_f32(rms).to_f32();
        let equal = found.iter().zip(&*expected).filter(|(a, b)| a == b).count();
        let worst =
            found.iter().zip(&*expected).map(|(&a, &b)| distance(b, a, rms)).fold(0.0, f32::max);
        // Samples are small, so a little below the 99 % that whole operators keep.
        if equal * 100 < found.len() * 98 || worst > roundings {
            failed.push(format!("{name}: {equal} of {} equal, worst {worst} ulp", found.len()));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
