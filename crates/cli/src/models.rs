//! A pack's networks, as the diffusion pipelines want them.

use crate::interrupt;
use anyhow::{Context, Result, bail};
use rockshard_diffusion::{ClipTokenizer, ModelError, Models, PipelineConfig};
use rockshard_manifest::{Model, TensorSpec};
use rockshard_pack::{Devices, Footprint, Mode, Pack};
use rockshard_runtime::{Cores, CoresOptions, LoadedPack, RunOptions, TensorMap, Trace};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

/// Name of the pipeline's configuration in a pack.
pub const SAMPLER_FILE: &str = "sampler.json";
const ENCODER: &str = "vae_encoder";
const DECODER: &str = "vae_decoder";

/// The models of a pack opened on devices. Keeps the first inputs each model was given.
pub struct PackModels {
    loaded: LoadedPack,
    options: RunOptions,
    trace: Mutex<Trace>,
    sizes: Vec<[u32; 2]>,
    seen: Mutex<Vec<(String, TensorMap)>>,
}

/// Which models of a pack are needed.
#[derive(Clone, Copy, Default)]
pub struct Choice {
    /// Picture size; a network that was not converted for it is taken at the first size it has.
    pub size: Option<[u32; 2]>,
    /// Latent values along the sides of the decoder's input, where that is to be another one than the size's.
    pub tile: Option<u32>,
    /// Leave out the VAE's encoder.
    pub no_encoder: bool,
}

impl PackModels {
    /// Open models of a pack.
    pub fn open(
        pack: &Pack,
        devices: &Devices,
        choice: &Choice,
        options: CoresOptions,
        mode: Mode,
    ) -> Result<Self> {
        let models = &pack.manifest().models;
        let mut sizes: Vec<[u32; 2]> = models.iter().filter_map(|m| m.resolution).collect();
        sizes.sort_unstable();
        sizes.dedup();
        let decoder = choice.decoder(models, &options, mode)?;
        let chosen = |m: &Model| match m.name.as_str() {
            ENCODER if choice.no_encoder => false,
            DECODER => decoder.is_some_and(|d| std::ptr::eq(d, m)),
            name => choice.of(models, name).is_some_and(|c| std::ptr::eq(c, m)),
        };
        let loaded = Cores::new(devices, options)?.load(pack, mode, chosen)?;
        let options = RunOptions { cancel: interrupt::cancel(), ..RunOptions::default() };
        let incidents = loaded.incidents().to_vec();
        let trace = Mutex::new(Trace { incidents, ..Trace::default() });
        Ok(PackModels { loaded, options, trace, sizes, seen: Mutex::default() })
    }

    /// The first inputs that each model was given.
    pub fn seen(&self) -> Vec<(String, TensorMap)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What ran so far.
    pub fn trace(&self) -> Trace {
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Most modelled device memory, in bytes, that open models took at a time.
    pub fn resident_peak(&self) -> u64 {
        self.loaded.cores().resident_peak()
    }

    fn model(&self, name: &str) -> Option<&Model> {
        self.loaded.models().find(|m| m.name == name)
    }
}

impl Choice {
    fn of<'a>(&self, models: &'a [Model], name: &str) -> Option<&'a Model> {
        let fits = |m: &&Model| {
            m.name == name
                && (self.size.is_none() || m.resolution.is_none() || m.resolution == self.size)
        };
        models.iter().find(fits).or_else(|| models.iter().find(|m| m.name == name))
    }

    /// The decoder: that of the tile asked for, or that of the picture's size where it fits the memory, or the largest smaller one
    /// that does.
    fn decoder<'a>(
        &self,
        models: &'a [Model],
        options: &CoresOptions,
        mode: Mode,
    ) -> Result<Option<&'a Model>> {
        let sides =
            |m: &Model| m.inputs.first().and_then(|t| Some([*t.shape.get(2)?, *t.shape.get(3)?]));
        let decoders: Vec<&Model> = models.iter().filter(|m| m.name == DECODER).collect();
        if let Some(tile) = self.tile {
            let found = decoders.iter().find(|m| sides(m) == Some([tile as usize; 2]));
            let known = || {
                decoders
                    .iter()
                    .filter_map(|m| sides(m))
                    .map(|[h, w]| format!("{w}x{h}"))
                    .collect::<Vec<_>>()
                    .join(", ")
            };
            return match found {
                Some(found) => Ok(Some(found)),
                None => bail!(
                    "--vae-tile {tile}: the pack has no decoder of {tile}x{tile} latent values, only {}; convert with a second --resolution",
                    known()
                ),
            };
        }
        let Some(whole) = self.of(models, DECODER) else { return Ok(None) };
        let fits = |m: &Model| {
            options.memory_limit.is_none_or(|limit| {
                Footprint::of(m, usize::from(options.cores), mode).bytes() <= limit
            })
        };
        if fits(whole) {
            return Ok(Some(whole));
        }
        let area = |m: &Model| sides(m).map_or(0, |[h, w]| h * w);
        let smaller = decoders
            .into_iter()
            .filter(|m| area(m) < area(whole) && fits(m))
            .max_by_key(|m| area(m));
        if let Some([h, w]) = smaller.and_then(sides) {
            tracing::warn!(
                "the decoder of the picture's size does not fit the memory limit: decoding in tiles of {w}x{h} latent values"
            );
        }
        Ok(Some(smaller.unwrap_or(whole)))
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
        let outcome = self.loaded.run(model, items, &self.options)?;
        self.trace.lock().unwrap_or_else(PoisonError::into_inner).extend(outcome.trace);
        Ok(outcome.outputs?)
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
        let config = PipelineConfig::from_json(&text)
            .with_context(|| format!("{}/{SAMPLER_FILE}", pack.root().display()))?;
        for name in pack.manifest().files.keys().filter(|n| n.starts_with("tokenizer/")) {
            pack.file(name)?;
        }
        let tokenizer = ClipTokenizer::from_directory(&pack.root().join("tokenizer"))?;
        let unet = pack.manifest().models.iter().find(|m| m.name == "unet");
        let batch = unet.and_then(|m| m.inputs.first()?.shape.first().copied()).unwrap_or(1);
        if batch != 1 {
            bail!(
                "{}: converted with --batch {batch}; making pictures from text needs a pack of batch 1",
                pack.root().display()
            );
        }
        let size = unet.and_then(|m| m.resolution);
        Ok(TextToImage {
            tokenizer,
            config,
            size: size.context("the pack's U-Net has no resolution")?,
        })
    }
}

/// Tensors from `NAME=FILE.npy` arguments.
pub fn read_inputs(arguments: &[String]) -> Result<Vec<(String, rockshard_tensor::Tensor)>> {
    arguments
        .iter()
        .map(|argument| {
            let (name, file) = argument
                .split_once('=')
                .with_context(|| format!("input {argument:?} is not NAME=FILE.npy"))?;
            let bytes =
                rockshard_tensor::map_file(Path::new(file)).with_context(|| file.to_owned())?;
            let tensor = rockshard_tensor::read_npy(&bytes).with_context(|| file.to_owned())?;
            Ok((name.to_owned(), tensor))
        })
        .collect()
}
