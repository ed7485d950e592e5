//! What is asked of a conversion, and what it tells while it works.

use crate::ConvertError;
use crate::calibrate::Sample;
use crate::golden::Recording;
use crate::lora::LoraFile;
use crate::options::{Optimise, Placement, Sandwich, Shards, Tile};
use crate::toolkit::Toolkit;
use rockshard_cost::Rk3588;
use rockshard_manifest::Companion;
use rockshard_vlm::WeightBits;
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;
use std::path::PathBuf;

/// What the caller fixes about a model's inputs and outputs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fixed {
    /// Extents of named open dimensions.
    pub dims: BTreeMap<String, usize>,
    /// Whole shapes of inputs, by `INPUT` or `PART.INPUT`.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Outputs to keep; all when empty.
    pub outputs: Vec<String>,
}

/// What to convert and how.
#[derive(Clone, Debug)]
pub struct ConvertRequest {
    /// A model's directory or an ONNX file.
    pub source: PathBuf,
    /// Directory of the pack; must not exist.
    pub out: PathBuf,
    /// The chip to convert for.
    pub chip: Rk3588,
    /// Picture sizes `[width, height]`; the model's own when empty.
    pub resolutions: Vec<[u32; 2]>,
    /// Items a network takes at once.
    pub batch: usize,
    /// Extents and outputs that the caller fixes.
    pub fixed: Fixed,
    /// Scaling of values.
    pub sandwich: Sandwich,
    /// Lowering of attention.
    pub tile: Tile,
    /// Where to cut.
    pub shards: Shards,
    /// Which core each shard is pinned to.
    pub placement: Placement,
    /// What automatic choices aim at.
    pub optimise: Optimise,
    /// Leave the shards' weights in float32, for comparing them with the reference in float32. They are in float16 where the NPU rounds them.
    pub wide_weights: bool,
    /// Make the keys and values of the U-Net's cross-attentions a network of their own, which runs once a prompt.
    pub precompute_kv: bool,
    /// The bits that a language model's weights are stored in.
    pub language_weights: WeightBits,
    /// Calibration inputs by part name; a part without any is calibrated on seeded normal noise.
    pub calibration: HashMap<String, Vec<Sample>>,
    /// Companions that the caller made: what each is for, its path in the pack, and its contents.
    pub companions: Vec<(Companion, String, Vec<u8>)>,
    /// LoRA files to fuse into the weights.
    pub loras: Vec<LoraFile>,
    /// Reference tensors to record at every boundary.
    pub golden: Option<Recording>,
    /// Compare the original files, run whole by the reference engine, with the reference.
    pub check: bool,
    /// The vendor's toolkit, to compile the shards with.
    pub toolkit: Option<Toolkit>,
    /// Go on with an interrupted conversion.
    pub resume: bool,
}

impl ConvertRequest {
    /// Convert `source` to a pack at `out` with the usual choices: everything automatic, shards on the cores in turn.
    pub fn new(source: impl Into<PathBuf>, out: impl Into<PathBuf>) -> Self {
        ConvertRequest {
            source: source.into(),
            out: out.into(),
            chip: Rk3588::default(),
            resolutions: Vec::new(),
            batch: 1,
            fixed: Fixed::default(),
            sandwich: Sandwich::Auto,
            tile: Tile::Auto,
            shards: Shards::Auto,
            placement: Placement::RoundRobin,
            optimise: Optimise::Throughput,
            wide_weights: false,
            precompute_kv: false,
            language_weights: WeightBits::default(),
            calibration: HashMap::new(),
            companions: Vec::new(),
            loras: Vec::new(),
            golden: None,
            check: false,
            toolkit: None,
            resume: false,
        }
    }
}

/// What the converter is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConvertProgress {
    /// A part is being read.
    Import(String),
    /// A part is run to find out how it is to be scaled: part, what it runs on, pieces done, pieces in all.
    Calibrate(String, Calibrating, usize, usize),
    /// A shard was written: part, number done, number in all.
    Shard(String, usize, usize),
    /// The language model is being read and checked.
    Language,
    /// A part's golden tensors are being recorded: part, shards done, shards in all.
    Golden(String, usize, usize),
    /// A part is run to be compared with its original file: part, pieces done, pieces in all.
    Check(String, usize, usize),
    /// A shard was compiled: part, number done, number in all.
    Compile(String, usize, usize),
}

/// What a part runs on while it is calibrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calibrating {
    /// The reference, on a small picture, which may show that nothing needs scaling.
    SmallPicture,
    /// The reference, on the samples, for their ranges.
    Reference,
    /// The simulator, on the samples, with factors or without.
    Simulator,
}

/// Hears how many pieces of how many are done, and stops the work with its error.
pub(crate) type Pieces<'a> = &'a dyn Fn(usize, usize) -> Result<(), ConvertError>;

/// The caller's progress function, which stops the conversion by breaking.
pub(crate) struct Teller<'a>(pub &'a mut dyn FnMut(ConvertProgress) -> ControlFlow<()>);

impl Teller<'_> {
    pub fn tell(&mut self, progress: ConvertProgress) -> Result<(), ConvertError> {
        match (self.0)(progress) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(ConvertError::Stopped),
        }
    }
}
