//! One part of a model: its graph, with the weights mapped from its files.

use crate::ConvertError;
use crate::family::{Part, precision};
use crate::keys_values;
use crate::partition::host_nodes;
use crate::rounding::{Rounding, largest};
use rayon::prelude::*;
use rockshard_device::{Device, OnnxModel};
use rockshard_graph::{Binary, Graph, Op, ValueId};
use rockshard_import::{ImportError, ImportOptions, Note, import_noted, is_quantised};
use rockshard_manifest::Role;
use rockshard_tensor::{DType, MappedFile, Tensor};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// Inputs whose names have this word say what counts.
const MASK: &str = "mask";

/// A part's name, with its resolution.
pub(crate) fn label(part: &Part) -> String {
    let resolution = part.resolution.map(|[w, h]| format!("-{w}x{h}")).unwrap_or_default();
    format!("{}{resolution}", part.name)
}

pub(crate) fn in_part(part: &Part) -> impl Fn(ImportError) -> ConvertError {
    let (part, path) = (part.name.clone(), part.path.clone());
    move |source| ConvertError::Import { part: part.clone(), path: path.clone(), source }
}

/// Why a file cannot be read: of one that is quantised, what to read instead.
fn refusal(part: &Part, model: &rockshard_onnx::Model, source: ImportError) -> ConvertError {
    let nodes = model.proto.graph.iter().flat_map(|g| &g.node);
    let mut operators = nodes.filter_map(|n| n.op_type.as_deref());
    let quantised = operators.any(is_quantised);
    let instead = if quantised { precision::instead_of(&part.path) } else { Vec::new() };
    match instead.is_empty() {
        true => in_part(part)(source),
        false => ConvertError::Quantised { path: part.path.clone(), instead },
    }
}

/// A part that was read.
pub(crate) struct Imported {
    /// The model whose files hold the weights.
    pub model: rockshard_onnx::Model,
    pub graph: Graph,
    /// What was noticed about the file, or done to it.
    pub notes: Vec<Note>,
}

impl Imported {
    /// The notes, and masks that stay inputs, a line each.
    pub fn lines(&self, part: &Part) -> Vec<String> {
        let mut lines: Vec<String> = self.notes.iter().map(ToString::to_string).collect();
        let inputs = self.graph.inputs.iter().map(|&v| &self.graph.value(v).name);
        let masks = inputs.filter(|name| part.role == Role::VisionEncoder && name.contains(MASK));
        lines.extend(masks.map(|name| {
            format!(
                "kept: mask {name:?} stays an input, since its values are real and need not be 1 where something is seen"
            )
        }));
        lines
    }
}

