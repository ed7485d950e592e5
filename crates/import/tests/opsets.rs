//! Every supported opset, with the operators whose form changed between them: ReduceMean's axes (18), Split's number of parts (18).

use bytes::Bytes;
use prost::Message;
use rockshard_import::{ImportOptions, NEWEST_OPSET, OLDEST_OPSET, import_model};
use rockshard_onnx::Model;
use rockshard_onnx::schema::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto,
    TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataType, tensor_shape_proto::Dimension, tensor_shape_proto::dimension,
    type_proto,
};
use std::path::Path;

fn node(op: &str, inputs: &[&str], outputs: &[&str], attribute: Vec<AttributeProto>) -> NodeProto {
    let words = |list: &[&str]| list.iter().map(|w| (*w).to_owned()).collect();
    NodeProto {
        op_type: Some(op.into()),
        input: words(inputs),
        output: words(outputs),
        attribute,
        ..NodeProto::default()
    }
}

fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    }
}

fn model(opset: i64) -> Model {
    let dim = |d| Dimension { value: Some(dimension::Value::DimValue(d)), ..Dimension::default() };
    let tensor = type_proto::Tensor {
        elem_type: Some(DataType::Float as i32),
        shape: Some(TensorShapeProto { dim: vec![dim(3), dim(4), dim(6)] }),
    };
    let info = |name: &str| ValueInfoProto {
        name: Some(name.into()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor.clone())),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    };
    let axes = AttributeProto {
        name: Some("axes".into()),
        r#type: Some(AttributeType::Ints as i32),
        ints: vec![1],
        ..AttributeProto::default()
    };
    let (mean, split) = if opset < 18 {
        (
            node("ReduceMean", &["x"], &["mean"], vec![axes, int("keepdims", 0)]),
            vec![int("axis", -1)],
        )
    } else {
        (
            node("ReduceMean", &["x", "axes"], &["mean"], vec![int("keepdims", 0)]),
            vec![int("axis", -1), int("num_outputs", 2)],
        )
    };
    let graph = GraphProto {
        node: vec![
            mean,
            node("Split", &["mean"], &["a", "b"], split),
            node("Add", &["a", "b"], &["y"], vec![]),
        ],
        input: vec![info("x")],
        output: vec![ValueInfoProto { name: Some("y".into()), ..ValueInfoProto::default() }],
        initializer: vec![TensorProto {
            name: Some("axes".into()),
            dims: vec![1],
            data_type: Some(DataType::Int64 as i32),
            int64_data: vec![1],
            ..TensorProto::default()
        }],
        ..GraphProto::default()
    };
    let opset_import =
        vec![OperatorSetIdProto { version: Some(opset), ..OperatorSetIdProto::default() }];
    let proto = ModelProto { graph: Some(graph), opset_import, ..ModelProto::default() };
    Model::decode(Bytes::from(proto.encode_to_vec()), Path::new("opset.onnx")).unwrap()
}

#[test]
fn every_supported_opset_imports_alike() {
    for opset in OLDEST_OPSET..=NEWEST_OPSET {
        let graph = import_model(&model(opset), &ImportOptions::fixed(), None)
            .unwrap_or_else(|e| panic!("opset {opset}: {e}"));
        assert_eq!(graph.value(graph.outputs[0]).shape, [3, 3], "opset {opset}");
        assert_eq!(
            graph.operators().into_keys().collect::<Vec<_>>(),
            ["Add", "ReduceMean", "Slice"],
            "opset {opset}"
        );
    }
}

#[test]
fn other_opsets_are_refused_by_number() {
    for opset in [OLDEST_OPSET - 1, NEWEST_OPSET + 1] {
        let error =
            import_model(&model(opset), &ImportOptions::fixed(), None).unwrap_err().to_string();
        assert!(
            error.contains(&format!("opset {opset} is not supported"))
                && error.contains("from 11 to 26"),
            "{error}"
        );
    }
}
