//! The types of `manifest.json`, one to one. What serde cannot say of it, `check` does.

use crate::{
    Companion, Compiled, Family, FileEntry, FusedLora, Golden, ImportCheck, LanguageConversion,
    Optimise, PathError, Placement, Role, check_relative,
};
use rockshard_tensor::DType;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Schema version this build writes and the newest it reads.
pub const SCHEMA: u32 = 1;

/// Name of the manifest in a pack.
pub const MANIFEST_FILE: &str = "manifest.json";

/// Everything a pack declares about itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Schema version; a pack written by a newer schema is refused.
    pub schema: u32,
    /// The program that wrote the pack.
    pub generator: Generator,
    /// Chip the shards are made for: `rk3588`.
    pub target: String,
    /// What its networks make together.
    pub family: Family,
    /// What was asked of the conversion.
    pub conversion: Conversion,
    /// Models in the order they run.
    pub models: Vec<Model>,
    /// Files that the networks' users need besides them, by what they are for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub companions: BTreeMap<Companion, Vec<String>>,
    /// Every other file of the pack by its relative path.
    pub files: BTreeMap<String, FileEntry>,
}

/// The program and version that wrote a pack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Generator {
    /// Program name.
    pub name: String,
    /// Its version.
    pub version: String,
}

/// The options a pack was converted with, as typed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Conversion {
    /// `off`, `auto` or a factor.
    pub sandwich: String,
    /// `off`, `auto`, `rows:R`, `grid:RxC` or `heads`.
    pub tile: String,
    /// `auto`, `block`, `layer` or a number.
    pub shards: String,
    /// Which core each shard is pinned to.
    pub placement: Placement,
    /// What automatic choices aimed at.
    pub optimise: Optimise,
    /// LoRA files fused into the weights.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub loras: Vec<FusedLora>,
    /// What became of the language model, where the source has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub language: Option<LanguageConversion>,
}

/// One network at one resolution, cut into shards.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Part name: `text_encoder`, `unet`, `vae_decoder`, `vae_encoder`, or the file stem of a single ONNX file.
    pub name: String,
    /// What it is for.
    pub role: Role,
    /// Picture size `[width, height]` in pixels the shapes were fixed for; absent where it does not matter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resolution: Option<[u32; 2]>,
    /// Inputs of the whole model, in the source model's order.
    pub inputs: Vec<TensorSpec>,
    /// Outputs of the whole model.
    pub outputs: Vec<TensorSpec>,
    /// Shards in an order in which they can run.
    pub shards: Vec<Shard>,
    /// What was noticed about the model's file, or done to it, while it was read, a line each; what kind of thing it is stands before a colon:
    /// `repaired`, `unusual`, `constant`, `kept`, `dequantised`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What the passes over the whole network did, or why there was nothing for them to do, `PASS: WHAT` a line; what they did to a shard is with
    /// the shard.
    #[serde(default)]
    pub passes: Vec<String>,
    /// What the passes declined to do, and why, a line each.
    #[serde(default)]
    pub declined: Vec<String>,
    /// Tensors of a reference run, with `--golden`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<Golden>,
    /// How the original file, run whole by the reference engine's own reading of it, compares with the reference; absent where that was
    /// not asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub import: Option<ImportCheck>,
    /// Modelled microseconds of one run, on one core, of the graph as it was imported: fused as the compiler fuses it, not rewritten, not cut. Absent where
    /// nothing of it runs on the NPU.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unchanged_us: Option<f64>,
}

/// Where a shard runs: one of the NPU's cores, or the host processor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "CoreName", into = "CoreName")]
pub enum CoreId {
    /// NPU core 0, 1 or 2.
    Npu(u8),
    /// The host: integer look-ups and functions the NPU does not have.
    Host,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum CoreName {
    Number(i64),
    Word(String),
}

impl From<CoreId> for CoreName {
    fn from(core: CoreId) -> Self {
        match core {
            CoreId::Npu(n) => CoreName::Number(n.into()),
            CoreId::Host => CoreName::Word("host".into()),
        }
    }
}

impl TryFrom<CoreName> for CoreId {
    type Error = String;

