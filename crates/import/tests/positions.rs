//! Position ids that a rounding error has damaged are repaired, and nothing else is.

use bytes::Bytes;
use prost::Message;
use rockshard_import::{Given, ImportOptions, Note, import_noted};
use rockshard_onnx::Model;
use rockshard_onnx::schema::{
    GraphProto, ModelProto, NodeProto, OperatorSetIdProto, TensorProto, TensorShapeProto,
    TypeProto, ValueInfoProto, tensor_proto::DataType, tensor_shape_proto::Dimension,
    tensor_shape_proto::dimension, type_proto,
};
use std::path::Path;

/// The rows that `table[ids] + x` looks up, by the table's own numbers, and what was noted. `real` ids are float32.
fn looked_up(table: &str, rows: usize, ids: &[i64], real: bool) -> (Vec<f32>, Vec<Note>) {
    let node = |op: &str, inputs: [&str; 2], output: &str| NodeProto {
        name: Some(format!("/embeddings/{op}")),
        op_type: Some(op.into()),
        input: inputs.map(str::to_owned).to_vec(),
        output: vec![output.into()],
        ..NodeProto::default()
    };
    let tensor = |name: &str, dims: Vec<i64>, kind: DataType| TensorProto {
        name: Some(name.into()),
        dims,
        data_type: Some(kind as i32),
        ..TensorProto::default()
    };
    let weights = TensorProto {
        float_data: (0..rows).map(|row| row as f32).collect(),
        ..tensor(table, vec![rows as i64, 1], DataType::Float)
    };
    let dims = vec![1, ids.len() as i64];
    let ids = match real {
        true => TensorProto {
            float_data: ids.iter().map(|&id| id as f32).collect(),
            ..tensor("ids", dims, DataType::Float)
        },
        false => TensorProto { int64_data: ids.to_vec(), ..tensor("ids", dims, DataType::Int64) },
    };
    let dim = || Dimension { value: Some(dimension::Value::DimValue(1)), ..Dimension::default() };
    let kind = type_proto::Tensor {
        elem_type: Some(DataType::Float as i32),
        shape: Some(TensorShapeProto { dim: vec![dim()] }),
    };
    let kind =
        TypeProto { value: Some(type_proto::Value::TensorType(kind)), ..TypeProto::default() };
    let graph = GraphProto {
        node: vec![node("Gather", [table, "ids"], "rows"), node("Add", ["x", "rows"], "y")],
        input: vec![ValueInfoProto {
            name: Some("x".into()),
            r#type: Some(kind),
            ..ValueInfoProto::default()
        }],
        output: vec![ValueInfoProto { name: Some("y".into()), ..ValueInfoProto::default() }],
        initializer: vec![weights, ids],
        ..GraphProto::default()
    };
    let opset_import =
        vec![OperatorSetIdProto { version: Some(18), ..OperatorSetIdProto::default() }];
    let proto = ModelProto { graph: Some(graph), opset_import, ..ModelProto::default() };
    let path = Path::new("positions.onnx");
    let model = Model::decode(Bytes::from(proto.encode_to_vec()), path).unwrap();
    let (graph, notes) = import_noted(&model, &ImportOptions::fixed(), None).unwrap();
    let rows = graph.nodes()[0].inputs.iter().find_map(|&v| graph.constant(v)).unwrap();
    (rows.to_f32().unwrap().into_owned(), notes)
}

/// Ids of a square picture, of each row and column's place.
fn ids(side: i64, place: impl Fn(i64) -> i64) -> Vec<i64> {
    let all = (0..side).flat_map(|row| (0..side).map(move |column| (row, column)));
    all.map(|(row, column)| place(row) * side + place(column)).collect()
}

const TABLE: &str = "vision_model.embeddings.position_embedding.weight";

/// `bucketize(i / n * (1 - 1e-6), [1/n, 2/n, ...])` in float32, as transformers 4.55.1 had it.
fn bucket(side: i64) -> impl Fn(i64) -> i64 {
    move |place| {
        let fraction = place as f32 / side as f32 * (1.0 - 1e-6f32);
        (1..side).filter(|&b| (f64::from(b as i32) / side as f64) as f32 <= fraction).count() as i64
    }
}

#[test]
fn what_the_rounding_error_makes_is_repaired() {
    for side in [3, 8, 24, 27, 32] {
        let damaged = ids(side, bucket(side));
        assert_eq!(damaged, ids(side, |place| (place - 1).max(0)), "{side}");
        for real in [false, true] {
            let (rows, notes) = looked_up(TABLE, damaged.len(), &damaged, real);
            let whole: Vec<f32> = (0..damaged.len()).map(|row| row as f32).collect();
            assert_eq!(rows, whole, "{side}");
            let repairs = notes.iter().filter(|note| note.is_repair()).count();
            assert_eq!((repairs, notes.len()), (1 + usize::from(real), 1 + usize::from(real)));
            let said = notes.last().unwrap().to_string();
            assert!(said.contains("/embeddings/Gather") && said.contains("one too low"), "{said}");
        }
    }
}

#[test]
fn other_ids_are_left_as_they_are() {
    let one_changed = |at: usize| {
        let mut ids = ids(4, |place| (place - 1).max(0));
        ids[at] += 1;
        ids
    };
    let same = |table: &str, rows: usize, ids: &[i64]| {
        let (found, notes) = looked_up(table, rows, ids, false);
        let expected: Vec<f32> = ids.iter().map(|&id| id as f32).collect();
        assert_eq!(found, expected, "{table} {ids:?}");
        notes
    };
    assert!(same(TABLE, 16, &ids(4, |place| place)).is_empty(), "whole as they are");
    for at in [0, 6, 15] {
        let notes = same(TABLE, 16, &one_changed(at));
        assert!(matches!(&notes[..], [Note::OtherPositionIds { .. }]), "{notes:?}");
        assert!(!notes[0].is_repair());
    }
    let fewer = ids(3, |place| (place - 1).max(0));
    assert!(same(TABLE, 16, &fewer).is_empty(), "a part of the table");
    assert!(same("tokens", 16, &one_changed(3)).is_empty(), "no table of positions");
    assert!(!same(TABLE, 4, &ids(2, |_| 0)).iter().any(Note::is_repair), "too few to tell");
}

#[test]
fn only_masks_can_be_ones() {
    let options =
        ImportOptions { given: [("x".to_owned(), Given::Ones)].into(), ..ImportOptions::default() };
    let proto = ModelProto {
        opset_import: vec![OperatorSetIdProto { version: Some(18), ..Default::default() }],
        graph: Some(GraphProto {
            input: vec![ValueInfoProto {
                name: Some("x".into()),
                r#type: Some(TypeProto {
                    value: Some(type_proto::Value::TensorType(type_proto::Tensor {
                        elem_type: Some(DataType::Float as i32),
                        shape: Some(TensorShapeProto { dim: vec![] }),
                    })),
                    ..TypeProto::default()
                }),
                ..ValueInfoProto::default()
            }],
            ..GraphProto::default()
        }),
        ..ModelProto::default()
    };
    let bytes = Bytes::from(proto.encode_to_vec());
    let model = Model::decode(bytes, Path::new("ones.onnx")).unwrap();
    let error = import_noted(&model, &options, None).unwrap_err().to_string();
    assert!(error.contains("\"x\"") && error.contains("real"), "{error}");
}
