//! What a validation found, as data.

use crate::{LanguageReport, Metrics};
use rockshard_manifest::{AttentionTiling, CoreId, ImportCheck, SandwichRegion};
use rockshard_tensor::DType;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The outcome of a comparison.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case")]
pub enum Verdict {
    /// Compared, and everything agrees.
    Pass,
    /// Something differs, or the device could not run it.
    Fail {
        /// The first thing that differs.
        reason: String,
    },
    /// Not, or only in part, compared. Never a pass.
    Unchecked {
        /// What was missing.
        reason: String,
    },
}

impl Verdict {
    /// Whether everything was compared and agrees.
    pub fn is_pass(&self) -> bool {
        matches!(self, Verdict::Pass)
    }

    /// Whether something differs.
    pub fn is_fail(&self) -> bool {
        matches!(self, Verdict::Fail { .. })
    }

    /// `pass`, `fail` or `unchecked`.
    pub fn word(&self) -> &'static str {
        match self {
            Verdict::Pass => "pass",
            Verdict::Fail { .. } => "fail",
            Verdict::Unchecked { .. } => "unchecked",
        }
    }

    /// Why it is not a pass; empty for a pass.
    pub fn reason(&self) -> &str {
        match self {
            Verdict::Pass => "",
            Verdict::Fail { reason } | Verdict::Unchecked { reason } => reason,
        }
    }

    /// A whole from its named parts: the first failure, else the first unchecked part, else a pass; unchecked without parts.
    pub(crate) fn of_parts<'a>(parts: impl Iterator<Item = (&'a str, &'a Verdict)>) -> Verdict {
        let mut unchecked = None;
        let mut any = false;
        for (name, verdict) in parts {
            any = true;
            match verdict {
                Verdict::Fail { reason } => {
                    return Verdict::Fail { reason: format!("{name}: {reason}") };
                }
                Verdict::Unchecked { reason } if unchecked.is_none() => {
                    unchecked = Some(format!("{name}: {reason}"))
                }
                _ => {}
            }
        }
        match unchecked {
            Some(reason) => Verdict::Unchecked { reason },
            None if any => Verdict::Pass,
            None => Verdict::Unchecked { reason: "nothing was compared".into() },
        }
    }
}

impl From<&ImportCheck> for Verdict {
    fn from(check: &ImportCheck) -> Self {
        match check {
            ImportCheck::Pass { .. } => Verdict::Pass,
            ImportCheck::Fail { reason } => Verdict::Fail { reason: reason.clone() },
            ImportCheck::Unchecked { reason } => Verdict::Unchecked { reason: reason.clone() },
        }
    }
}

/// Which inputs a layer was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Feeding {
    /// The reference's values: the layer alone.
    TeacherForced,
    /// The values of the device's earlier layers.
    Cumulative,
}

impl std::fmt::Display for Feeding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Feeding::TeacherForced => "teacher-forced",
            Feeding::Cumulative => "cumulative",
        })
    }
}

/// The comparison of one output tensor of a layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TensorReport {
    /// Value name.
    pub name: String,
    /// Element type of the unscaled value.
    pub dtype: DType,
    /// Extents.
    pub shape: Vec<usize>,
    /// The device's tensor is this many times the value.
    pub scale: f32,
    /// Smallest and largest finite value of the reference; absent for integers and where nothing is finite or known.
    pub reference_range: Option<[f32; 2]>,
    /// With the reference's values as inputs; absent when it could not be compared.
    pub teacher_forced: Option<Metrics>,
    /// With the device's earlier outputs as inputs; absent when it could not be compared.
    pub cumulative: Option<Metrics>,
}

impl TensorReport {
    /// The metrics of a mode.
    pub fn metrics(&self, mode: Feeding) -> Option<&Metrics> {
        match mode {
            Feeding::TeacherForced => self.teacher_forced.as_ref(),
            Feeding::Cumulative => self.cumulative.as_ref(),
        }
    }
}

/// The comparison of one layer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LayerReport {
    /// Shard name.
    pub name: String,
    /// Core it ran on.
    pub core: CoreId,
    /// Operators by name with their number.
    pub operators: BTreeMap<String, usize>,
    /// Regions that were scaled.
    pub sandwich: Vec<SandwichRegion>,
    /// Attentions and how they were lowered.
    pub attention: Vec<AttentionTiling>,
    /// One entry for each output, in the shard's order.
    pub tensors: Vec<TensorReport>,
    /// The outcome.
    pub verdict: Verdict,
}

