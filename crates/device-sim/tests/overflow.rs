//! Register fields that overflow: an error, or the zeros that a board gives.

use rockshard_cost::Rk3588;
use rockshard_device::{DeviceErrorKind, Session, ShardFile};
use rockshard_device_sim::{Numerics, SimDevice};
use rockshard_graph::{Binary, Graph, Op};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::{DType, Tensor};

/// Twice the input, of 9000 rows.
fn double() -> (Graph, ShardFile) {
    let shape = [1, 9000, 2];
    let mut graph = Graph::new("double");
    let x = graph.add_value("x", DType::F32, shape.to_vec());
    let two = graph.add_constant("two", Tensor::scalar(2.0));
    let y = graph.add_value("y", DType::F32, shape.to_vec());
    graph.add_node("mul", Op::Binary(Binary::Mul), vec![x, two], y);
    (graph.inputs, graph.outputs) = (vec![x], vec![y]);
    graph.verify().unwrap();
    let spec = |name: &str| {
        vec![TensorSpec { name: name.into(), dtype: DType::F32, shape: shape.to_vec(), scale: 1.0 }]
    };
    (
        graph,
        ShardFile {
            name: "double".into(),
            path: "memory".into(),
            inputs: spec("x"),
            outputs: spec("y"),
        },
    )
}

fn run(chip: Rk3588) -> Result<Vec<f32>, DeviceErrorKind> {
    let (graph, shard) = double();
    let mut session = SimDevice::new(Numerics::default(), chip)
        .session(graph, &shard, CoreId::Npu(0))
        .map_err(|e| e.kind)?;
    let done =
        session.run(&[Tensor::from_f32([1, 9000, 2], vec![1.0; 18_000])]).map_err(|e| e.kind)?;
    assert_eq!((done.outputs[0].dtype(), done.outputs[0].shape()), (DType::F16, &[1, 9000, 2][..]));
    Ok(done.outputs[0].to_f32().unwrap().into_owned())
}

#[test]
fn what_does_not_fit_the_registers_is_an_error_or_zeros() {
    let board = Rk3588 { zeros_on_overflow: true, ..Rk3588::default() };
    let larger = Rk3588 { largest_extent: 9000, ..board.clone() };
    assert_eq!(run(Rk3588::default()), Err(DeviceErrorKind::Limit));
    assert_eq!(run(board.clone()), Ok(vec![0.0; 18_000]));
    assert_eq!(run(larger), Ok(vec![2.0; 18_000]), "what fits is computed");
    assert_eq!(
        run(Rk3588 { address_space: 1000, ..board }),
        Err(DeviceErrorKind::Limit),
        "memory is an error on boards too"
    );
}
