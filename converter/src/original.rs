//! The outside judge of the importer: the original file, run whole by the reference engine's own reading of ONNX, against the reference that
//! is cut from the imported graph. What both read wrong alike, nothing here can see; the engine shares no code with the importer.

use crate::calibrate::Sample;
use rockshard_device::{Device, OnnxModel};
use rockshard_manifest::ImportCheck;
use rockshard_tensor::Tensor;
use std::collections::BTreeMap;
use std::path::Path;

/// Largest relative L2 distance of outputs that are the same. Both engines compute in float32, in other orders.
const SAME: f64 = 1e-4;

/// Run a file on inputs and compare with what the reference made of them.
pub fn check_original(
    engine: &dyn Device,
    file: &Path,
    inputs: &Sample,
    reference: &BTreeMap<String, Tensor>,
) -> ImportCheck {
    let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(n, t)| (n.as_str(), t)).collect();
    let wanted: Vec<&str> = reference.keys().map(String::as_str).collect();
    let found = match engine.evaluate(OnnxModel::File(file), &given, &wanted) {
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