impl LayerReport {
    /// The output with the lowest agreement in a mode; `None` when nothing was compared.
    pub fn worst(&self, mode: Feeding) -> Option<(&TensorReport, &Metrics)> {
        let compared = self.tensors.iter().filter_map(|t| t.metrics(mode).map(|m| (t, m)));
        compared.min_by(|a, b| a.1.agreement().total_cmp(&b.1.agreement()))
    }
}

/// Where a model first leaves the reference.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// The layer.
    pub layer: String,
    /// Its place in running order, from 0.
    pub index: usize,
    /// Teacher-forced when the layer itself is at fault; cumulative when no single layer is, but their errors add up.
    pub mode: Feeding,
    /// The output that differs most; absent when the layer did not run.
    pub value: Option<String>,
    /// Its cosine, or equal share for integers; absent when the layer did not run.
    pub agreement: Option<f64>,
}

/// An output of the whole model, run on the device from end to end.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OutputReport {
    /// Value name.
    pub name: String,
    /// Layer that writes it.
    pub layer: String,
    /// The comparison; absent when it could not be made.
    pub cumulative: Option<Metrics>,
    /// Cosine with each row normalised (see [`crate::after_norm_cosine`]); absent for integers. Reported, not judged: it magnifies
    /// noise in outputs whose rows are nearly constant, as plain areas of a picture are.
    pub after_norm: Option<f64>,
}

/// The comparison of one model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelReport {
    /// Model name.
    pub model: String,
    /// The outcome: fails when a layer fails, unchecked when one is.
    pub verdict: Verdict,
    /// The first layer at fault, if any.
    pub first_divergence: Option<Divergence>,
    /// Outputs of the whole model.
    pub outputs: Vec<OutputReport>,
    /// Whether the model was read right: its original file, run whole, against the reference. Unchecked, it does not count in the verdict.
    pub import: Verdict,
    /// All layers in running order.
    pub layers: Vec<LayerReport>,
}

impl ModelReport {
    /// Enter what comparing the original file found; a difference fails the model.
    pub fn judge_import(&mut self, import: Verdict) {
        if let Verdict::Fail { reason } = &import
            && !self.verdict.is_fail()
        {
            self.verdict = Verdict::Fail { reason: format!("import: {reason}") };
        }
        self.import = import;
    }

    /// The layer and mode with the lowest agreement; `None` when nothing was compared.
    pub fn worst(&self) -> Option<(&LayerReport, Feeding, &TensorReport, &Metrics)> {
        let modes = [Feeding::TeacherForced, Feeding::Cumulative];
        let all = self
            .layers
            .iter()
            .flat_map(|l| modes.map(|mode| l.worst(mode).map(|(t, m)| (l, mode, t, m))));
        all.flatten().min_by(|a, b| a.3.agreement().total_cmp(&b.3.agreement()))
    }

    /// Numbers of layers that pass, fail and are unchecked.
    pub fn counts(&self) -> [usize; 3] {
        let mut counts = [0; 3];
        for layer in &self.layers {
            counts[match layer.verdict {
                Verdict::Pass => 0,
                Verdict::Fail { .. } => 1,
                Verdict::Unchecked { .. } => 2,
            }] += 1;
        }
        counts
    }
}

/// The comparison of a whole pack on a device. Field order, and so the JSON, is stable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Smallest cosine that passes.
    pub threshold: f64,
    /// Name of the device.
    pub device: String,
    /// Name of the reference.
    pub reference: String,
    /// The outcome.
    pub verdict: Verdict,
    /// All models in running order.
    pub models: Vec<ModelReport>,
    /// What was found of a language model; absent where the pack has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<LanguageReport>,
}

/// What is known of an import where the original was not run.
pub(crate) fn not_imported() -> Verdict {
    Verdict::Unchecked { reason: "the original file was not compared".into() }
}

impl Report {
    /// A report over models that were validated with this threshold.
    pub fn new(
        threshold: f64,
        device: impl Into<String>,
        reference: impl Into<String>,
        models: Vec<ModelReport>,
    ) -> Self {
        let mut report = Report {
            threshold,
            device: device.into(),
            reference: reference.into(),
            verdict: not_imported(),
            models,
            language: None,
        };
        report.judge();
        report
    }

