//! What `--lora`, `--golden` and `--compile` add to a manifest.

use rockshard_tensor::DType;
use serde::{Deserialize, Serialize};

/// A pack's file of the logits that the exported language model gave, where they were recorded.
pub const LOGITS_FILE: &str = "golden/language_model.safetensors";

/// A recorded run of a model's reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Golden {
    /// Path of the safetensors file with the model's inputs, `STEP/NAME` each; every shard names the file of its outputs.
    pub inputs: String,
    /// Runs recorded, each with inputs of its own.
    pub steps: usize,
    /// Element type that real values are stored in.
    pub dtype: DType,
}

impl Golden {
    /// Key of a value in the golden files.
    pub fn key(step: usize, value: &str) -> String {
        format!("{step}/{value}")
    }
}

/// A shard compiled by rknn-toolkit2, and what its log says.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Compiled {
    /// Path of the `.rknn` file in the pack.
    pub file: String,
    /// Version of rknn-toolkit2.
    pub toolkit: String,
    /// `Total Internal Memory Size`: bytes of activations while it runs.
    pub internal_bytes: u64,
    /// `Total Weight Memory Size`: bytes of weights on the device.
    pub weight_bytes: u64,
    /// Layers in running order.
    pub layers: Vec<CompiledLayer>,
    /// The compiler's warnings.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// How Rockchip's simulator agrees with the reference, with `--verify`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verified: Option<Verified>,
}

impl Compiled {
    /// Modelled cycles of all layers (DDR or NPU, whichever is more, each; the vendor models none for attention).
    pub fn cycles(&self) -> u64 {
        self.layers.iter().map(|l| l.cycles[2]).sum()
    }

    /// Layers that run on the board's CPU.
    pub fn on_cpu(&self) -> impl Iterator<Item = &CompiledLayer> {
        self.layers.iter().filter(|l| l.target != "NPU")
    }
}

/// A layer of a compiled shard: a row of the compiler's table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CompiledLayer {
    /// The compiler's name for it, after the node it came from.
    pub name: String,
    /// Operator, e.g. `Conv`, `exSDPAttention`, `exNorm`.
    pub op: String,
    /// `NPU` or `CPU`.
    pub target: String,
    /// Shape of the output, as printed.
    pub output: String,
    /// Modelled cycles: memory, arithmetic, total.
    pub cycles: [u64; 3],
    /// Bytes read and written.
    pub moved_bytes: u64,
}

/// Agreement of Rockchip's simulator with the float32 reference on golden tensors; the worst over a shard's outputs.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verified {
    /// Smallest cosine similarity.
    pub cosine: f64,
    /// Largest relative L2 distance.
    pub relative_l2: f64,
}

/// A LoRA file fused into the weights.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FusedLora {
    /// File name.
    pub file: String,
    /// Factor on its updates.
    pub scale: f32,
    /// Modules whose weights it changed.
    pub fused: usize,
    /// Modules of the file that are not in the model, as the file spells them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unmatched: Vec<String>,
}

/// Whether a model was read right: the original file, run whole by another engine's own importer, against the reference that is cut from
/// the imported graph.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "snake_case", deny_unknown_fields)]
pub enum ImportCheck {
    /// All outputs agree.
    Pass {
        /// The largest relative L2 distance of an output.
        distance: f64,
    },
    /// An output differs.
    Fail {
        /// The output, and how it differs.
        reason: String,
    },
    /// The engine cannot run the file.
    Unchecked {
        /// Why.
        reason: String,
    },
}
