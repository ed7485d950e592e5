//! Golden tensors: what the float32 reference computes at every boundary between shards, kept for machines that have no memory or
//! time for a reference engine, and for judging compiled shards.
//!
//! One file a shard, `golden/SHARD.safetensors`, with its outputs as `STEP/VALUE`; the model's inputs are in a file of their own.
//! Values are unscaled.

use crate::calibrate::{Sample, check_sample};
use crate::reference::Reference;
use crate::{ConvertError, PackWriter};
use rockshard_graph::Graph;
use rockshard_manifest::{Golden, Model, TensorSpec};
use rockshard_tensor::{DType, Tensor, read_safetensors, write_safetensors};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// What to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording {
    /// `F32`, or `F16` for half the size.
    pub dtype: DType,
    /// Runs to record, each with inputs of its own.
    pub steps: usize,
}

/// Run the samples through a model's graph, and add a golden file a shard to the pack, as soon as its outputs are there.
///
/// # Errors
/// A sample does not fit the model's inputs, the reference fails, or a file cannot be written.
pub(crate) fn record_golden(
    graph: &Graph,
    model: &mut Model,
    label: &str,
    samples: &[Sample],
    dtype: DType,
    reference: &Reference,
    writer: &mut PackWriter,
) -> Result<(), ConvertError> {
    for sample in samples {
        check_sample(&model.name, &model.inputs, sample)?;
    }
    let stored = |tensor: &Tensor| {
        if tensor.dtype().is_float() { tensor.to_float(dtype).unwrap_or_else(|_| tensor.clone()) } else { tensor.clone() }
    };
    let add = |writer: &mut PackWriter, name: &str, tensors: BTreeMap<String, Tensor>| {
        let file = format!("golden/{name}.safetensors");
        writer.add(&file, |path| write_safetensors(tensors, path)).map(|()| file)
    };
    let mut inputs = BTreeMap::new();
    for (step, sample) in samples.iter().enumerate() {
        inputs.extend(sample.iter().map(|(name, tensor)| (Golden::key(step, name), stored(tensor))));
    }
    model.golden = Some(Golden { inputs: add(writer, &format!("{label}-inputs"), inputs)?, steps: samples.len(), dtype });
    let makers = model.shards.iter().enumerate().flat_map(|(i, s)| s.outputs.iter().map(move |t| (t.name.clone(), i)));
    let makers: HashMap<String, usize> = makers.collect();
    let mut made: Vec<BTreeMap<String, Tensor>> = vec![BTreeMap::new(); model.shards.len()];
    reference.run(graph, label, samples, &|name| makers.contains_key(name), &mut |step, name, tensor| {
        let Some(&maker) = makers.get(name) else { return Ok(()) };
        let shard = &mut model.shards[maker];
        made[maker].insert(Golden::key(step, name), stored(&tensor));
        if made[maker].len() == shard.outputs.len() * samples.len() {
            shard.golden = Some(add(writer, &shard.name, std::mem::take(&mut made[maker]))?);
        }
        Ok(())
    })
}

/// Golden inputs and outputs of a shard of the pack at `root` at a step, as the device stores them: float32, times their scale.
///
/// # Errors
/// A golden file cannot be read.
pub(crate) fn device_tensors(model: &Model, index: usize, step: usize, root: &Path) -> Result<(Vec<Tensor>, Vec<Tensor>), ConvertError> {
    let shard = &model.shards[index];
    let mut open: HashMap<PathBuf, BTreeMap<String, Tensor>> = HashMap::new();
    let mut find = |spec: &TensorSpec| {
        let maker = model.shards[..=index].iter().find(|s| s.outputs.iter().any(|o| o.name == spec.name));
        let file = maker.map_or(model.golden.as_ref().map(|g| &g.inputs), |s| s.golden.as_ref());
        let path = root.join(file.map_or("golden", String::as_str));
        if !open.contains_key(&path) {
            open.insert(path.clone(), read_safetensors(&path)?);
        }
        let key = Golden::key(step, &spec.name);
        let tensor = open[&path].get(&key).ok_or_else(|| missing(&path, &key))?;
        match tensor.to_f32() {
            Ok(values) => Ok(Tensor::from_f32(tensor.shape(), values.iter().map(|v| v * spec.scale).collect())),
            Err(_) => Ok(tensor.clone()),
        }
    };
    let mut all = |specs: &[TensorSpec]| specs.iter().map(&mut find).collect::<Result<Vec<_>, ConvertError>>();
    Ok((all(&shard.inputs)?, all(&shard.outputs)?))
}

fn missing(path: &Path, key: &str) -> ConvertError {
    ConvertError::io(path)(std::io::Error::new(std::io::ErrorKind::InvalidData, format!("has no tensor {key:?}")))
}
