//! One part of a model: its graph, with the weights mapped from its files.

use crate::ConvertError;
use crate::family::Part;
use rockshard_device::{Device, OnnxModel};
use rockshard_graph::Graph;
use rockshard_import::{ImportOptions, import_model};
use rockshard_tensor::{MappedFile, Tensor};
use std::collections::BTreeSet;
use std::path::Path;

/// A part's name, with its resolution.
pub(crate) fn label(part: &Part) -> String {
    let resolution = part.resolution.map(|[w, h]| format!("-{w}x{h}")).unwrap_or_default();
    format!("{}{resolution}", part.name)
}

pub(crate) fn in_part(part: &Part) -> impl Fn(rockshard_import::ImportError) -> ConvertError {
    let (part, path) = (part.name.clone(), part.path.clone());
    move |source| ConvertError::Import { part: part.clone(), path: path.clone(), source }
}

/// The part's graph, and the model whose files hold its weights.
pub(crate) fn import(
    part: &Part,
    reference: &dyn Device,
) -> Result<(rockshard_onnx::Model, Graph), ConvertError> {
    let wrap = in_part(part);
    let model = rockshard_onnx::load(&part.path).map_err(|e| wrap(e.into()))?;
    let options = ImportOptions {
        shapes: part.shapes.iter().cloned().collect(),
        dims: part.dims.clone(),
        outputs: part.outputs.clone(),
    };
    let engine = |model: &[u8], inputs: &[(&str, &Tensor)], outputs: &[&str]| {
        reference.evaluate(OnnxModel::Bytes(model), inputs, outputs)
    };
    let graph = import_model(&model, &options, Some(&engine)).map_err(wrap)?;
    Ok((model, graph))
}

/// Keep a weight in a file of its own in `scratch` instead of in memory.
pub(crate) fn stored(
    weight: &Tensor,
    scratch: &Path,
    files: &mut Vec<MappedFile>,
) -> Result<Tensor, ConvertError> {
    let path = scratch.join(format!("weight-{}", files.len()));
    std::fs::write(&path, weight.bytes()).map_err(ConvertError::io(&path))?;
    let file = MappedFile::open(&path).map_err(ConvertError::io(&path))?;
    let tensor = Tensor::new(weight.dtype(), weight.shape().to_vec(), file.bytes().clone());
    files.push(file);
    tensor.map_err(ConvertError::tensor("weight"))
}

pub(crate) fn check_weights(graph: &Graph, part: &Part) -> Result<(), ConvertError> {
    let mut seen = BTreeSet::new();
    for node in graph.nodes() {
        for &id in node.inputs.iter().filter(|&&id| seen.insert(id)) {
            let nan = graph
                .constant(id)
                .and_then(|t| t.to_f32().ok())
                .is_some_and(|v| v.iter().any(|v| v.is_nan()));
            if nan {
                let weight = graph.value(id).name.clone();
                return Err(ConvertError::NanWeight {
                    part: part.name.clone(),
                    weight,
                    node: node.name.clone(),
                });
            }
        }
    }
    Ok(())
}
