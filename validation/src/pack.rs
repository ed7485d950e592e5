//! Validating a whole pack: against the reference engine, or against the tensors that the conversion recorded.

use crate::validate::{Criteria, LayerFiles, ValidateProgress, validate_model};
use crate::{ModelReport, Recorded, Report, ValidationError, Verdict, random_inputs};
use rockshard_device::Device;
use rockshard_manifest::{Golden, Model, TensorSpec};
use rockshard_pack::{Devices, Pack, Variant};
use rockshard_tensor::{DType, Tensor, read_safetensors};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// Tensors by name.
pub type TensorMap = BTreeMap<String, Tensor>;

/// Seed of the noise that models get for which there are no inputs.
const SEED: u64 = 1;

/// Validate every model of a pack against a reference that runs the unchanged pieces. `inputs` are by model; what is not given, or has
/// another shape than the model's, is seeded noise. `progress` stops the validation by breaking.
///
/// # Errors
/// A file of the pack is refused, a device is not there, or [`ValidationError::Stopped`].
pub fn validate_pack(
    pack: &Pack,
    devices: &Devices,
    reference: &dyn Device,
    inputs: &HashMap<String, TensorMap>,
    threshold: f64,
    progress: &mut dyn FnMut(ValidateProgress<'_>) -> ControlFlow<()>,
) -> Result<Report, ValidationError> {
    let mut reports = Vec::new();
    for model in &pack.manifest().models {
        let mut given = random_inputs(&model.inputs, SEED);
        let fits = |name: &str, tensor: &Tensor| {
            model.inputs.iter().any(|s| s.name == name && s.shape == tensor.shape())
        };
        let known = inputs.get(&model.name).into_iter().flatten();
        given.extend(known.filter(|(n, t)| fits(n, t)).map(|(n, t)| (n.clone(), t.clone())));
        reports.push(validate_one(pack, model, devices, reference, &given, threshold, progress)?);
    }
    Ok(Report::new(threshold, devices.npu.name(), "rten (float32, CPU)", reports))
}

/// Validate every model of a pack on its recorded inputs against its recorded values: a report of a model for each recorded run. No
/// reference engine is needed.
///
/// # Errors
/// As [`validate_pack`], and a model has no recorded tensors.
pub fn validate_golden(
    pack: &Pack,
    devices: &Devices,
    threshold: f64,
    progress: &mut dyn FnMut(ValidateProgress<'_>) -> ControlFlow<()>,
) -> Result<Report, ValidationError> {
    let mut reports = Vec::new();
    for model in &pack.manifest().models {
        let Some(golden) = &model.golden else {
            let (pack, model) = (pack.root().to_owned(), model.name.clone());
            return Err(ValidationError::NoGolden { pack, model });
        };
        for step in 0..golden.steps {
            let (reference, inputs) = recorded(pack, model, golden, step)?;
            reports.push(validate_one(
                pack, model, devices, &reference, &inputs, threshold, progress,
            )?);
        }
    }
    let reference = "golden tensors (float32 reference, recorded)";
    Ok(Report::new(threshold, devices.npu.name(), reference, reports))
}

fn validate_one(
    pack: &Pack,
    model: &Model,
    devices: &Devices,
    reference: &dyn Device,
    inputs: &TensorMap,
    threshold: f64,
    progress: &mut dyn FnMut(ValidateProgress<'_>) -> ControlFlow<()>,
) -> Result<ModelReport, ValidationError> {
    let layers = model.shards.iter().map(|shard| {
        Ok(LayerFiles {
            model: model.name.clone(),
            shard: shard.clone(),
            device: pack.shard_file(shard, devices.variant)?,
            reference: pack.shard_file(shard, Variant::Reference)?,
        })
    });
    let layers = layers.collect::<Result<Vec<_>, ValidationError>>()?;
    let outputs = model.outputs.iter().map(|o| o.name.clone()).collect();
    let (npu, host) = (&*devices.npu, &*devices.host);
    let criteria = Criteria { threshold, outputs };
    let mut report = validate_model(&layers, inputs, npu, host, reference, &criteria, progress)?;
    if let Some(check) = &model.import {
        report.judge_import(Verdict::from(check));
    }
    Ok(report)
}

/// The values of a recorded run, read when they are asked for, and its inputs.
fn recorded(
    pack: &Pack,
    model: &Model,
    golden: &Golden,
    step: usize,
) -> Result<(Recorded, TensorMap), ValidationError> {
    let path = pack.file(&golden.inputs)?;
    let failed = |problem: String| ValidationError::Golden { path: path.clone(), problem };
    let stored = read_safetensors(&path).map_err(|e| failed(e.to_string()))?;
    let input = |spec: &TensorSpec| {
        let key = Golden::key(step, &spec.name);
        let tensor = stored.get(&key).ok_or_else(|| failed(format!("it has no tensor {key:?}")))?;
        Ok((spec.name.clone(), widened(tensor)))
    };
    let inputs = model.inputs.iter().map(input).collect::<Result<_, ValidationError>>()?;
    let mut places: HashMap<String, PathBuf> = HashMap::new();
    for shard in &model.shards {
        let none = || failed(format!("shard {} has no recorded tensors", shard.name));
        let path = pack.file(shard.golden.as_ref().ok_or_else(none)?)?;
        places.extend(shard.outputs.iter().map(|o| (o.name.clone(), path.clone())));
    }
    let lookup = move |name: &str| {
        let mut tensors = read_safetensors(places.get(name)?).ok()?;
        Some(widened(&tensors.remove(&Golden::key(step, name))?))
    };
    Ok((Recorded::new(lookup), inputs))
}

/// Real values as float32, others as they are.
fn widened(tensor: &Tensor) -> Tensor {
    tensor.to_float(DType::F32).unwrap_or_else(|_| tensor.clone())
}
