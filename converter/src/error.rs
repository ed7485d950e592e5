//! Why a model cannot be converted: the facts and the place. What to do about it depends on how the caller is used.

use crate::lora::LoraError;
use crate::toolkit::Failure;
use rockshard_cost::LimitError;
use rockshard_device::DeviceError;
use rockshard_graph::VerifyError;
use rockshard_import::ImportError;
use rockshard_tensor::{ArchiveError, TensorError};
use rockshard_vlm::LanguageError;
use std::path::PathBuf;

/// Why a model cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum ConvertError {
    /// The source is no model that is known.
    #[error("{path}: {problem}")]
    Source {
        /// What was given.
        path: PathBuf,
        /// What is wrong and what would do.
        problem: String,
    },
    /// A single file, whose shapes are its own, for which a batch was asked.
    #[error("{path}: a single file's shapes are its own, so it takes no batch")]
    OwnShapes {
        /// The file.
        path: PathBuf,
    },
    /// A chip with another number of cores than packs can name.
    #[error("a chip of {cores} cores: packs are for one to three")]
    Cores {
        /// Its cores.
        cores: u8,
    },
    /// A model whose configuration fixes the picture's size, for which a resolution was asked.
    #[error(
        "{path}: a vision-language model's picture size is fixed by config.json, so it takes no resolution"
    )]
    OwnResolution {
        /// The model's directory.
        path: PathBuf,
    },
    /// A language model whose weights were to be stored in fewer bits.
    #[error("{path}: its weights cannot be stored in {bits} bits: {reason}")]
    LanguageWeights {
        /// The decoder's file.
        path: PathBuf,
        /// Bits of a weight.
        bits: u32,
        /// Why they cannot.
        reason: String,
    },
    /// Logits to judge a language model by cannot be read or computed.
    #[error("{path}: no logits to compare with: {source}")]
    LanguageLogits {
        /// The decoder's file, or that of the logits.
        path: PathBuf,
        /// Cause.
        source: LanguageError,
    },
    /// A part's ONNX file.
    #[error("{part} ({path}): {source}")]
    Import {
        /// Part of the model.
        part: String,
        /// Its file.
        path: PathBuf,
        /// Cause.
        source: ImportError,
    },
    /// A file whose activations are quantised too, or whose weights are in a form that nothing here reads.
    #[error("{path}: is quantised in a way that is not read; what can be converted is {}", instead.join(", "))]
    Quantised {
        /// The file.
        path: PathBuf,
        /// Names of files that can be converted, the most exact first.
        instead: Vec<String>,
    },
    /// A weight that is not finite.
    #[error(
        "{part}: weight {weight:?} of node {node:?} contains {found}, which no device computes with"
    )]
    NotFinite {
        /// Part of the model.
        part: String,
        /// Initializer.
        weight: String,
        /// First node that uses it.
        node: String,
        /// NaN or an infinity.
        found: f32,
    },
    /// Work of the host after the NPU's, in a placement that has a place for it at the start only.
    #[error(
        "{part}: placement split needs the host's work at the start, but node {node:?} ({op}) comes after NPU work; another placement takes it"
    )]
    HostAfterNpu {
        /// Part of the model.
        part: String,
        /// Node.
        node: String,
        /// Operator.
        op: &'static str,
    },
    /// A limit of the NPU.
    #[error("shard {shard}: {source}; smaller tiles, more shards or a lower resolution may fit")]
    Limit {
        /// Shard.
        shard: String,
        /// Node and limit.
        source: LimitError,
    },
    /// A choice that a split placement leaves nothing to.
    #[error("placement split decides where a model is cut, so {other} has no place")]
    SplitWith {
        /// The choice.
        other: String,
    },
    /// More shards than there are nodes.
    #[error("{part}: {asked} shards asked for, but it has only {nodes} nodes to cut between")]
    TooManyShards {
        /// Part of the model.
        part: String,
        /// Asked for.
        asked: usize,
        /// Nodes there are.
        nodes: usize,
    },
    /// Fewer shards than the cuts that bands of tokens need.
    #[error(
        "{part}: {asked} shards asked for, but at this size it needs at least {least}: the compiler must not see planes and their bands of tokens in one"
    )]
    TooFewShards {
        /// Part of the model.
        part: String,
        /// Asked for.
        asked: usize,
        /// Shards it needs.
        least: usize,
    },
    /// Calibration inputs that do not fit.
    #[error("calibration of {part}: {problem}")]
    Calibration {
        /// Part of the model.
        part: String,
        /// What is wrong.
        problem: String,
    },
    /// The reference failed while calibrating.
    #[error("calibration: {0}")]
    Reference(#[from] DeviceError),
    /// The vendor's toolkit is not there.
    #[error(
        "{python}: {problem}; make an environment with `python3.11 -m venv DIR && DIR/bin/pip install rknn-toolkit2==2.5.0 'onnx<=1.18' \
         'setuptools<81'`"
    )]
    Toolkit {
        /// Interpreter.
        python: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// Shards that the vendor's toolkit did not compile.
    #[error("{} of {total} shards were not compiled: {}", failures.len(), failures.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Compile {
        /// Each with the reason.
        failures: Vec<Failure>,
        /// Shards there are to compile.
        total: usize,
    },
    /// A LoRA file that cannot be fused.
    #[error("{path}: {problem}")]
    Lora {
        /// File.
        path: PathBuf,
        /// What is wrong.
        problem: LoraError,
    },
    /// A weight that is not what an operation needs.
    #[error("weight {weight:?}: {source}")]
    Weight {
        /// Initializer.
        weight: String,
        /// Cause.
        source: TensorError,
    },
    /// A safetensors file.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// A rewrite broke a graph.
    #[error("after a rewrite: {0}")]
    Rewrite(#[from] VerifyError),
    /// The pack cannot be written.
    #[error("{path}: {source}")]
    Io {
        /// File or directory.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The caller's progress function asked to stop.
    #[error("stopped")]
    Stopped,
    /// Another process writes the pack.
    #[error(
        "{target}: another conversion into it is under way (process {process}); wait for it, or choose another directory"
    )]
    Busy {
        /// The pack.
        target: PathBuf,
        /// The process' number.
        process: String,
    },
    /// The output is already there.
    #[error("{0} exists already")]
    Exists(PathBuf),
}

impl ConvertError {
    /// A failure at a weight.
    pub(crate) fn tensor(weight: &str) -> impl FnOnce(TensorError) -> Self {
        let weight = weight.to_owned();
        move |source| ConvertError::Weight { weight, source }
    }

    /// An I/O failure at a path.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| ConvertError::Io { path, source }
    }
}
