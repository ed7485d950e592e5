//! Text to image from a pack: what `generate`, a server or a program of one's own load once and draw with often.

use crate::loading::{Loaded, Loading};
use crate::networks::{PackNetworks, Recorder};
use crate::{Error, ModelInputs};
use rockshard_diffusion::{
    ClipTokenizer, DrawProgress, Generated, Networks, Picture, PipelineConfig, Request,
    SamplerName, TextToImage,
};
use rockshard_pack::{Footprint, Mode, Pack};
use rockshard_runtime::{Cores, Incident, RunOptions, Trace};
use std::ops::ControlFlow;
use std::sync::Arc;

/// How a painter uses its pack.
#[derive(Clone, Debug)]
pub struct PainterOptions {
    /// Picture size `[width, height]` in pixels, one that the pack was converted for; `None` is its first.
    pub size: Option<[u32; 2]>,
    /// Decode in overlapping, blended tiles of this many latent values a side, with the pack's decoder of that size. `None` does so
    /// where the pack has no decoder of the picture's size, or none that fits the memory limit.
    pub vae_tile: Option<u32>,
    /// Load the VAE's encoder, to start from pictures.
    pub from_pictures: bool,
    /// How several items go through the cores; `None` is the planner's choice.
    pub mode: Option<Mode>,
    /// Pictures that are mostly drawn together: what the planner plans for.
    pub together: usize,
}

impl Default for PainterOptions {
    fn default() -> Self {
        let (size, vae_tile, mode) = (None, None, None);
        PainterOptions { size, vae_tile, from_pictures: true, mode, together: 1 }
    }
}

/// A text-to-image pack on the cores, ready to draw. It is `Send` and `Sync`: several threads may draw with one at once.
pub struct Painter {
    networks: PackNetworks,
    drawing: TextToImage,
    tokenizer: Arc<ClipTokenizer>,
    config: PipelineConfig,
    size: [u32; 2],
    mode: Mode,
    incidents: Vec<Incident>,
}

/// What a request gave.
#[derive(Clone, Debug)]
pub struct Drawing {
    /// The pictures, by ascending seed.
    pub pictures: Vec<Picture>,
    /// Ids at the end of the prompt that the text encoder had no room for.
    pub dropped_tokens: usize,
    /// What ran for it, and the faults that were met.
    pub trace: Trace,
}

impl Painter {
    /// Load a text-to-image pack onto cores.
    ///
    /// # Errors
    /// A pack of another family, of a batch above 1, without the size or tile asked for; files that were altered; models that do not fit.
    pub fn load(cores: &Cores, pack: &Pack, options: &PainterOptions) -> Result<Self, Error> {
        let loading = Loading {
            size: options.size,
            vae_tile: options.vae_tile,
            encoder: options.from_pictures,
            tiny: false,
            mode: options.mode,
            batches: false,
            together: options.together,
        };
        let Loaded { networks, tokenizer, config, size, mode, incidents, .. } =
            loading.load(cores, pack)?;
        let over = Arc::new(networks.for_caller(RunOptions::default()));
        let drawing = TextToImage::new(over, tokenizer.clone(), &config)?;
        Ok(Painter { networks, drawing, tokenizer, config, size, mode, incidents })
    }

    /// Width and height of the pictures it draws, in pixels.
    pub fn size(&self) -> [u32; 2] {
        self.size
    }

    /// How several items go through the cores.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// The modelled device memory that it takes.
    pub fn footprint(&self) -> Footprint {
        self.networks.footprint()
    }

    /// Faults that were met while the pack was loaded, and what was done about each.
    pub fn incidents(&self) -> &[Incident] {
        &self.incidents
    }

    /// A request for one picture of a prompt, of the painter's size, by a sampler (`None`: the one that the model's scheduler names), with the steps and the
    /// guidance that are usual with it.
    ///
    /// # Errors
    /// The model's scheduler is one that is not there, and no other was asked for.
    pub fn request(&self, prompt: &str, sampler: Option<SamplerName>) -> Result<Request, Error> {
        let [width, height] = self.size;
        Ok(Request { width, height, ..self.drawing.request(prompt, sampler)? })
    }

    /// Draw. Every run of it has these options; `progress` is told of every stage and stops the request by breaking.
    ///
    /// # Errors
    /// A request that the model cannot do, a network that fails, or one that was stopped.
    pub fn draw(
        &self,
        request: &Request,
        options: &RunOptions,
        progress: &mut dyn FnMut(DrawProgress) -> ControlFlow<()>,
    ) -> Result<Drawing, Error> {
        let networks = Arc::new(self.networks.for_caller(options.clone()));
        let over: Arc<dyn Networks> = networks.clone();
        let generated = self.drawing.over(&over).generate(request, progress)?;
        Ok(Drawing::new(generated, networks.take_trace()))
    }

    /// Draw as [`Painter::draw`], and keep the first inputs that each network is given, by the name of its model.
    ///
    /// # Errors
    /// As [`Painter::draw`].
    pub fn draw_and_record(
        &self,
        request: &Request,
        options: &RunOptions,
        progress: &mut dyn FnMut(DrawProgress) -> ControlFlow<()>,
    ) -> Result<(Drawing, ModelInputs), Error> {
        let networks = Arc::new(self.networks.for_caller(options.clone()));
        let recorder = Arc::new(Recorder::new(networks.clone()));
        // All of it anew, so that the prompt is encoded although it may be known.
        let tokenizer = self.tokenizer.clone();
        let drawing = TextToImage::new(recorder.clone(), tokenizer, &self.config)?;
        let generated = drawing.generate(request, progress)?;
        let named = |(role, tensors)| Some((networks.model(role)?.name.clone(), tensors));
        let inputs = recorder.seen().into_iter().filter_map(named).collect();
        Ok((Drawing::new(generated, networks.take_trace()), inputs))
    }
}

impl Drawing {
    fn new(generated: Generated, trace: Trace) -> Self {
        let Generated { pictures, dropped_tokens } = generated;
        Drawing { pictures, dropped_tokens, trace }
    }
}
