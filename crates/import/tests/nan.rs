//! `IsNaN` behind a softmax: known where a constant mask leaves something of every row, refused where it hides one.

use bytes::Bytes;
use prost::Message;
use rockshard_graph::{Graph, Op};
use rockshard_import::{ImportError, ImportOptions, import_model};
use rockshard_onnx::Model;
use rockshard_onnx::schema::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension, type_proto,
};
use std::path::Path;

const HIDDEN: f32 = f32::NEG_INFINITY;

/// `p = softmax(x + mask); y = IsNaN(p) ? 0 : p`, with x of `[2, 2]`.
fn import(mask: &[f32], dims: &[i64]) -> Result<Graph, ImportError> {
    let node = |op: &str, inputs: &[&str], output: &str| NodeProto {
        op_type: Some(op.into()),
        input: inputs.iter().map(|i| (*i).to_owned()).collect(),
        output: vec![output.into()],
        ..NodeProto::default()
    };
    let floats = |name: &str, dims: &[i64], values: &[f32]| TensorProto {
        name: Some(name.into()),
        dims: dims.to_vec(),
        data_type: Some(DataType::Float as i32),
        float_data: values.to_vec(),
        ..TensorProto::default()
    };
    let dim = || Dimension { value: Some(dimension::Value::DimValue(2)), ..Dimension::default() };
    let tensor = type_proto::Tensor {
        elem_type: Some(DataType::Float as i32),
        shape: Some(TensorShapeProto { dim: vec![dim(), dim()] }),
    };
    let kind =
        TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    let graph = GraphProto {
        node: vec![
            node("Add", &["x", "mask"], "scores"),
            node("Softmax", &["scores"], "p"),
            node("IsNaN", &["p"], "nan"),
            node("Where", &["nan", "zero", "p"], "y"),
            node("Neg", &["y"], "z"),
        ],
        input: vec![ValueInfoProto {
            name: Some("x".into()),
            r#type: Some(kind),
            ..ValueInfoProto::default()
        }],
        output: vec![ValueInfoProto { name: Some("z".into()), ..ValueInfoProto::default() }],
        initializer: vec![floats("mask", dims, mask), floats("zero", &[], &[0.0])],
        ..GraphProto::default()
    };
    let opset_import =
        vec![OperatorSetIdProto { version: Some(18), ..OperatorSetIdProto::default() }];
    let proto = ModelProto { graph: Some(graph), opset_import, ..ModelProto::default() };
    let model = Model::decode(Bytes::from(proto.encode_to_vec()), Path::new("nan.onnx")).unwrap();
    import_model(&model, &ImportOptions::fixed(), None)
}

#[test]
fn a_mask_that_leaves_something_of_every_row_makes_no_nan() {
    for (mask, dims) in [
        (&[0.0, HIDDEN, 0.0, 0.0][..], &[2, 2][..]),
        (&[0.0, HIDDEN], &[2]),
        (&[-1.0, 2.0], &[2, 1]),
    ] {
        let graph = import(mask, dims).unwrap();
        let names: Vec<&str> = graph.nodes().iter().map(|n| n.op.name()).collect();
        assert_eq!(names, ["Add", "Softmax", "Neg"], "{mask:?}");
        assert!(graph.nodes().iter().all(|n| n.op != Op::Where));
    }
}

#[test]
fn a_mask_that_hides_a_row_leaves_the_question_to_the_host() {
    for (mask, dims) in [
        (&[0.0, 0.0, HIDDEN, HIDDEN][..], &[2, 2][..]),
        (&[0.0, HIDDEN], &[2, 1]),
        (&[f32::NAN, 0.0], &[2]),
        (&[f32::INFINITY], &[1]),
    ] {
        let graph = import(mask, dims).unwrap();
        let asked =
            graph.nodes().iter().any(|n| matches!(&n.op, Op::Host(h, _) if h.name == "IsNaN"));
        assert!(asked, "{mask:?}");
    }
}
