//! The outside judge of the importer: the original file, run whole by the reference engine's own reading of ONNX, against the reference that
//! is cut from the imported graph. It runs as it was read, with its repairs, of which it is no judge. What both read wrong alike, nothing here
//! can see; the engine shares no code with the importer.

use crate::ConvertError;
use crate::calibrate::Sample;
use crate::family::Part;
use crate::part::{Imported, import};
use rockshard_device::{Device, OnnxModel};
use rockshard_import::Note;
use rockshard_manifest::ImportCheck;
use rockshard_onnx::schema::{
    AttributeProto, ModelProto, NodeProto, TensorProto, attribute_proto::AttributeType,
    tensor_proto::DataType,
};
use rockshard_onnx::{Model, encode};
use rockshard_tensor::Tensor;
use std::collections::BTreeMap;

/// Largest relative L2 distance of outputs that are the same. Both engines compute in float32, in other orders.
const SAME: f64 = 1e-4;

/// Run a part's file on inputs and compare with what the reference made of them. A file that was repaired when it was read is run with the
/// same repairs and nothing else changed, and masks that are constants are fed as such.
///
/// # Errors
/// The file cannot be read.
pub fn check_original(
    engine: &dyn Device,
    part: &Part,
    inputs: &Sample,
    reference: &BTreeMap<String, Tensor>,
) -> Result<ImportCheck, ConvertError> {
    Ok(check_read(engine, &import(part, Some(engine))?, inputs, reference))
}

/// As [`check_original`], of a part that was read.
pub(crate) fn check_read(
    engine: &dyn Device,
    read: &Imported,
    inputs: &Sample,
    reference: &BTreeMap<String, Tensor>,
) -> ImportCheck {
    let fed: Vec<_> = read.notes.iter().filter_map(Note::fed).collect();
    let given = inputs.iter().map(|(n, t)| (n.as_str(), t));
    let given: Vec<(&str, &Tensor)> = given.chain(fed.iter().map(|(n, t)| (*n, t))).collect();
    let wanted: Vec<&str> = reference.keys().map(String::as_str).collect();
    let found = repaired(&read.model, &read.notes).and_then(|repaired| match repaired {
        Some(model) => engine.evaluate(OnnxModel::Bytes(&encode(&model)), &given, &wanted),
        None => engine.evaluate(OnnxModel::File(read.model.path()), &given, &wanted),
    });
    let found = match found {
        Ok(found) => found,
        Err(reason) => return ImportCheck::Unchecked { reason },
    };
    let mut largest = 0.0f64;
    for ((name, expected), found) in reference.iter().zip(&found) {
        match distance(expected, found) {
            Ok(distance) if distance <= SAME => largest = largest.max(distance),
            Ok(distance) => {
                let reason = format!("output {name:?} is off by {distance:.1e} (relative L2)");
                return ImportCheck::Fail { reason };
            }
            Err(problem) => {
                return ImportCheck::Fail { reason: format!("output {name:?} {problem}") };
            }
        }
    }
    ImportCheck::Pass { distance: largest }
}

/// The file's message with what was repaired when it was read, and all weights in it; `None` where nothing was.
fn repaired(model: &Model, notes: &[Note]) -> Result<Option<ModelProto>, String> {
    if !notes.iter().any(Note::is_repair) {
        return Ok(None);
    }
    let mut proto = model.whole().map_err(|e| e.to_string())?;
    let graph = proto.graph.get_or_insert_default();
    for note in notes {
        let (output, input, positions) = match note {
            Note::RealIndices { output, input, .. } => (output, *input, None),
            Note::PositionIds { output, shape, .. } => (output, 1, Some(shape)),
            _ => continue,
        };
        let at = graph.node.iter().position(|n| n.output.first() == Some(output));
        let at = at.ok_or("it was repaired in a function or branch, where it cannot be run so")?;
        let name = format!("{output}/repaired{input}");
        let old = std::mem::replace(&mut graph.node[at].input[input], name.clone());
        match positions {
            Some(shape) => {
                graph.initializer.retain(|t| t.name.as_ref() != Some(&name));
                graph.node.retain(|n| n.output.first() != Some(&name));
                graph.initializer.push(ids(name, shape));
            }
            None => graph.node.insert(at, whole(old, name)),
        }
    }
    Ok(Some(proto))
}

/// A node that makes whole numbers of real ones.
fn whole(from: String, to: String) -> NodeProto {
    let kind = AttributeProto {
        name: Some("to".into()),
        r#type: Some(AttributeType::Int as i32),
        i: Some(DataType::Int64 as i64),
        ..AttributeProto::default()
    };
    NodeProto {
        op_type: Some("Cast".into()),
        input: vec![from],
        output: vec![to],
        attribute: vec![kind],
        ..NodeProto::default()
    }
}

/// The ids 0, 1, 2, ... along the last axis of a shape.
fn ids(name: String, shape: &[usize]) -> TensorProto {
    let count = shape.last().copied().unwrap_or(1).max(1);
    TensorProto {
        name: Some(name),
        dims: shape.iter().map(|&d| d as i64).collect(),
        data_type: Some(DataType::Int64 as i32),
        int64_data: (0..shape.iter().product()).map(|at: usize| (at % count) as i64).collect(),
        ..TensorProto::default()
    }
}

/// Relative L2 distance; the share of elements that differ, of integers.
fn distance(reference: &Tensor, found: &Tensor) -> Result<f64, String> {
    if reference.shape() != found.shape() {
        let shapes = (reference.shape(), found.shape());
        return Err(format!("has shape {:?}, the file gives {:?}", shapes.0, shapes.1));
    }
    if let (Ok(a), Ok(b)) = (reference.to_i64(), found.to_i64()) {
        let differ = a.iter().zip(b.iter()).filter(|(a, b)| a != b).count();
        return Ok(differ as f64 / a.len().max(1) as f64);
    }
    let (Ok(a), Ok(b)) = (reference.to_f32(), found.to_f32()) else {
        return Err("has another element type".into());
    };
    let (mut difference, mut size) = (0.0f64, 0.0f64);
    for (&a, &b) in a.iter().zip(b.iter()) {
        // Equal infinities are equal; NaN is NaN.
        if a == b || a.is_nan() && b.is_nan() {
            size += if a.is_finite() { f64::from(a).powi(2) } else { 0.0 };
            continue;
        }
        difference += (f64::from(a) - f64::from(b)).powi(2);
        size += f64::from(b).powi(2);
    }
    match difference {
        0.0 => Ok(0.0),
        d if d.is_finite() => Ok((d / size.max(f64::MIN_POSITIVE)).sqrt()),
        _ => Ok(f64::INFINITY),
    }
}
