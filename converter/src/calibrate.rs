//! Calibration: the range of every value over a few inputs, from the CPU reference, one segment at a time.

use crate::ConvertError;
use crate::emit::write_onnx;
use crate::partition::Segment;
use crate::passes::Ranges;
use rockshard_device::{Device, ShardFile};
use rockshard_graph::{Graph, ValueId};
use rockshard_manifest::{CoreId, TensorSpec};
use rockshard_tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

/// Inputs of one model: a tensor for each input name.
pub type Sample = BTreeMap<String, Tensor>;

/// Run the samples through the segments of a graph and record the range of every real value that flows.
///
/// # Errors
/// A sample does not fit the model's inputs, the reference fails, or scratch files cannot be written.
pub fn calibrate(
    graph: &Graph,
    part: &str,
    segments: &[Segment],
    samples: &[Sample],
    reference: &dyn Device,
    scratch: &Path,
) -> Result<Ranges, ConvertError> {
    let mut ranges = Ranges::new();
    let mut states: Vec<HashMap<ValueId, Tensor>> = Vec::new();
    for sample in samples {
        check_sample(part, &unscaled(graph, &graph.inputs), sample)?;
        let mut state = HashMap::new();
        for &input in &graph.inputs {
            let name = &graph.value(input).name;
            record(&mut ranges, name, &sample[name]);
            state.insert(input, sample[name].clone());
        }
        states.push(state);
    }
    for (i, segment) in segments.iter().enumerate() {
        let made: Vec<ValueId> = segment.nodes.iter().map(|&n| graph.node(n).output).collect();
        let piece = graph.subgraph(&segment.name, &segment.nodes, &made);
        let path = scratch.join(format!("{part}-{i:03}.onnx"));
        write_onnx(&piece, &path).map_err(ConvertError::io(&path))?;
        let inputs: Vec<ValueId> = piece.inputs.iter().filter_map(|&v| graph.find(&piece.value(v).name)).collect();
        let shard =
            ShardFile { name: segment.name.clone(), path: path.clone(), inputs: unscaled(graph, &inputs), outputs: unscaled(graph, &made) };
        let mut session = reference.open(&shard, CoreId::Npu(0))?;
        let later: std::collections::HashSet<ValueId> =
            segments[i + 1..].iter().flat_map(|s| &s.nodes).flat_map(|&n| graph.node(n).inputs.iter().copied()).collect();
        for state in &mut states {
            let given: Vec<Tensor> = inputs.iter().map(|v| state[v].clone()).collect();
            let outputs = session.run(&given)?.outputs;
            for (&value, tensor) in made.iter().zip(outputs) {
                record(&mut ranges, &graph.value(value).name, &tensor);
                if later.contains(&value) {
                    state.insert(value, tensor);
                }
            }
            state.retain(|v, _| later.contains(v));
        }
        drop(session);
        for file in [path.clone(), path.with_extension("onnx_data")] {
            let _ = std::fs::remove_file(file);
        }
    }
    Ok(ranges)
}

/// Every input of a model must be there, with its type and shape.
///
/// # Errors
/// One is not; it is named.
pub(crate) fn check_sample(part: &str, inputs: &[TensorSpec], sample: &Sample) -> Result<(), ConvertError> {
    let problem = |problem: String| ConvertError::Calibration { part: part.to_owned(), problem };
    for spec in inputs {
        let tensor = sample.get(&spec.name).ok_or_else(|| problem(format!("input {:?} is missing", spec.name)))?;
        if tensor.shape() != spec.shape || tensor.dtype().is_float() != (spec.dtype == DType::F32) {
            return Err(problem(format!("input {:?} is {}{:?}, got {tensor:?}", spec.name, spec.dtype, spec.shape)));
        }
    }
    Ok(())
}

fn record(ranges: &mut Ranges, name: &str, tensor: &Tensor) {
    if let Ok(values) = tensor.to_f32() {
        ranges.entry(name.to_owned()).or_default().add(&values);
    }
}

/// What values of a graph are, as stored without scaling.
pub(crate) fn unscaled(graph: &Graph, values: &[ValueId]) -> Vec<TensorSpec> {
    let spec = |&id: &ValueId| {
        let value = graph.value(id);
        TensorSpec { name: value.name.clone(), dtype: value.dtype, shape: value.shape.clone(), scale: 1.0 }
    };
    values.iter().map(spec).collect()
}
