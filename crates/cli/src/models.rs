//! A pack's networks, as the diffusion pipelines want them.

use anyhow::{Context, Result, bail};
use rockshard_diffusion::{ClipTokenizer, ModelError, Models, PipelineConfig};
use rockshard_manifest::{Model, TensorSpec};
use rockshard_runtime::{Devices, Pack, Placement, Runner, TensorMap};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Name of the pipeline's configuration in a pack.
pub const SAMPLER_FILE: &str = "sampler.json";

/// The models of a pack opened on devices. Keeps the first inputs each model was given.
pub struct PackModels {
    /// What runs them.
    pub runner: Runner,
    size: Option<[u32; 2]>,
    sizes: Vec<[u32; 2]>,
    seen: Mutex<Vec<(String, TensorMap)>>,
}

impl PackModels {
    /// Open all models of a pack at a size.
    pub fn open(pack: &Pack, devices: &Devices, cores: u8, size: Option<[u32; 2]>) -> Result<Self> {
        let mut sizes: Vec<[u32; 2]> = pack.manifest().models.iter().filter_map(|m| m.resolution).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let runner = Runner::new(pack, &[], devices, cores, Placement::of(pack.manifest()))?;
        Ok(PackModels { runner, size, sizes, seen: Mutex::default() })
    }

    /// The first inputs that each model was given.
    pub fn seen(&self) -> Vec<(String, TensorMap)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn model(&self, name: &str) -> Option<&Model> {
        let fits = |m: &&Model| m.name == name && (self.size.is_none() || m.resolution.is_none() || m.resolution == self.size);
        self.runner.models().find(fits).or_else(|| self.runner.models().find(|m| m.name == name))
    }
}

impl Models for PackModels {
    fn run(&self, model: &str, items: Vec<TensorMap>) -> Result<Vec<TensorMap>, ModelError> {
        if let Some(first) = items.first() {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if !seen.iter().any(|(name, _)| name == model) {
                seen.push((model.to_owned(), first.clone()));
            }
        }
        Ok(self.runner.run(model, items)?)
    }

    fn inputs(&self, model: &str) -> Option<Vec<TensorSpec>> {
        self.model(model).map(|m| m.inputs.clone())
    }

    fn outputs(&self, model: &str) -> Option<Vec<TensorSpec>> {
        self.model(model).map(|m| m.outputs.clone())
    }

    fn sizes(&self) -> Vec<[u32; 2]> {
        self.sizes.clone()
    }
}

/// What a text-to-image pack has besides its networks.
pub struct TextToImage {
    /// The tokenizer.
    pub tokenizer: ClipTokenizer,
    /// Sampler and latent scaling.
    pub config: PipelineConfig,
    /// Sizes it was converted for.
    pub size: [u32; 2],
}

/// Whether a pack makes pictures from text.
pub fn is_text_to_image(pack: &Pack) -> bool {
    pack.manifest().files.contains_key(SAMPLER_FILE)
}

impl TextToImage {
    /// Read tokenizer and configuration of a pack.
    pub fn open(pack: &Pack) -> Result<Self> {
        if !is_text_to_image(pack) {
            bail!("{}: not a text-to-image pack (it has no {SAMPLER_FILE})", pack.root().display());
        }
        let text = std::fs::read_to_string(pack.file(SAMPLER_FILE)?)?;
        let config = PipelineConfig::from_json(&text).with_context(|| format!("{}/{SAMPLER_FILE}", pack.root().display()))?;
        for name in pack.manifest().files.keys().filter(|n| n.starts_with("tokenizer/")) {
            pack.file(name)?;
        }
        let tokenizer = ClipTokenizer::from_directory(&pack.root().join("tokenizer"))?;
        let unet = pack.manifest().models.iter().find(|m| m.name == "unet");
        let batch = unet.and_then(|m| m.inputs.first()?.shape.first().copied()).unwrap_or(1);
        if batch != 1 {
            bail!("{}: converted with --batch {batch}; making pictures from text needs a pack of batch 1", pack.root().display());
        }
        let size = unet.and_then(|m| m.resolution);
        Ok(TextToImage { tokenizer, config, size: size.context("the pack's U-Net has no resolution")? })
    }
}

/// Tensors from `NAME=FILE.npy` arguments.
pub fn read_inputs(arguments: &[String]) -> Result<Vec<(String, rockshard_tensor::Tensor)>> {
    arguments
        .iter()
        .map(|argument| {
            let (name, file) = argument.split_once('=').with_context(|| format!("input {argument:?} is not NAME=FILE.npy"))?;
            let bytes = rockshard_tensor::map_file(Path::new(file)).with_context(|| file.to_owned())?;
            let tensor = rockshard_tensor::read_npy(&bytes).with_context(|| file.to_owned())?;
            Ok((name.to_owned(), tensor))
        })
        .collect()
}