    fn try_from(name: CoreName) -> Result<Self, String> {
        match name {
            CoreName::Number(n @ 0..=2) => Ok(CoreId::Npu(n as u8)),
            CoreName::Word(w) if w == "host" => Ok(CoreId::Host),
            CoreName::Number(n) => {
                Err(format!("core {n} does not exist: cores are 0, 1, 2 and \"host\""))
            }
            CoreName::Word(w) => {
                Err(format!("core {w:?} does not exist: cores are 0, 1, 2 and \"host\""))
            }
        }
    }
}

impl std::fmt::Display for CoreId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CoreId::Npu(n) => write!(f, "core {n}"),
            CoreId::Host => f.write_str("host"),
        }
    }
}

/// A tensor that crosses a boundary.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TensorSpec {
    /// Value name, the same in `shards/` and `reference/`.
    pub name: String,
    /// Element type of the unscaled value: `float32` for every real-valued one (the NPU stores it as float16).
    pub dtype: DType,
    /// Static extents.
    pub shape: Vec<usize>,
    /// The device's tensor is `scale` times the value (a power of two with `--sandwich auto`).
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub scale: f32,
}

impl Model {
    /// Names of the values that may stay on the device: shards of the NPU make them and alone read them, all at one scale.
    pub fn device_values(&self) -> BTreeSet<&str> {
        let on_npu = |shard: &&Shard| shard.core != CoreId::Host;
        let made = self.shards.iter().filter(on_npu).flat_map(|shard| &shard.outputs);
        let mut scales: BTreeMap<&str, f32> = made.map(|t| (t.name.as_str(), t.scale)).collect();
        for shard in &self.shards {
            for input in &shard.inputs {
                if !on_npu(&shard)
                    || scales.get(input.name.as_str()).is_some_and(|&scale| scale != input.scale)
                {
                    scales.remove(input.name.as_str());
                }
            }
        }
        let outputs: BTreeSet<&str> = self.outputs.iter().map(|t| t.name.as_str()).collect();
        scales.into_keys().filter(|name| !outputs.contains(name)).collect()
    }

    /// Tells of tensors whether each is one of [`Model::device_values`].
    pub fn stays(&self) -> impl Fn(&[TensorSpec]) -> Vec<bool> {
        let values = self.device_values();
        move |tensors| tensors.iter().map(|t| values.contains(t.name.as_str())).collect()
    }
}

impl TensorSpec {
    /// The same tensor as the reference has it, stored without scaling.
    pub fn unscaled(&self) -> Self {
        TensorSpec { scale: 1.0, ..self.clone() }
    }
}

fn one() -> f32 {
    1.0
}

#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_one(scale: &f32) -> bool {
    *scale == 1.0
}

/// One device executable.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shard {
    /// Unique in the pack, e.g. `unet-04-down_blocks.0.attentions.0.attn1`.
    pub name: String,
    /// Path of the device graph in the pack.
    pub file: String,
    /// Path of the same piece of the original graph, neither sandwiched nor tiled, for validation.
    pub reference: String,
    /// Core the shard is pinned to.
    pub core: CoreId,
    /// Shards of one stage have no path between them and may run at the same time.
    pub stage: u32,
    /// Tensors it reads, in the graph's input order.
    pub inputs: Vec<TensorSpec>,
    /// Tensors it writes, in the graph's output order.
    pub outputs: Vec<TensorSpec>,
    /// Operators by name with their number, as the NPU compiler fuses them.
    pub operators: BTreeMap<String, usize>,
    /// Bytes of weights as float16.
    pub weight_bytes: u64,
    /// What the cost model says.
    pub modelled: ModelledCost,
    /// Regions that were scaled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sandwich: Vec<SandwichRegion>,
    /// Attentions and how they were lowered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attention: Vec<AttentionTiling>,
    /// Path of the safetensors file with its outputs in the recorded run, unscaled, `STEP/VALUE` each.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden: Option<String>,
    /// What the vendor's compiler made of it, with `--compile`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compiled: Option<Compiled>,
}

