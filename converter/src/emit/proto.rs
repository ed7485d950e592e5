//! Small pieces of ONNX messages: attributes, declared values.

use rockshard_graph::Window;
use rockshard_onnx::schema::{
    AttributeProto, TensorShapeProto, TypeProto, ValueInfoProto,
    attribute_proto::AttributeType,
    tensor_proto::DataType,
    tensor_shape_proto::{Dimension, dimension},
    type_proto,
};
use rockshard_tensor::DType;

/// The element type that a value has in the file.
pub(super) fn data_type(dtype: DType) -> DataType {
    match dtype {
        DType::F32 | DType::F16 => DataType::Float,
        DType::I64 => DataType::Int64,
        DType::I32 => DataType::Int32,
        DType::Bool => DataType::Bool,
    }
}

pub(super) fn described(name: &str, dtype: DType, shape: &[usize]) -> ValueInfoProto {
    let dim = shape
        .iter()
        .map(|&d| Dimension {
            value: Some(dimension::Value::DimValue(d as i64)),
            ..Dimension::default()
        })
        .collect();
    let tensor = type_proto::Tensor {
        elem_type: Some(data_type(dtype) as i32),
        shape: Some(TensorShapeProto { dim }),
    };
    ValueInfoProto {
        name: Some(name.to_owned()),
        r#type: Some(TypeProto {
            value: Some(type_proto::Value::TensorType(tensor)),
            ..TypeProto::default()
        }),
        ..ValueInfoProto::default()
    }
}

pub(super) fn int(name: &str, value: i64) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(value),
        ..AttributeProto::default()
    }
}

pub(super) fn float(name: &str, value: f32) -> AttributeProto {
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Float as i32),
        f: Some(value),
        ..AttributeProto::default()
    }
}

pub(super) fn ints(name: &str, values: &[usize]) -> AttributeProto {
    let ints = values.iter().map(|&v| v as i64).collect();
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::Ints as i32),
        ints,
        ..AttributeProto::default()
    }
}

pub(super) fn text(name: &str, value: &'static str) -> AttributeProto {
    let s = Some(bytes_of(value));
    AttributeProto {
        name: Some(name.into()),
        r#type: Some(AttributeType::String as i32),
        s,
        ..AttributeProto::default()
    }
}

pub(super) fn bytes_of(value: &'static str) -> bytes::Bytes {
    bytes::Bytes::from_static(value.as_bytes())
}

pub(super) fn window_attributes(window: &Window) -> Vec<AttributeProto> {
    vec![
        ints("kernel_shape", &window.kernel),
        ints("strides", &window.strides),
        ints("pads", &window.pads),
    ]
}
