//! `validate --golden`: the tensors that conversion recorded stand in for the reference.

use super::validate_one;
use crate::output::Output;
use anyhow::{Context, Result, bail};
use rockshard_manifest::{Golden, Model};
use rockshard_pack::{Devices, Pack};
use rockshard_runtime::TensorMap;
use rockshard_tensor::{Tensor, read_safetensors};
use rockshard_validation::{Recorded, Report};
use std::collections::HashMap;
use std::path::PathBuf;

/// Validate every model of a pack on its recorded inputs against its recorded values, one report a recorded run.
pub fn validate_golden(
    pack: &Pack,
    devices: &Devices,
    threshold: f64,
    out: &Output,
) -> Result<Report> {
    let mut progress = out.progress("validate");
    let mut reports = Vec::new();
    for model in &pack.manifest().models {
        let Some(golden) = &model.golden else {
            bail!(
                "{}: {} has no golden tensors; convert it with --golden",
                pack.root().display(),
                model.name
            );
        };
        for step in 0..golden.steps {
            let (reference, inputs) = recorded(pack, model, golden, step)?;
            reports.push(validate_one(
                pack,
                model,
                devices,
                &reference,
                &inputs,
                threshold,
                &mut progress,
            )?);
        }
    }
    Ok(Report::new(
        threshold,
        devices.npu.name(),
        "golden tensors (float32 reference, recorded)",
        reports,
    ))
}

/// The values of a recorded run, read when they are asked for, and its inputs.
fn recorded(
    pack: &Pack,
    model: &Model,
    golden: &Golden,
    step: usize,
) -> Result<(Recorded, TensorMap)> {
    let mut inputs = TensorMap::new();
    let stored = read_safetensors(&pack.file(&golden.inputs)?)?;
    for input in &model.inputs {
        let key = Golden::key(step, &input.name);
        let tensor =
            stored.get(&key).with_context(|| format!("{} has no tensor {key:?}", golden.inputs))?;
        inputs.insert(input.name.clone(), widened(tensor)?);
    }
    let mut places: HashMap<String, PathBuf> = HashMap::new();
    for shard in &model.shards {
        let file = shard
            .golden
            .as_ref()
            .with_context(|| format!("shard {} has no golden tensors", shard.name))?;
        let path = pack.file(file)?;
        places.extend(shard.outputs.iter().map(|o| (o.name.clone(), path.clone())));
    }
    let lookup = move |name: &str| {
        let mut tensors = read_safetensors(places.get(name)?).ok()?;
        widened(&tensors.remove(&Golden::key(step, name))?).ok()
    };
    Ok((Recorded::new(lookup), inputs))
}

/// Real values as float32, others as they are.
fn widened(tensor: &Tensor) -> Result<Tensor> {
    Ok(if tensor.dtype().is_float() {
        tensor.to_float(rockshard_tensor::DType::F32)?
    } else {
        tensor.clone()
    })
}
