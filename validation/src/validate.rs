//! Running the layers on both sides.

use crate::ValidationError;
use crate::judge::{LayerRun, Missing, first_divergence, judge};
use crate::report::{LayerReport, ModelReport, Verdict};
use crate::values::Values;
use rockshard_device::{Device, DeviceError, DeviceErrorKind, Session, ShardFile};
use rockshard_manifest::{CoreId, Shard, TensorSpec};
use rockshard_tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// One layer with its two graphs.
#[derive(Clone, Debug)]
pub struct LayerFiles {
    /// Name of the model it belongs to.
    pub model: String,
    /// What the manifest says about it.
    pub shard: Shard,
    /// The graph the device runs; its tensors are scaled as their specs say.
    pub device: ShardFile,
    /// The same piece of the original graph; its tensors are unscaled, whatever their specs say.
    pub reference: ShardFile,
}

/// How to judge.
#[derive(Clone, Debug)]
pub struct Criteria {
    /// Smallest cosine that passes, teacher-forced and cumulative.
    pub threshold: f64,
    /// Names of the model's outputs; when empty, the values that no layer reads.
    pub outputs: Vec<String>,
}

impl Default for Criteria {
    fn default() -> Self {
        Criteria { threshold: 0.999, outputs: Vec::new() }
    }
}

/// How far a validation is.
#[derive(Clone, Copy, Debug)]
pub enum ValidateProgress<'a> {
    /// A layer is about to run.
    Started {
        /// Model name.
        model: &'a str,
        /// Shard name.
        layer: &'a str,
        /// Place in running order, from 0.
        index: usize,
        /// Number of layers.
        total: usize,
    },
    /// A layer was judged.
    Finished {
        /// Model name.
        model: &'a str,
        /// The result.
        layer: &'a LayerReport,
        /// Place in running order, from 0.
        index: usize,
        /// Number of layers.
        total: usize,
    },
}

/// Validate the layers of one model, given in running order.
///
/// `inputs` are the model's inputs, unscaled. Layers on NPU cores run on `npu`, layers on [`CoreId::Host`] on `host`, the
/// originals on `reference`. One session is open at a time, and values are kept no longer than a later layer reads them. Where the
/// device's own values are the reference's, bit for bit, the layer runs once for both modes.
///
/// # Errors
/// The layers do not fit together or the inputs do not fit them, or a device is [`DeviceErrorKind::Unavailable`]. Any other failure
/// of a device is the layer's verdict: failed if the device failed, unchecked if the reference did. [`ValidationError::Stopped`] if
/// `progress` breaks.
pub fn validate_model(
    layers: &[LayerFiles],
    inputs: &BTreeMap<String, Tensor>,
    npu: &dyn Device,
    host: &dyn Device,
    reference: &dyn Device,
    criteria: &Criteria,
    progress: &mut dyn FnMut(ValidateProgress<'_>) -> ControlFlow<()>,
) -> Result<ModelReport, ValidationError> {
    let model = check(layers, inputs, criteria)?;
    let mut values = Values::new(layers, inputs);
    let (mut reports, mut outputs) = (Vec::with_capacity(layers.len()), Vec::new());
    for (index, layer) in layers.iter().enumerate() {
        let total = layers.len();
        let mut tell = |event: ValidateProgress<'_>| match progress(event) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ValidationError::Stopped),
        };
        tell(ValidateProgress::Started { model, layer: &layer.shard.name, index, total })?;
        let is_output = |name: &str| match criteria.outputs.is_empty() {
            true => !values.is_read(name),
            false => criteria.outputs.iter().any(|o| o == name),
        };
        let wanted: BTreeSet<String> =
            layer.device.outputs.iter().map(|o| o.name.clone()).filter(|n| is_output(n)).collect();
        let device = if layer.shard.core == CoreId::Host { host } else { npu };
        let run = run_layer(layer, device, reference, &mut values)?;
        let report = judge(layer, run, &wanted, criteria.threshold, &mut outputs);
        values.finish(index);
        tell(ValidateProgress::Finished { model, layer: &report, index, total })?;
        reports.push(report);
    }
    Ok(ModelReport {
        model: model.to_owned(),
        verdict: Verdict::of_parts(reports.iter().map(|l| (l.name.as_str(), &l.verdict))),
        first_divergence: first_divergence(&reports, criteria.threshold),
        outputs,
        import: crate::report::not_imported(),
        layers: reports,
    })
}

