//! What is written reads back, and files that are cut short, lie about lengths or point elsewhere are refused with a reason.

use bytes::Bytes;
use prost::Message;
use rockshard_onnx::schema::{
    GraphProto, ModelProto, StringStringEntryProto, TensorProto, tensor_proto::DataLocation,
    tensor_proto::DataType,
};
use rockshard_onnx::{Model, Weights, load, save};
use rockshard_tensor::{DType, Tensor};
use std::fs;
use std::path::Path;

fn model(initializer: Vec<TensorProto>) -> ModelProto {
    ModelProto {
        graph: Some(GraphProto { initializer, ..GraphProto::default() }),
        ..ModelProto::default()
    }
}

fn decode(proto: &ModelProto, path: &Path) -> Model {
    Model::decode(proto.encode_to_vec().into(), path).unwrap()
}

fn tensor(kind: DataType, dims: &[i64], raw: &[u8]) -> TensorProto {
    TensorProto {
        name: Some("w".into()),
        data_type: Some(kind as i32),
        dims: dims.to_vec(),
        raw_data: Some(Bytes::copy_from_slice(raw)),
        ..TensorProto::default()
    }
}

fn external(entries: &[(&str, &str)]) -> TensorProto {
    let entry = |&(key, value): &(&str, &str)| StringStringEntryProto {
        key: Some(key.into()),
        value: Some(value.into()),
    };
    TensorProto {
        raw_data: None,
        data_location: Some(DataLocation::External as i32),
        external_data: entries.iter().map(entry).collect(),
        ..tensor(DataType::Float, &[4], &[])
    }
}

#[test]
fn weights_inline_and_external_read_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.onnx");
    let large = Tensor::from_f32([16, 8], (0..128).map(|v| v as f32).collect());
    let tensors = [
        ("small", Tensor::from_i64([2], vec![-1, i64::MAX])),
        ("large", large.clone()),
        ("again", large.reshape([128]).unwrap()),
        ("half", large.to_float(DType::F16).unwrap()),
        ("flags", Tensor::from_bool([3], vec![true, false, true])),
    ];
    let mut weights = Weights::default();
    let initializer = tensors
        .iter()
        .map(|(name, tensor)| weights.initializer(name, tensor, "model.onnx"))
        .collect();
    save(&model(initializer), &weights, &path, &|| ()).unwrap();

    let read = load(&path).unwrap();
    let protos = &read.proto.graph.as_ref().unwrap().initializer;
    for (proto, (name, tensor)) in protos.iter().zip(&tensors) {
        assert_eq!(read.tensor(proto).unwrap(), *tensor, "{name}");
    }
    let offset = |i: usize| {
        protos[i]
            .external_data
            .iter()
            .find(|e| e.key.as_deref() == Some("offset"))
            .and_then(|e| e.value.clone())
    };
    assert_eq!(offset(1), offset(2), "equal bytes are stored once");
    assert_eq!(offset(3).unwrap().parse::<u64>().unwrap() % 64, 0, "data is aligned");
    assert_eq!(offset(0), None, "small tensors stay inside");
}

#[test]
fn other_types_are_widened() {
    let model = decode(&model(vec![]), Path::new("m.onnx"));
    let cases = [
        (tensor(DataType::Double, &[1], &1.5f64.to_le_bytes()), Tensor::from_f32([1], vec![1.5])),
        (tensor(DataType::Bfloat16, &[1], &[0xc0, 0x3f]), Tensor::from_f32([1], vec![1.5])),
        (tensor(DataType::Int8, &[2], &[0xff, 1]), Tensor::from_i32([2], vec![-1, 1])),
        (tensor(DataType::Uint8, &[2], &[0xff, 1]), Tensor::from_i32([2], vec![255, 1])),
        (tensor(DataType::Int16, &[1], &[0xfe, 0xff]), Tensor::from_i32([1], vec![-2])),
        (tensor(DataType::Uint16, &[1], &[0xfe, 0xff]), Tensor::from_i32([1], vec![65534])),
        (tensor(DataType::Uint64, &[], &7u64.to_le_bytes()), Tensor::from_i64([], vec![7])),
    ];
    for (proto, expected) in cases {
        assert_eq!(model.tensor(&proto).unwrap(), expected);
    }
    let typed = TensorProto {
        raw_data: None,
        float_data: vec![0.25, 4.0],
        ..tensor(DataType::Float, &[2], &[])
    };
    assert_eq!(model.tensor(&typed).unwrap(), Tensor::from_f32([2], vec![0.25, 4.0]));
}

#[test]
fn bad_tensors_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data"), [0; 20]).unwrap();
    let model = decode(&model(vec![]), &folder.path().join("m.onnx"));
    let cases = [
        (tensor(DataType::Float, &[2], &[0; 7]), "shape [2] of float32 takes 8 bytes, found 7"),
        (tensor(DataType::Float, &[-1], &[]), "shape [-1] has a negative extent"),
        (tensor(DataType::Float, &[i64::MAX, 4], &[]), "has too many elements"),
        (tensor(DataType::Double, &[1 << 62], &[]), "has too many elements"),
        (tensor(DataType::String, &[1], &[0]), "element type 8 is not supported"),
        (
            TensorProto { data_type: Some(99), ..tensor(DataType::Float, &[], &[]) },
            "element type 99 is not supported",
        ),
        (external(&[]), "path \"\" is not made of plain relative components"),
        (
            external(&[("location", "../data")]),
            "path \"../data\" is not made of plain relative components",
        ),
        (external(&[("location", "/etc/passwd")]), "is not made of plain relative components"),
        (external(&[("location", "gone")]), "gone: "),
        (external(&[("location", "data"), ("offset", "8")]), "needs bytes 8..24 of "),
        (
            external(&[("location", "data"), ("offset", "18446744073709551615")]),
            "needs bytes 18446744073709551615..18446744073709551615",
        ),
        (external(&[("location", "data"), ("length", "12")]), "takes 16 bytes, found 12"),
        (
            external(&[("location", "data"), ("offset", "-1")]),
            "external data has offset \"-1\", which is no byte count",
        ),
        (
            external(&[("location", "data"), ("length", "many")]),
            "external data has length \"many\"",
        ),
    ];
    for (proto, message) in cases {
        let error = model.tensor(&proto).expect_err(message).to_string();
        assert!(
            error.starts_with("tensor \"w\": ") && error.contains(message),
            "{error:?} does not say {message:?}"
        );
    }
    assert!(model.tensor(&external(&[("location", "data"), ("offset", "4")])).is_ok());
}

#[test]
fn files_cut_short_are_refused_or_have_no_graph() {
    let whole = model(vec![tensor(DataType::Float, &[2], &[0; 8])]).encode_to_vec();
    for n in 0..whole.len() {
        let error = Model::decode(Bytes::copy_from_slice(&whole[..n]), Path::new("cut.onnx"))
            .err()
            .expect("cut short")
            .to_string();
        assert!(error.starts_with("cut.onnx: "), "{error}");
    }
    let gone = load(Path::new("no/such.onnx")).err().unwrap().to_string();
    assert!(gone.starts_with("no/such.onnx: "), "{gone}");
}