    /// The verdict over all models, and over the language model where it was compared with something.
    fn judge(&mut self) {
        let models = self.models.iter().map(|m| (m.model.as_str(), &m.verdict));
        let unchecked = |verdict: &Verdict| matches!(verdict, Verdict::Unchecked { .. });
        let language = self.language.iter().map(|l| ("language", &l.verdict));
        self.verdict = Verdict::of_parts(models.chain(language.filter(|(_, v)| !unchecked(v))));
    }

    /// Enter what was found of the language model.
    pub fn judge_language(&mut self, language: LanguageReport) {
        self.language = Some(language);
        self.judge();
    }

    /// Enter what comparing the original files found, by model.
    pub fn judge_imports(&mut self, mut imports: BTreeMap<String, Verdict>) {
        for model in &mut self.models {
            if let Some(import) = imports.remove(&model.model) {
                model.judge_import(import);
            }
        }
        self.judge();
    }

    /// Whether every layer of every model was compared and agrees.
    pub fn passed(&self) -> bool {
        self.verdict.is_pass()
    }

    /// The report as indented JSON with a final newline.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a report has only string keys") + "\n"
    }

    /// The report in a few lines of text: the verdict, and for each model its counts, worst layer, first divergence and outputs.
    pub fn summary(&self) -> Vec<String> {
        let mut lines = vec![format!(
            "{}: {} against {}, threshold {}",
            self.verdict.word().to_uppercase(),
            self.device,
            self.reference,
            self.threshold
        )];
        for model in &self.models {
            let [pass, fail, unchecked] = model.counts();
            let name = &model.model;
            lines.push(format!(
                "{name}: {} layer{}, {pass} pass, {fail} fail, {unchecked} unchecked",
                model.layers.len(),
                if model.layers.len() == 1 { "" } else { "s" }
            ));
            if let Some((layer, mode, tensor, metrics)) = model.worst() {
                let (measure, value) = (metrics.measure(), metrics.agreement());
                lines.push(format!(
                    "{name}: worst layer {} ({mode} {measure} {} of {:?})",
                    layer.name,
                    digits(value),
                    tensor.name
                ));
            }
            if let Some(first) = &model.first_divergence {
                lines.push(format!("{name}: first divergence in {}", first.describe()));
            }
            if let Some(layer) =
                model.layers.iter().find(|l| matches!(l.verdict, Verdict::Unchecked { .. }))
            {
                lines.push(format!(
                    "{name}: first unchecked layer {}: {}",
                    layer.name,
                    layer.verdict.reason()
                ));
            }
            let import = match model.import.reason() {
                "" => String::new(),
                reason => format!(", {reason}"),
            };
            lines.push(format!("{name}: import {}{import}", model.import.word()));
            for output in &model.outputs {
                lines.push(format!("{name}: output {:?} {}", output.name, output.describe()));
            }
        }
        lines.extend(self.language.iter().flat_map(LanguageReport::summary));
        lines
    }
}

/// An agreement as text; what is below 1 is never rounded up to it.
pub(crate) fn digits(value: f64) -> String {
    let text = format!("{value:.6}");
    if value < 1.0 && text == "1.000000" { format!("1-{:.0e}", 1.0 - value) } else { text }
}

impl Divergence {
    /// The place and the number, in words.
    pub fn describe(&self) -> String {
        match (&self.value, self.agreement) {
            (Some(value), Some(agreement)) => {
                let agreement = digits(agreement);
                format!("{} ({} agreement {agreement} of {value:?})", self.layer, self.mode)
            }
            _ => format!("{}, which did not run", self.layer),
        }
    }
}

impl OutputReport {
    /// The numbers, in words.
    pub fn describe(&self) -> String {
        match (&self.cumulative, self.after_norm) {
            (None, _) => "was not compared".into(),
            (Some(m), None) => format!("{} {}", m.measure(), digits(m.agreement())),
            (Some(m), Some(norm)) => {
                let (found, norm) = (digits(m.agreement()), digits(norm));
                format!("{} {found}, after a norm {norm}", m.measure())
            }
        }
    }
}
