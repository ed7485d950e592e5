//! Golden tensors: what the float32 reference computes at every boundary between shards, kept for machines that have no memory or
//! time for a reference engine, and for judging compiled shards.
//!
//! One file a shard, `golden/SHARD.safetensors`, with its outputs as `STEP/VALUE`; the model's inputs are in a file of their own.
//! Values are unscaled.

use crate::calibrate::{Sample, check_sample};
use crate::request::{ConvertProgress, Teller};
use crate::{ConvertError, PackWriter};
use rockshard_device::{Device, ShardFile};
use rockshard_manifest::{Golden, Model, TensorSpec};
use rockshard_tensor::{DType, Tensor, read_safetensors, write_safetensors};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};

/// What to record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recording {
    /// `F32`, or `F16` for half the size.
    pub dtype: DType,
    /// Runs to record, each with inputs of its own.
    pub steps: usize,
}

/// Run the samples through the reference pieces of a model, one shard at a time, and add a golden file a shard to the pack.
///
/// # Errors
/// A sample does not fit the model's inputs, the reference fails, or a file cannot be written.
pub(crate) fn record_golden(
    model: &mut Model,
    label: &str,
    samples: &[Sample],
    dtype: DType,
    reference: &dyn Device,
    writer: &mut PackWriter,
    teller: &mut Teller,
) -> Result<(), ConvertError> {
    for sample in samples {
        check_sample(&model.name, &model.inputs, sample)?;
    }
    let stored = |tensor: &Tensor| {
        if tensor.dtype().is_float() {
            tensor.to_float(dtype).unwrap_or_else(|_| tensor.clone())
        } else {
            tensor.clone()
        }
    };
    let add = |writer: &mut PackWriter, name: &str, tensors: BTreeMap<String, Tensor>| {
        let file = format!("golden/{name}.safetensors");
        writer.add(&file, |path| write_safetensors(tensors, path)).map(|()| file)
    };
    let mut states: Vec<HashMap<String, Tensor>> =
        samples.iter().map(|s| s.clone().into_iter().collect()).collect();
    let mut inputs = BTreeMap::new();
    for (step, sample) in samples.iter().enumerate() {
        inputs
            .extend(sample.iter().map(|(name, tensor)| (Golden::key(step, name), stored(tensor))));
    }
    model.golden = Some(Golden {
        inputs: add(writer, &format!("{label}-inputs"), inputs)?,
        steps: samples.len(),
        dtype,
    });
    for i in 0..model.shards.len() {
        teller.tell(ConvertProgress::Golden(model.name.clone(), i, model.shards.len()))?;
        let later: HashSet<String> =
            model.shards[i + 1..].iter().flat_map(|s| &s.inputs).map(|t| t.name.clone()).collect();
        let shard = &mut model.shards[i];
        let file = ShardFile {
            name: shard.name.clone(),
            path: writer.root().join(&shard.reference),
            inputs: shard.inputs.iter().map(TensorSpec::unscaled).collect(),
            outputs: shard.outputs.iter().map(TensorSpec::unscaled).collect(),
        };
        let mut session = reference.open(&file, shard.core)?;
        let mut made = BTreeMap::new();
        for (step, state) in states.iter_mut().enumerate() {
            let given: Vec<Tensor> = shard.inputs.iter().map(|t| state[&t.name].clone()).collect();
            for (spec, tensor) in shard.outputs.iter().zip(session.run(&given)?.outputs) {
                made.insert(Golden::key(step, &spec.name), stored(&tensor));
                state.insert(spec.name.clone(), tensor);
            }
            state.retain(|name, _| later.contains(name));
        }
        shard.golden = Some(add(writer, &shard.name, made)?);
    }
    Ok(())
}

/// Golden inputs and outputs of a shard of the pack at `root` at a step, as the device stores them: float32, times their scale.
///
/// # Errors
/// A golden file cannot be read.
pub(crate) fn device_tensors(
    model: &Model,
    index: usize,
    step: usize,
    root: &Path,
) -> Result<(Vec<Tensor>, Vec<Tensor>), ConvertError> {
    let shard = &model.shards[index];
    let mut open: HashMap<PathBuf, BTreeMap<String, Tensor>> = HashMap::new();
    let mut find = |spec: &TensorSpec| {
        let maker =
            model.shards[..=index].iter().find(|s| s.outputs.iter().any(|o| o.name == spec.name));
        let file = maker.map_or(model.golden.as_ref().map(|g| &g.inputs), |s| s.golden.as_ref());
        let path = root.join(file.map_or("golden", String::as_str));
        if !open.contains_key(&path) {
            open.insert(path.clone(), read_safetensors(&path)?);
        }
        let key = Golden::key(step, &spec.name);
        let tensor = open[&path].get(&key).ok_or_else(|| missing(&path, &key))?;
        match tensor.to_f32() {
            Ok(values) => Ok(Tensor::from_f32(
                tensor.shape(),
                values.iter().map(|v| v * spec.scale).collect(),
            )),
            Err(_) => Ok(tensor.clone()),
        }
    };
    let mut all = |specs: &[TensorSpec]| {
        specs.iter().map(&mut find).collect::<Result<Vec<_>, ConvertError>>()
    };
    Ok((all(&shard.inputs)?, all(&shard.outputs)?))
}

fn missing(path: &Path, key: &str) -> ConvertError {
    ConvertError::io(path)(std::io::Error::new(
        std::io::ErrorKind::InvalidData,
        format!("has no tensor {key:?}"),
    ))
}