/// Read a part.
pub(crate) fn import(
    part: &Part,
    reference: Option<&dyn Device>,
) -> Result<Imported, ConvertError> {
    let wrap = in_part(part);
    let model = rockshard_onnx::load(&part.path).map_err(|e| wrap(e.into()))?;
    let options = ImportOptions {
        shapes: part.shapes.iter().cloned().collect(),
        dims: part.dims.clone(),
        outputs: part.outputs.clone(),
        given: part.given.clone(),
    };
    let read = match reference {
        None => import_noted(&model, &options, None),
        Some(reference) => {
            let engine = |model: &[u8], inputs: &[(&str, &Tensor)], outputs: &[&str]| {
                reference.evaluate(OnnxModel::Bytes(model), inputs, outputs)
            };
            import_noted(&model, &options, Some(&engine))
        }
    };
    let (graph, notes) = read.map_err(|source| refusal(part, &model, source))?;
    let graph = keys_values::piece(part, graph)?;
    Ok(Imported { model, graph, notes })
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

/// Bytes of a weight that is worth a file.
const LARGE: usize = 1 << 20;

/// Keep large weights that were computed when the model was read, as those of a few bits are, in files of their own in `scratch`.
pub(crate) fn store_computed(
    graph: &mut Graph,
    model: &rockshard_onnx::Model,
    scratch: &Path,
    files: &mut Vec<MappedFile>,
) -> Result<(), ConvertError> {
    let initializers = model.proto.graph.iter().flat_map(|g| &g.initializer);
    let own: BTreeSet<&str> = initializers.filter_map(|t| t.name.as_deref()).collect();
    let read: BTreeSet<ValueId> = graph.nodes().iter().flat_map(|n| n.inputs.clone()).collect();
    for id in read {
        let value = graph.value_mut(id);
        if let Some(weight) = value.constant.as_ref()
            && weight.bytes().len() >= LARGE
            && !own.contains(value.name.as_str())
        {
            value.constant = Some(stored(weight, scratch, files)?);
        }
    }
    Ok(())
}

/// Bytes of weights that are read before their pages are given back.
const READ: usize = 64 << 20;
/// float16's largest number.
const LARGEST: f32 = 65504.0;

/// What is known of weights that were looked at.
#[derive(Default)]
pub(crate) struct Checked {
    /// Those that float16 holds.
    pub rounding: Rounding,
    /// Those of the NPU that it does not, with their largest magnitude.
    pub large: HashMap<ValueId, f32>,
}

/// Refuse weights that are not finite. What only chooses or limits may be infinite, and what only the host reads.
///
/// # Errors
/// A weight with NaN or an infinity, by the name that the file has.
pub(crate) fn check_weights(
    graph: &Graph,
    part: &Part,
    model: &rockshard_onnx::Model,
    release: &dyn Fn(),
) -> Result<Checked, ConvertError> {
    let host = host_nodes(graph);
    let mut seen = BTreeSet::new();
    let mut checked = Checked::default();
    let mut read = 0;
    for (id, node) in graph.node_ids().zip(graph.nodes()) {
        let chooses = matches!(node.op, Op::Where | Op::Binary(Binary::Min | Binary::Max))
            || host.contains(&id);
        for &weight in node.inputs.iter().filter(|&&v| seen.insert(v)) {
            let Some(tensor) = graph.constant(weight).filter(|t| t.dtype().is_float()) else {
                continue;
            };
            let largest = largest(tensor);
            checked.rounding.enter(tensor, largest);
            read += tensor.bytes().len();
            if read > READ {
                release();
                read = 0;
            }
            if largest.is_finite() {
                if largest > LARGEST && !host.contains(&id) {
                    checked.large.insert(weight, largest);
                }
                continue;
            }
            let Some(found) = not_finite(tensor) else { continue };
            if found.is_nan() || !chooses {
                return Err(ConvertError::NotFinite {
                    part: part.name.clone(),
                    weight: named_in_file(model, &graph.value(weight).name),
                    node: node.name.clone(),
                    found,
                });
            }
        }
    }
    release();
    Ok(checked)
}

/// The first element that is no finite number.
fn not_finite(tensor: &Tensor) -> Option<f32> {
    let found = match tensor.dtype() {
        DType::F16 => tensor.to_f16().ok()?.par_iter().find_first(|v| !v.is_finite())?.to_f32(),
        DType::F32 => *tensor.to_f32().ok()?.par_iter().find_first(|v| !v.is_finite())?,
        _ => return None,
    };
    Some(found)
}

/// A weight's name in the user's file: its own, or that of a weight that it was computed from.
fn named_in_file(model: &rockshard_onnx::Model, name: &str) -> String {
    let all = || model.proto.graph.iter().flat_map(|g| &g.initializer);
    let own = all().any(|t| t.name.as_deref() == Some(name));
    let broken = |t: &&rockshard_onnx::schema::TensorProto| {
        model.tensor(t).ok().as_ref().and_then(not_finite).is_some()
    };
    let source = || all().find(broken).and_then(|t| t.name.clone());
    if own { name.to_owned() } else { source().unwrap_or_else(|| name.to_owned()) }
}