/// Modelled cost of one run of a shard on one core, between the others of its model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelledCost {
    /// Time in microseconds at 1 GHz.
    pub micros: f64,
    /// Peak bytes of activations (float16) while it runs.
    pub internal_bytes: u64,
}

/// A region whose values are stored multiplied by a factor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SandwichRegion {
    /// First and last node of the region.
    pub nodes: [String; 2],
    /// Stored value over real value.
    pub factor: f32,
    /// Value whose range decided the factor.
    pub worst_value: String,
    /// Largest magnitude of that value over the calibration inputs.
    pub worst_magnitude: f32,
    /// Share of that value's elements that float16 would flush or overflow before.
    pub lost_before: f32,
    /// The same share after scaling.
    pub lost_after: f32,
}

/// How one attention is computed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AttentionTiling {
    /// Output value of the attention.
    pub value: String,
    /// Heads, query tokens, key tokens, channels of a head.
    pub shape: [usize; 4],
    /// `whole`, `rows:R`, `grid:RxC` or `heads:H`.
    pub lowering: String,
    /// Modelled peak bytes of scores and their temporaries without tiling.
    pub peak_before: u64,
    /// The same with this lowering.
    pub peak_after: u64,
}

/// Why a manifest is refused.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// Not JSON of this schema; the place is in the message.
    #[error("manifest.json: {0}; a pack of another version of rockshard has to be converted again")]
    Json(#[from] serde_json::Error),
    /// Written by a newer rockshard.
    #[error(
        "manifest.json: schema {found} is newer than {SCHEMA}, the newest this rockshard reads; update rockshard"
    )]
    Newer {
        /// Version in the file.
        found: u64,
    },
    /// A file path leads out of the pack.
    #[error("manifest.json: {0}")]
    Path(#[from] PathError),
    /// Two shards share a name, or a shard reads a value that nothing before it writes, or a file is not listed.
    #[error("manifest.json: {0}")]
    Inconsistent(String),
}

