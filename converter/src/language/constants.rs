//! Constants of an exported graph, through what exporters put between a weight and its use.

use rockshard_onnx::Model;
use rockshard_onnx::schema::{AttributeProto, GraphProto, NodeProto, TensorProto};
use rockshard_tensor::DType;
use std::collections::HashMap;

/// A graph with its values by name.
pub(super) struct Values<'a> {
    model: &'a Model,
    pub graph: &'a GraphProto,
    initializers: HashMap<&'a str, &'a TensorProto>,
    producers: HashMap<&'a str, &'a NodeProto>,
    consumers: HashMap<&'a str, Vec<&'a NodeProto>>,
}

/// A constant as float32.
pub(super) struct Constant {
    pub shape: Vec<usize>,
    pub values: Vec<f32>,
}

pub(super) fn op(node: &NodeProto) -> &str {
    node.op_type.as_deref().unwrap_or_default()
}

pub(super) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|a| a.name.as_deref() == Some(name))
}

/// An integer attribute.
pub(super) fn int(node: &NodeProto, name: &str) -> Option<i64> {
    attribute(node, name)?.i
}

impl<'a> Values<'a> {
    pub fn new(model: &'a Model, graph: &'a GraphProto) -> Self {
        let named = |t: &'a TensorProto| Some((t.name.as_deref()?, t));
        let mut consumers: HashMap<&str, Vec<&NodeProto>> = HashMap::new();
        for node in &graph.node {
            node.input.iter().for_each(|i| consumers.entry(i).or_default().push(node));
        }
        let produced = |n: &'a NodeProto| n.output.iter().map(move |o| (o.as_str(), n));
        Values {
            model,
            graph,
            initializers: graph.initializer.iter().filter_map(named).collect(),
            producers: graph.node.iter().flat_map(produced).collect(),
            consumers,
        }
    }

    /// Take what was read out of memory.
    pub fn release_pages(&self) {
        self.model.release_pages();
    }

    pub fn producer(&self, value: &str) -> Option<&'a NodeProto> {
        self.producers.get(value).copied()
    }

    pub fn consumers(&self, value: &str) -> &[&'a NodeProto] {
        self.consumers.get(value).map_or(&[], Vec::as_slice)
    }

    /// The tensor of a value that never changes, before what stands between; with the nodes there, the last first.
    fn source(&self, value: &str) -> Option<(&'a TensorProto, Vec<&'a NodeProto>)> {
        let mut between = Vec::new();
        let mut value = value;
        loop {
            if let Some(tensor) = self.initializers.get(value) {
                return Some((tensor, between));
            }
            let node = self.producer(value)?;
            match op(node) {
                "Constant" => return Some((attribute(node, "value")?.t.as_ref()?, between)),
                "Cast" | "Identity" | "Transpose" => {
                    between.push(node);
                    value = node.input.first()?;
                }
                _ => return None,
            }
        }
    }

    /// The shape of a constant; `None` for other values.
    pub fn shape(&self, value: &str) -> Option<Vec<usize>> {
        let (tensor, between) = self.source(value)?;
        let mut shape: Vec<usize> =
            tensor.dims.iter().map(|&d| usize::try_from(d).ok()).collect::<Option<_>>()?;
        for _ in between.iter().filter(|node| op(node) == "Transpose") {
            if shape.len() != 2 {
                return None;
            }
            shape.reverse();
        }
        Some(shape)
    }

    /// A constant of numbers.
    pub fn constant(&self, value: &str) -> Result<Constant, String> {
        let (tensor, between) = self.source(value).ok_or_else(|| format!("{value:?} varies"))?;
        let tensor = self.model.tensor(tensor).map_err(|e| e.to_string())?;
        let float = tensor.to_float(DType::F32).map_err(|e| e.to_string())?;
        let mut values = float.to_f32().map_err(|e| e.to_string())?.into_owned();
        let mut shape = tensor.shape().to_vec();
        for _ in between.iter().filter(|node| op(node) == "Transpose") {
            let [rows, columns] = shape[..] else {
                return Err(format!("{value:?} is transposed in {} dimensions", shape.len()));
            };
            values = transposed(&values, rows, columns);
            shape = vec![columns, rows];
        }
        Ok(Constant { shape, values })
    }

    /// Whether a constant has real numbers.
    pub fn is_float(&self, value: &str) -> bool {
        let tensor = self.source(value).and_then(|(tensor, _)| self.model.tensor(tensor).ok());
        tensor.is_some_and(|tensor| tensor.dtype().is_float())
    }

    /// The bytes of a constant of 8-bit values.
    pub fn bytes(&self, value: &str) -> Result<Vec<u8>, String> {
        let (tensor, _) = self.source(value).ok_or_else(|| format!("{value:?} varies"))?;
        let tensor = self.model.tensor(tensor).map_err(|e| e.to_string())?;
        let whole = tensor.to_i64().map_err(|e| e.to_string())?;
        Ok(whole.iter().map(|&v| v as u8).collect())
    }
}

/// Columns as rows.
pub(super) fn transposed(values: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut out = vec![0.0; values.len()];
    // In squares that stay in the cache.
    const SIDE: usize = 32;
    for row in (0..rows).step_by(SIDE) {
        for column in (0..columns).step_by(SIDE) {
            for r in row..rows.min(row + SIDE) {
                for c in column..columns.min(column + SIDE) {
                    out[c * rows + r] = values[r * columns + c];
                }
            }
        }
    }
    out
}