/// Check that layers and inputs fit together; gives the model's name.
fn check<'a>(
    layers: &'a [LayerFiles],
    inputs: &BTreeMap<String, Tensor>,
    criteria: &Criteria,
) -> Result<&'a str, ValidationError> {
    let first = layers.first().ok_or(ValidationError::Empty)?;
    if !(0.0..=1.0).contains(&criteria.threshold) {
        return Err(ValidationError::Threshold(criteria.threshold));
    }
    let mut written = BTreeSet::new();
    for layer in layers {
        let name = || layer.shard.name.clone();
        if layer.model != first.model {
            let (found, expected) = (layer.model.clone(), first.model.clone());
            return Err(ValidationError::MixedModels { layer: name(), found, expected });
        }
        for spec in layer.device.inputs.iter().chain(&layer.reference.inputs) {
            match inputs.get(&spec.name) {
                _ if written.contains(spec.name.as_str()) => {}
                None => {
                    return Err(ValidationError::MissingValue {
                        layer: name(),
                        value: spec.name.clone(),
                    });
                }
                Some(t)
                    if t.shape() == spec.shape && t.dtype().is_float() == spec.dtype.is_float() => {
                }
                Some(t) => {
                    let (found, expected) =
                        (format!("{t:?}"), format!("{}{:?}", spec.dtype, spec.shape));
                    return Err(ValidationError::InputMismatch {
                        layer: name(),
                        value: spec.name.clone(),
                        found,
                        expected,
                    });
                }
            }
        }
        written.extend(
            layer.device.outputs.iter().chain(&layer.reference.outputs).map(|o| o.name.as_str()),
        );
    }
    match criteria.outputs.iter().find(|o| !written.contains(o.as_str())) {
        Some(output) => Err(ValidationError::MissingOutput(output.clone())),
        None => Ok(&first.model),
    }
}

fn run_layer(
    layer: &LayerFiles,
    device: &dyn Device,
    reference: &dyn Device,
    values: &mut Values,
) -> Result<LayerRun, ValidationError> {
    let taught = values.teacher_forced(&layer.device.inputs);
    let own = values.cumulative(&layer.device.inputs);
    let expected = match values.reference(&layer.reference.inputs) {
        Err(missing) => Err(missing),
        Ok(inputs) => {
            let file = &layer.reference;
            match reference
                .open(file, CoreId::Host)
                .and_then(|mut session| run(&mut *session, file, CoreId::Host, &inputs))
            {
                Ok(outputs) => Ok(file
                    .outputs
                    .iter()
                    .map(|o| o.name.clone())
                    .zip(outputs)
                    .collect::<BTreeMap<_, _>>()),
                Err(error) => Err(format!("the reference failed: {}", available(error)?)),
            }
        }
    };
    let core = layer.shard.core;
    let (teacher_forced, cumulative) = match device.open(&layer.device, core) {
        Err(error) => {
            let failed = Missing::Failed(available(error)?.to_string());
            (Err(failed.clone()), Err(failed))
        }
        Ok(mut session) => {
            let same = matches!((&taught, &own), (Ok(a), Ok(b)) if a == b);
            let mut go = |inputs: Result<Vec<Tensor>, String>| -> Result<_, ValidationError> {
                match inputs {
                    Err(missing) => Ok(Err(Missing::Inputs(missing))),
                    Ok(inputs) => match run(&mut *session, &layer.device, core, &inputs) {
                        Ok(outputs) => Ok(Ok(outputs)),
                        Err(error) => Ok(Err(Missing::Failed(available(error)?.to_string()))),
                    },
                }
            };
            let first: Result<Vec<Tensor>, Missing> = go(taught)?;
            let second = if same { first.clone() } else { go(own)? };
            (first, second)
        }
    };
    if let Ok(outputs) = &expected {
        outputs.iter().for_each(|(name, tensor)| values.keep_reference(name, tensor.clone()));
    }
    if let Ok(outputs) = &cumulative {
        layer
            .device
            .outputs
            .iter()
            .zip(outputs)
            .for_each(|(spec, tensor)| values.keep_device(spec, tensor.clone()));
    }
    Ok(LayerRun { reference: expected, teacher_forced, cumulative })
}

/// Run once and hold the outputs to what the shard declares.
fn run(
    session: &mut dyn Session,
    file: &ShardFile,
    core: CoreId,
    inputs: &[Tensor],
) -> Result<Vec<Tensor>, DeviceError> {
    let outputs = session.run(inputs)?.outputs;
    let fail =
        |detail: String| Err(DeviceError::new(DeviceErrorKind::Run, &file.name, core, detail));
    if outputs.len() != file.outputs.len() {
        return fail(format!(
            "gave {} outputs, the shard declares {}",
            outputs.len(),
            file.outputs.len()
        ));
    }
    let differs = |(spec, t): &(&TensorSpec, &Tensor)| {
        t.shape() != spec.shape || t.dtype().is_float() != spec.dtype.is_float()
    };
    match file.outputs.iter().zip(&outputs).find(differs) {
        Some((spec, t)) => fail(format!(
            "gave output {:?} as {t:?}, the shard declares {}{:?}",
            spec.name, spec.dtype, spec.shape
        )),
        None => Ok(outputs),
    }
}

/// Let pass what concerns one layer only; a device that is not there ends the validation.
fn available(error: DeviceError) -> Result<DeviceError, ValidationError> {
    match error.kind {
        DeviceErrorKind::Unavailable => Err(ValidationError::Unavailable(error)),
        _ => Ok(error),
    }
}