impl Manifest {
    /// Parse and check a manifest.
    ///
    /// # Errors
    /// JSON that is malformed or has unknown fields, a newer schema, paths out of the pack, shards whose inputs nothing writes.
    pub fn parse(text: &[u8]) -> Result<Self, ManifestError> {
        #[derive(Deserialize)]
        struct Version {
            schema: u64,
        }
        let version: Version = serde_json::from_slice(text)?;
        if version.schema > u64::from(SCHEMA) {
            return Err(ManifestError::Newer { found: version.schema });
        }
        let manifest: Manifest = serde_json::from_slice(text)?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The manifest as indented JSON with a final newline; equal manifests give equal bytes.
    pub fn to_json(&self) -> String {
        serde_json::to_string_pretty(self).expect("a manifest has only string keys") + "\n"
    }

    /// The model of a name, at a resolution where one is given.
    pub fn model(&self, name: &str, resolution: Option<[u32; 2]>) -> Option<&Model> {
        self.models.iter().find(|m| {
            m.name == name
                && (resolution.is_none() || m.resolution.is_none() || m.resolution == resolution)
        })
    }

    /// The resolutions that models were converted for, each once; `None` where no model has one.
    pub fn resolutions(&self) -> Vec<Option<[u32; 2]>> {
        let found: BTreeSet<_> = self.models.iter().filter_map(|m| m.resolution).collect();
        if found.is_empty() { vec![None] } else { found.into_iter().map(Some).collect() }
    }

    fn check(&self) -> Result<(), ManifestError> {
        let inconsistent = |text: String| Err(ManifestError::Inconsistent(text));
        if self.schema == 0 {
            return inconsistent("schema 0 does not exist; the first is 1".into());
        }
        for path in self.files.keys() {
            check_relative(path)?;
        }
        if let Some(lora) = self.conversion.loras.iter().find(|l| !l.scale.is_finite()) {
            return inconsistent(format!("LoRA {:?} has scale {}", lora.file, lora.scale));
        }
        for file in self.companions.values().flatten() {
            check_relative(file)?;
            if !self.files.contains_key(file) {
                return inconsistent(format!(
                    "a companion is file {file:?}, which is not listed under files"
                ));
            }
        }
        let mut names = BTreeSet::new();
        for model in &self.models {
            if let Some(golden) =
                model.golden.as_ref().filter(|g| !self.files.contains_key(&g.inputs))
            {
                return inconsistent(format!(
                    "model {:?} names file {:?}, which is not listed under files",
                    model.name, golden.inputs
                ));
            }
            let mut known: BTreeSet<&str> = model.inputs.iter().map(|t| t.name.as_str()).collect();
            for shard in &model.shards {
                if !names.insert(shard.name.as_str()) {
                    return inconsistent(format!("two shards are named {:?}", shard.name));
                }
                for file in [&shard.file, &shard.reference] {
                    if !self.files.contains_key(file) {
                        return inconsistent(format!(
                            "shard {:?} names file {file:?}, which is not listed under files",
                            shard.name
                        ));
                    }
                }
                if let Some(input) = shard.inputs.iter().find(|t| !known.contains(t.name.as_str()))
                {
                    return inconsistent(format!(
                        "shard {:?} reads {:?}, which no earlier shard writes",
                        shard.name, input.name
                    ));
                }
                let micros = shard.modelled.micros;
                if !(micros.is_finite() && micros >= 0.0) {
                    return inconsistent(format!(
                        "shard {:?} is modelled to take {micros} microseconds",
                        shard.name
                    ));
                }
                let optional = [shard.golden.as_ref(), shard.compiled.as_ref().map(|c| &c.file)];
                if let Some(file) =
                    optional.into_iter().flatten().find(|f| !self.files.contains_key(*f))
                {
                    return inconsistent(format!(
                        "shard {:?} names file {file:?}, which is not listed under files",
                        shard.name
                    ));
                }
                for region in &shard.sandwich {
                    let measured = [region.worst_magnitude, region.lost_before, region.lost_after];
                    if !(region.factor.is_finite()
                        && region.factor > 0.0
                        && measured.iter().all(|v| v.is_finite()))
                    {
                        return inconsistent(format!(
                            "shard {:?} has a sandwich with a number that is not finite, or a factor of 0 or below",
                            shard.name
                        ));
                    }
                }
                for output in &shard.outputs {
                    if !known.insert(&output.name) {
                        return inconsistent(format!(
                            "shard {:?} writes {:?} a second time",
                            shard.name, output.name
                        ));
                    }
                }
            }
            if let Some(output) = model.outputs.iter().find(|t| !known.contains(t.name.as_str())) {
                return inconsistent(format!(
                    "model {:?} has output {:?}, which no shard writes",
                    model.name, output.name
                ));
            }
            for spec in model
                .shards
                .iter()
                .flat_map(|s| s.inputs.iter().chain(&s.outputs))
                .chain(&model.inputs)
                .chain(&model.outputs)
            {
                if !(spec.scale.is_finite() && spec.scale > 0.0) {
                    return inconsistent(format!(
                        "tensor {:?} has scale {}",
                        spec.name, spec.scale
                    ));
                }
                let bytes = spec.shape.iter().try_fold(spec.dtype.size(), |n, &d| n.checked_mul(d));
                if bytes.is_none_or(|n| n > u32::MAX as usize) {
                    return inconsistent(format!(
                        "tensor {:?} of shape {:?} is over 4 GiB",
                        spec.name, spec.shape
                    ));
                }
            }
        }
        Ok(())
    }
}
