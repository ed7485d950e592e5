//! Extents and outputs that the caller fixes, entered in the parts that have them.

use super::{Part, Source, refused};
use crate::ConvertError;
use crate::part::in_part;
use crate::request::Fixed;
use rockshard_onnx::load;
use rockshard_onnx::schema::{
    GraphProto, ValueInfoProto, tensor_shape_proto::dimension, type_proto,
};
use std::collections::BTreeSet;

impl Source {
    /// Fix shapes and outputs.
    ///
    /// # Errors
    /// A name that no part has; what there is instead is listed.
    pub fn fix(&mut self, fixed: &Fixed) -> Result<(), ConvertError> {
        if *fixed == Fixed::default() {
            return Ok(());
        }
        let path = self.parts.first().map(|p| p.path.clone()).unwrap_or_default();
        let mut known = Known::default();
        for part in &mut self.parts {
            let model = load(&part.path).map_err(|e| in_part(part)(e.into()))?;
            if let Some(graph) = &model.proto.graph {
                fix_part(part, graph, fixed, &mut known);
            }
        }
        known
            .check("dimension", fixed.dims.keys(), &known.dims)
            .and_then(|()| known.check("input", fixed.shapes.keys(), &known.inputs))
            .and_then(|()| known.check("output", fixed.outputs.iter(), &known.outputs))
            .map_err(|problem| refused(&path, problem))
    }
}

/// Names that the parts have, and those that were met.
#[derive(Default)]
struct Known {
    dims: BTreeSet<String>,
    inputs: BTreeSet<String>,
    outputs: BTreeSet<String>,
    met: BTreeSet<String>,
}

impl Known {
    fn check<'a>(
        &self,
        what: &str,
        mut asked: impl Iterator<Item = &'a String>,
        known: &BTreeSet<String>,
    ) -> Result<(), String> {
        match asked.find(|name| !self.met.contains(*name)) {
            None => Ok(()),
            Some(name) => {
                let known: Vec<&str> = known.iter().map(String::as_str).collect();
                let list = if known.is_empty() { "none".into() } else { known.join(", ") };
                Err(format!("has no {what} {name:?}; there are: {list}"))
            }
        }
    }
}

fn fix_part(part: &mut Part, graph: &GraphProto, fixed: &Fixed, known: &mut Known) {
    let weights: BTreeSet<&str> =
        graph.initializer.iter().filter_map(|t| t.name.as_deref()).collect();
    for input in &graph.input {
        let name = input.name.clone().unwrap_or_default();
        if weights.contains(name.as_str()) {
            continue;
        }
        known.inputs.insert(name.clone());
        let mut shape = part.shapes.iter().find(|(n, _)| *n == name).map(|(_, s)| s.clone());
        for (axis, dim) in dims(input).iter().enumerate() {
            let Some(dim) = dim else { continue };
            known.dims.insert(dim.clone());
            if let Some(&extent) = fixed.dims.get(dim) {
                known.met.insert(dim.clone());
                part.dims.insert(dim.clone(), extent);
                if let Some(place) = shape.as_mut().and_then(|s| s.get_mut(axis)) {
                    *place = extent;
                }
            }
        }
        for key in [format!("{}.{name}", part.name), name.clone()] {
            if let Some(given) = fixed.shapes.get(&key) {
                known.met.insert(key);
                shape = Some(given.clone());
                break;
            }
        }
        if let Some(shape) = shape {
            part.shapes.retain(|(n, _)| *n != name);
            part.shapes.push((name, shape));
        }
    }
    let made: BTreeSet<&str> =
        graph.node.iter().flat_map(|n| &n.output).map(String::as_str).collect();
    known.outputs.extend(graph.output.iter().filter_map(|o| o.name.clone()));
    let own: Vec<String> = fixed
        .outputs
        .iter()
        .filter(|o| made.contains(o.as_str()) || known.outputs.contains(*o))
        .cloned()
        .collect();
    if !own.is_empty() {
        known.met.extend(own.iter().cloned());
        part.outputs = own;
    }
}

/// Names of an input's open dimensions.
fn dims(input: &ValueInfoProto) -> Vec<Option<String>> {
    let Some(type_proto::Value::TensorType(tensor)) =
        input.r#type.as_ref().and_then(|t| t.value.as_ref())
    else {
        return Vec::new();
    };
    let name = |value: &Option<dimension::Value>| match value {
        Some(dimension::Value::DimParam(name)) => Some(name.clone()),
        _ => None,
    };
    tensor.shape.iter().flat_map(|s| &s.dim).map(|d| name(&d.value)).collect()
}
