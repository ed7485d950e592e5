//! Small ONNX models.

use bytes::Bytes;
use prost::Message;
use rockshard_onnx::schema::tensor_shape_proto::{Dimension, dimension};
use rockshard_onnx::schema::{
    AttributeProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto, StringStringEntryProto,
    TensorProto, TensorShapeProto, TypeProto, ValueInfoProto, attribute_proto::AttributeType,
    tensor_proto::DataLocation, tensor_proto::DataType, type_proto,
};

pub const OPSET: i64 = 17;

/// An extent, fixed or named.
pub enum Extent {
    Fixed(i64),
    Named(&'static str),
}
use Extent::{Fixed, Named};

/// `y = x w` for `x` of shape 1x4, with nodes of the caller's choice.
pub fn model(node: Vec<NodeProto>) -> ModelProto {
    let graph = GraphProto {
        name: Some("small".into()),
        node,
        initializer: vec![weight(&[0.5; 16])],
        input: vec![value("x", &[Fixed(1), Fixed(4)])],
        output: vec![value("y", &[Fixed(1), Fixed(4)])],
        ..GraphProto::default()
    };
    let opset_import = vec![OperatorSetIdProto { domain: None, version: Some(OPSET) }];
    ModelProto { ir_version: Some(8), graph: Some(graph), opset_import, ..ModelProto::default() }
}

/// A model that converts.
pub fn good() -> ModelProto {
    model(vec![product()])
}

pub fn product() -> NodeProto {
    node("product", "MatMul", "x w", "y")
}

pub fn node(name: &str, op: &str, inputs: &str, output: &str) -> NodeProto {
    NodeProto {
        name: Some(name.into()),
        op_type: Some(op.into()),
        input: inputs.split_whitespace().map(str::to_owned).collect(),
        output: vec![output.to_owned()],
        ..NodeProto::default()
    }
}

pub fn value(name: &str, extents: &[Extent]) -> ValueInfoProto {
    let extent = |e: &Extent| match e {
        Fixed(n) => dimension::Value::DimValue(*n),
        Named(name) => dimension::Value::DimParam((*name).into()),
    };
    let dim = extents
        .iter()
        .map(|e| Dimension { value: Some(extent(e)), ..Dimension::default() })
        .collect();
    let tensor = type_proto::Tensor {
        elem_type: Some(DataType::Float as i32),
        shape: Some(TensorShapeProto { dim }),
    };
    let r#type =
        TypeProto { value: Some(type_proto::Value::TensorType(tensor)), ..TypeProto::default() };
    ValueInfoProto { name: Some(name.into()), r#type: Some(r#type), ..ValueInfoProto::default() }
}

/// The initializer `w` of shape 4x4.
pub fn weight(values: &[f32; 16]) -> TensorProto {
    TensorProto {
        name: Some("w".into()),
        data_type: Some(DataType::Float as i32),
        dims: vec![4, 4],
        raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()),
        ..TensorProto::default()
    }
}

/// A constant of whole numbers.
pub fn integers(name: &str, values: &[i64]) -> TensorProto {
    TensorProto {
        name: Some(name.into()),
        data_type: Some(DataType::Int64 as i32),
        dims: vec![values.len() as i64],
        raw_data: Some(values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>().into()),
        ..TensorProto::default()
    }
}

/// A weight of small numbers.
pub fn floats(name: &str, dims: &[i64]) -> TensorProto {
    let count: i64 = dims.iter().product();
    let value = |i: i64| ((i * 37 % 101) as f32 - 50.0) / 5000.0;
    TensorProto {
        name: Some(name.into()),
        data_type: Some(DataType::Float as i32),
        dims: dims.to_vec(),
        raw_data: Some((0..count).flat_map(|i| value(i).to_le_bytes()).collect::<Vec<u8>>().into()),
        ..TensorProto::default()
    }
}

/// A transpose.
pub fn permuted(name: &str, input: &str, output: &str, perm: &[i64]) -> NodeProto {
    let attribute = AttributeProto {
        name: Some("perm".into()),
        r#type: Some(AttributeType::Ints as i32),
        ints: perm.to_vec(),
        ..AttributeProto::default()
    };
    NodeProto { attribute: vec![attribute], ..node(name, "Transpose", input, output) }
}

/// A model that converts, but for the place of its weight.
pub fn with_external(location: &str) -> ModelProto {
    let mut model = good();
    let entry =
        StringStringEntryProto { key: Some("location".into()), value: Some(location.into()) };
    let w = &mut model.graph.as_mut().unwrap().initializer[0];
    w.raw_data = None;
    w.data_location = Some(DataLocation::External as i32);
    w.external_data = vec![entry];
    model
}

pub fn encode(model: &ModelProto) -> Bytes {
    model.encode_to_vec().into()
}
