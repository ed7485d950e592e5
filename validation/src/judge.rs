//! From the outputs of a layer's runs to its verdict.

use crate::report::{
    Divergence, Feeding, LayerReport, OutputReport, TensorReport, Verdict, digits,
};
use crate::validate::LayerFiles;
use crate::{Metrics, after_norm_cosine, compare};
use rockshard_manifest::TensorSpec;
use rockshard_tensor::Tensor;
use std::collections::{BTreeMap, BTreeSet};

/// The outputs of one layer from its three runs, each in the order of its file's outputs, or why a run has none.
pub(crate) struct LayerRun {
    pub reference: Result<BTreeMap<String, Tensor>, String>,
    pub teacher_forced: Result<Vec<Tensor>, Missing>,
    pub cumulative: Result<Vec<Tensor>, Missing>,
}

/// Why a device run has no outputs.
#[derive(Clone)]
pub(crate) enum Missing {
    /// The device failed.
    Failed(String),
    /// Its inputs were not there.
    Inputs(String),
}

/// What speaks for and against a layer while its outputs are compared.
#[derive(Default)]
struct Findings {
    failed: Option<String>,
    unchecked: Option<String>,
}

/// Compare a layer's outputs and judge it; those that are the model's (`wanted`) are also put on `outputs`.
pub(crate) fn judge(
    layer: &LayerFiles,
    run: LayerRun,
    wanted: &BTreeSet<String>,
    threshold: f64,
    outputs: &mut Vec<OutputReport>,
) -> LayerReport {
    let mut findings = Findings::default();
    let mut tensors = Vec::with_capacity(layer.device.outputs.len());
    for (at, spec) in layer.device.outputs.iter().enumerate() {
        let expected = match &run.reference {
            Ok(values) => values
                .get(&spec.name)
                .ok_or_else(|| format!("the reference has no output {:?}", spec.name)),
            Err(reason) => Err(reason.clone()),
        };
        let mut compared = |mode: Feeding, outputs: &Result<Vec<Tensor>, Missing>| {
            findings.compare(spec, mode, outputs.as_ref().map(|o| &o[at]), &expected, threshold)
        };
        let teacher_forced = compared(Feeding::TeacherForced, &run.teacher_forced);
        let cumulative = compared(Feeding::Cumulative, &run.cumulative);
        if wanted.contains(&spec.name) {
            let after_norm = match (&run.cumulative, &expected) {
                (Ok(found), Ok(expected)) => {
                    after_norm_cosine(&found[at], spec.scale, expected).ok().flatten()
                }
                _ => None,
            };
            outputs.push(OutputReport {
                name: spec.name.clone(),
                layer: layer.shard.name.clone(),
                cumulative,
                after_norm,
            });
        }
        tensors.push(TensorReport {
            name: spec.name.clone(),
            dtype: spec.dtype,
            shape: spec.shape.clone(),
            scale: spec.scale,
            reference_range: expected.ok().and_then(range),
            teacher_forced,
            cumulative,
        });
    }
    let verdict = match (findings.failed, findings.unchecked) {
        (Some(reason), _) => Verdict::Fail { reason },
        (None, Some(reason)) => Verdict::Unchecked { reason },
        (None, None) if tensors.is_empty() => {
            Verdict::Unchecked { reason: "the layer has no outputs".into() }
        }
        (None, None) => Verdict::Pass,
    };
    let shard = &layer.shard;
    LayerReport {
        name: shard.name.clone(),
        core: shard.core,
        operators: shard.operators.clone(),
        sandwich: shard.sandwich.clone(),
        attention: shard.attention.clone(),
        tensors,
        verdict,
    }
}

impl Findings {
    fn compare(
        &mut self,
        spec: &TensorSpec,
        mode: Feeding,
        found: Result<&Tensor, &Missing>,
        expected: &Result<&Tensor, String>,
        threshold: f64,
    ) -> Option<Metrics> {
        let found = match found {
            Ok(found) => found,
            Err(Missing::Failed(reason)) => {
                self.failed.get_or_insert_with(|| format!("did not run: {reason}"));
                return None;
            }
            Err(Missing::Inputs(reason)) => {
                self.unchecked.get_or_insert_with(|| format!("no {mode} run: {reason}"));
                return None;
            }
        };
        let expected = match expected {
            Ok(expected) => expected,
            Err(reason) => {
                self.unchecked.get_or_insert_with(|| reason.clone());
                return None;
            }
        };
        match compare(found, spec.scale, expected) {
            Ok(metrics) => {
                if !metrics.passes(threshold) {
                    let (measure, value) = (metrics.measure(), metrics.agreement());
                    let needed = if measure == "cosine" { threshold } else { 1.0 };
                    let text = || {
                        let value = digits(value);
                        format!("{mode} {measure} {value} of {:?} is below {needed}", spec.name)
                    };
                    self.failed.get_or_insert_with(text);
                }
                Some(metrics)
            }
            Err(error) => {
                self.failed.get_or_insert_with(|| format!("output {:?}: {error}", spec.name));
                None
            }
        }
    }
}

fn range(tensor: &Tensor) -> Option<[f32; 2]> {
    let values = tensor.to_f32().ok()?;
    let finite = values.iter().copied().filter(|v| v.is_finite());
    finite.fold(None, |range, v| match range {
        None => Some([v, v]),
        Some([low, high]) => Some([low.min(v), high.max(v)]),
    })
}

/// The first layer that is itself at fault; if none is, the first whose own inputs led it astray.
pub(crate) fn first_divergence(layers: &[LayerReport], threshold: f64) -> Option<Divergence> {
    let by = |mode: Feeding| {
        layers.iter().enumerate().find_map(|(index, layer)| {
            let place = |value, agreement| Divergence {
                layer: layer.name.clone(),
                index,
                mode,
                value,
                agreement,
            };
            let compared = layer.tensors.iter().filter_map(|t| t.metrics(mode).map(|m| (t, m)));
            let failing = compared
                .filter(|(_, m)| !m.passes(threshold))
                .min_by(|a, b| a.1.agreement().total_cmp(&b.1.agreement()));
            match failing {
                Some((tensor, m)) => Some(place(Some(tensor.name.clone()), Some(m.agreement()))),
                None if layer.verdict.is_fail() && layer.worst(mode).is_none() => {
                    Some(place(None, None))
                }
                None => None,
            }
        })
    };
    by(Feeding::TeacherForced).or_else(|| by(Feeding::Cumulative))
}
