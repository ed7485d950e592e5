//! Loading a text-to-image pack: what a painter and a stream have in common.

use crate::choice::Choice;
use crate::drawable::unet;
use crate::networks::PackNetworks;
use crate::{Error, pick_mode};
use rockshard_diffusion::{ClipTokenizer, PipelineConfig};
use rockshard_manifest::Companion;
use rockshard_pack::{Mode, Pack};
use rockshard_runtime::{Cores, Incident, RunOptions};
use std::path::Path;
use std::sync::Arc;

/// What is loaded, and how.
pub(crate) struct Loading {
    pub size: Option<[u32; 2]>,
    pub vae_tile: Option<u32>,
    pub encoder: bool,
    pub tiny: bool,
    pub mode: Option<Mode>,
    /// Take packs for several items at once.
    pub batches: bool,
    /// Items that mostly run together: what the planner plans for.
    pub together: usize,
}

/// A pack on the cores, with what belongs to it.
pub(crate) struct Loaded {
    pub networks: PackNetworks,
    pub tokenizer: Arc<ClipTokenizer>,
    pub config: PipelineConfig,
    pub size: [u32; 2],
    pub mode: Mode,
    /// Items that a run of a network takes.
    pub batch: usize,
    pub incidents: Vec<Incident>,
}

impl Loading {
    /// Load a text-to-image pack onto cores.
    pub fn load(&self, cores: &Cores, pack: &Pack) -> Result<Loaded, Error> {
        let manifest = pack.manifest();
        let fail = |problem: String| Error::NotDrawable { pack: pack.root().to_owned(), problem };
        let unet = unet(pack)?;
        let config = config(pack)?;
        let tokenizer = Arc::new(tokenizer(pack)?);
        let batch = unet.inputs.first().and_then(|t| t.shape.first()).map_or(1, |&b| b.max(1));
        if batch > 1 && !self.batches {
            return Err(Error::Batch { pack: pack.root().to_owned(), batch });
        }
        let own = unet.resolution.ok_or_else(|| fail("its U-Net has no resolution".into()))?;
        let size = self.size.unwrap_or(own);
        let planned = || pick_mode(pack, cores.options(), self.together);
        let mode = self.mode.unwrap_or_else(planned);
        let choice = Choice {
            models: &manifest.models,
            size,
            tile: self.vae_tile,
            encoder: self.encoder,
            tiny: self.tiny,
            cores: cores.options(),
            mode,
        };
        let chosen = choice.models()?;
        let loaded = cores.load(pack, mode, |m| chosen.iter().any(|c| std::ptr::eq(*c, m)))?;
        let incidents = loaded.incidents().to_vec();
        let sizes = manifest.resolutions().into_iter().flatten().collect();
        let networks = PackNetworks::new(Arc::new(loaded), sizes, RunOptions::default());
        Ok(Loaded { networks, tokenizer, config, size, mode, batch, incidents })
    }
}

/// The sampler's configuration in a pack.
pub(crate) fn config(pack: &Pack) -> Result<PipelineConfig, Error> {
    let [file] = companions(pack, Companion::Sampler)? else {
        return Err(missing(pack, Companion::Sampler));
    };
    let path = pack.file(file)?;
    let text = std::fs::read_to_string(&path);
    let text = text.map_err(|source| Error::Read { path: path.clone(), source })?;
    PipelineConfig::from_json(&text).map_err(|source| Error::Config { path, source })
}

/// The tokenizer in a pack.
pub(crate) fn tokenizer(pack: &Pack) -> Result<ClipTokenizer, Error> {
    let files = companions(pack, Companion::Tokenizer)?;
    files.iter().try_for_each(|file| pack.file(file).map(drop))?;
    let folder = files.first().and_then(|file| Path::new(file).parent());
    let folder = folder.ok_or_else(|| missing(pack, Companion::Tokenizer))?;
    Ok(ClipTokenizer::from_directory(&pack.root().join(folder))?)
}

fn companions(pack: &Pack, companion: Companion) -> Result<&[String], Error> {
    let found = pack.manifest().companions.get(&companion);
    found.map(Vec::as_slice).ok_or_else(|| missing(pack, companion))
}

fn missing(pack: &Pack, companion: Companion) -> Error {
    Error::NotDrawable { pack: pack.root().to_owned(), problem: format!("it has no {companion}") }
}
