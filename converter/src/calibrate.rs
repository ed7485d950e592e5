//! Calibration: the range of every value over a few inputs, from the CPU reference.

use crate::ConvertError;
use crate::passes::Ranges;
use crate::reference::Reference;
use rockshard_graph::{Graph, ValueId};
use rockshard_manifest::TensorSpec;
use rockshard_tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap, HashSet};

/// Inputs of one model: a tensor for each input name.
pub type Sample = BTreeMap<String, Tensor>;

/// Run the samples through a graph and record the range of every real value that flows, and in `truth` what the outputs are, a tensor a
/// sample.
///
/// # Errors
/// A sample does not fit the model's inputs, the reference fails, or scratch files cannot be written.
pub(crate) fn calibrate(
    graph: &Graph,
    part: &str,
    samples: &[Sample],
    reference: &Reference,
    truth: &mut HashMap<String, Vec<Tensor>>,
) -> Result<Ranges, ConvertError> {
    let mut ranges = Ranges::new();
    for sample in samples {
        check_sample(part, &unscaled(graph, &graph.inputs), sample)?;
        for &input in &graph.inputs {
            let name = &graph.value(input).name;
            record(&mut ranges, name, &sample[name]);
        }
    }
    let outputs: HashSet<&str> =
        graph.outputs.iter().map(|&v| graph.value(v).name.as_str()).collect();
    reference.run(graph, part, samples, &mut |name, tensor| {
        record(&mut ranges, name, tensor);
        if outputs.contains(name) {
            truth.entry(name.to_owned()).or_default().push(tensor.clone());
        }
    })?;
    Ok(ranges)
}

/// Every input of a model must be there, with its type and shape.
///
/// # Errors
/// One is not; it is named.
pub(crate) fn check_sample(
    part: &str,
    inputs: &[TensorSpec],
    sample: &Sample,
) -> Result<(), ConvertError> {
    let problem = |problem: String| ConvertError::Calibration { part: part.to_owned(), problem };
    for spec in inputs {
        let tensor = sample
            .get(&spec.name)
            .ok_or_else(|| problem(format!("input {:?} is missing", spec.name)))?;
        if tensor.shape() != spec.shape || tensor.dtype().is_float() != (spec.dtype == DType::F32) {
            return Err(problem(format!(
                "input {:?} is {}{:?}, got {tensor:?}",
                spec.name, spec.dtype, spec.shape
            )));
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
        TensorSpec {
            name: value.name.clone(),
            dtype: value.dtype,
            shape: value.shape.clone(),
            scale: 1.0,
        }
    };
    values.iter().map(spec).collect()
}
