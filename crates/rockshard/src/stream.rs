//! StreamDiffusion over a pack: a stream takes frames, draws several of them at once on the cores, and gives them back in order.
//!
//! [`StreamModel`] is loaded once; each [`Stream`] of it has its own settings, noise, queue and threads, and its own place in the cores'
//! fair queues. Names are StreamDiffusion's where it has one; `docs/stream.md` has the table.

mod queue;
mod worker;

use crate::Error;
use crate::loading::{Loaded, Loading};
use crate::networks::{Batched, PackNetworks};
use queue::Queue;
pub use queue::{StreamFrame, StreamStats};
use rockshard_diffusion::stream::{
    FrameSource, Frames, Settings, Similarity, StreamConfig, StreamParts,
};
use rockshard_diffusion::{Conditioner, LcmSampler, Networks, Picture, PictureCodec, Rows};
use rockshard_manifest::Role;
use rockshard_pack::{Footprint, Mode, Pack};
use rockshard_runtime::{Cancel, Client, Cores, Incident, RunOptions};
use std::sync::Arc;
use std::thread::JoinHandle;
use worker::Worker;

/// Groups of frames that are on their way beside one for each core, or as many as fill a batch there: one is with the host (resizing, pixels) while the cores are busy.
pub const GROUPS_BESIDE_CORES: usize = 2;

/// What pictures are encoded and decoded with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Vae {
    /// The tiny autoencoder where the pack has one.
    #[default]
    Auto,
    /// The tiny autoencoder (TAESD).
    Tiny,
    /// The model's own.
    Whole,
}

/// How streams use a pack.
#[derive(Clone, Debug)]
pub struct StreamOptions {
    /// Picture size `[width, height]` in pixels, one that the pack was converted for; `None` is its first.
    pub size: Option<[u32; 2]>,
    /// Encoder and decoder.
    pub vae: Vae,
    /// Load the encoder, to start from pictures.
    pub from_pictures: bool,
    /// How rows go through the cores; `None` is the planner's choice.
    pub mode: Option<Mode>,
}

impl Default for StreamOptions {
    fn default() -> Self {
        StreamOptions { size: None, vae: Vae::Auto, from_pictures: true, mode: None }
    }
}

/// How frames wait before they enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueOptions {
    /// Frames that may wait.
    pub capacity: usize,
    /// What happens when one more comes: the oldest is dropped and counted, or its giver waits.
    pub drop_stale: bool,
}

impl Default for QueueOptions {
    fn default() -> Self {
        QueueOptions { capacity: 4, drop_stale: false }
    }
}

/// A text-to-image pack on the cores, for streams.
pub struct StreamModel {
    networks: PackNetworks,
    parts: StreamParts,
    mode: Mode,
    tiny: bool,
    cores: usize,
    batch: usize,
    incidents: Vec<Incident>,
}

/// A stream of frames. Dropped, it stops what is running for it.
pub struct Stream {
    worker: Arc<Worker>,
    threads: Vec<JoinHandle<()>>,
    cancel: Cancel,
}

impl StreamModel {
    /// Load a text-to-image pack onto cores.
    ///
    /// # Errors
    /// As [`Painter::load`](crate::Painter::load), a size that the pack was not converted for, and a tiny autoencoder that was asked for and is not there.
    pub fn load(cores: &Cores, pack: &Pack, options: &StreamOptions) -> Result<Self, Error> {
        let has = |role| pack.manifest().models.iter().any(|m| m.role == role);
        let there = has(Role::TinyDecoder) && (has(Role::TinyEncoder) || !options.from_pictures);
        let tiny = match options.vae {
            Vae::Auto => there,
            Vae::Whole => false,
            Vae::Tiny if there => true,
            Vae::Tiny => {
                let problem = "it has no tiny autoencoder (taesd_encoder, taesd_decoder)".into();
                return Err(Error::NotDrawable { pack: pack.root().to_owned(), problem });
            }
        };
        let count = usize::from(cores.options().cores);
        let loading = Loading {
            size: options.size,
            vae_tile: None,
            encoder: options.from_pictures,
            tiny,
            mode: options.mode,
            batches: true,
            together: count + GROUPS_BESIDE_CORES,
        };
        let Loaded { networks, tokenizer, config, mode, batch, incidents, .. } =
            loading.load(cores, pack)?;
        let over = single(Arc::new(networks.for_caller(RunOptions::default())), batch);
        let rows = Rows::new(over.clone(), &config)?;
        let parts = StreamParts {
            conditioner: Conditioner::new(over.clone(), tokenizer)?,
            pictures: PictureCodec::new(over, rows.latent_shape(), &config)?,
            rows,
            sampler: LcmSampler::new(&config.sampler).map_err(rockshard_diffusion::Error::from)?,
        };
        if let Some([width, height]) = options.size {
            parts.pictures.check_size(width, height)?;
        }
        Ok(StreamModel { networks, parts, mode, tiny, cores: count, batch, incidents })
    }

    /// Width and height of the pictures, in pixels.
    pub fn size(&self) -> [u32; 2] {
        self.parts.pictures.size()
    }

    /// How rows go through the cores.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Whether the tiny autoencoder stands in for the VAE.
    pub fn is_tiny(&self) -> bool {
        self.tiny
    }

    /// The modelled device memory that it takes.
    pub fn footprint(&self) -> Footprint {
        self.networks.footprint()
    }

    /// Faults that were met while the pack was loaded, and what was done about each.
    pub fn incidents(&self) -> &[Incident] {
        &self.incidents
    }

    /// Start a stream, as a client of its own.
    ///
    /// # Errors
    /// Settings that the model cannot do, a prompt that cannot be encoded, or threads that cannot be started.
    pub fn prepare(
        &self,
        config: StreamConfig,
        settings: Settings,
        queue: QueueOptions,
    ) -> Result<Stream, Error> {
        let options = RunOptions { client: Client::new(), ..RunOptions::default() };
        self.prepare_with(config, settings, queue, options)
    }

    /// Start a stream whose runs have these options. When it is dropped, what they are cancelled by is used.
    ///
    /// # Errors
    /// As [`StreamModel::prepare`].
    pub fn prepare_with(
        &self,
        config: StreamConfig,
        settings: Settings,
        queue: QueueOptions,
        options: RunOptions,
    ) -> Result<Stream, Error> {
        let cancel = options.cancel.clone();
        let networks = Arc::new(self.networks.for_caller(options));
        let over = single(networks.clone(), self.batch);
        let frames = Frames::prepare(self.parts.over(&over), config, settings)?;
        networks.take_trace();
        // Frames that follow each other strictly are on their way alone.
        let groups = if config.use_denoising_batch {
            let of_a_core = self.batch.div_ceil(config.frame_buffer_size.max(1));
            self.cores * of_a_core + GROUPS_BESIDE_CORES
        } else {
            1
        };
        let on_their_way = groups * config.frame_buffer_size;
        let queue = Queue::new(queue, on_their_way + config.frame_buffer_size);
        let worker = Arc::new(Worker::new(frames, networks, queue));
        let mut stream = Stream { worker, threads: Vec::new(), cancel };
        for number in 0..groups {
            let worker = stream.worker.clone();
            let thread = std::thread::Builder::new().name(format!("stream-{number}"));
            stream.threads.push(thread.spawn(move || worker.serve()).map_err(Error::Thread)?);
        }
        Ok(stream)
    }
}

/// Networks as the drivers take them, an item at a time.
fn single(networks: Arc<PackNetworks>, batch: usize) -> Arc<dyn Networks> {
    if batch > 1 { Arc::new(Batched::new(networks, batch)) } else { networks }
}

impl Stream {
    /// Give a frame. Where the queue is full this waits, or drops the oldest frame that waits. Gives the frame's number, from 0.
    ///
    /// # Errors
    /// The stream was finished.
    pub fn push(&self, source: FrameSource) -> Result<u64, Error> {
        self.worker.queue.push(source).ok_or(Error::StreamOver)
    }

    /// No more frames come; those that were given are drawn.
    pub fn finish(&self) {
        self.worker.queue.close();
    }

    /// The next frame in order, waiting for it; `None` when the stream is finished and all have been given. A frame that cannot be drawn
    /// is an error in its place, and the stream goes on.
    pub fn next_frame(&self) -> Option<Result<StreamFrame, Error>> {
        self.worker.queue.next()
    }

    /// Give a picture and take a drawn frame: that of the picture given [`Stream::warm_up`] frames ago, `None` for the first ones.
    ///
    /// # Errors
    /// The stream was finished, or a frame cannot be drawn.
    pub fn img2img(&self, picture: Picture) -> Result<Option<StreamFrame>, Error> {
        self.exchange(FrameSource::Picture(picture))
    }

    /// Draw a frame of the prompt alone; otherwise as [`Stream::img2img`].
    ///
    /// # Errors
    /// As [`Stream::img2img`].
    pub fn txt2img(&self) -> Result<Option<StreamFrame>, Error> {
        self.exchange(FrameSource::Noise)
    }

    /// As [`Stream::txt2img`], for a stream whose configuration has [`turbo`](StreamConfig::turbo).
    ///
    /// # Errors
    /// As [`Stream::img2img`], and a stream of another configuration.
    pub fn txt2img_sd_turbo(&self) -> Result<Option<StreamFrame>, Error> {
        if !self.config().turbo {
            return Err(Error::NotTurbo);
        }
        self.txt2img()
    }

    fn exchange(&self, source: FrameSource) -> Result<Option<StreamFrame>, Error> {
        self.push(source)?;
        if self.worker.queue.outstanding() <= self.warm_up() {
            return Ok(None);
        }
        self.next_frame().transpose()
    }

    /// Frames on their way before the first comes back: none of them is shown before it is drawn.
    pub fn warm_up(&self) -> usize {
        self.threads.len() * self.config().frame_buffer_size - 1
    }

    /// How it works.
    pub fn config(&self) -> &StreamConfig {
        self.worker.frames.config()
    }

    /// The settings that were asked for last.
    pub fn settings(&self) -> Settings {
        self.worker.frames.settings()
    }

    /// Ids that the prompts asked for last have lost, because the text encoder has no room for them.
    pub fn dropped_tokens(&self) -> usize {
        self.worker.frames.dropped_tokens()
    }

    /// Draw another prompt from the next frame on that enters. This waits for the text encoder, frames do not. Gives the generation that
    /// frames of it have.
    ///
    /// # Errors
    /// The prompt cannot be encoded; the stream goes on as before then.
    pub fn update_prompt(&self, prompt: &str) -> Result<u64, Error> {
        let prompts = vec![(prompt.to_owned(), 1.0)];
        self.update(Settings { prompts, ..self.settings() }, 0)
    }

    /// Draw with other settings, at once or within `frames` frames: prompts and noise are interpolated.
    ///
    /// # Errors
    /// Settings that the model cannot do; the stream goes on as before then.
    pub fn update(&self, settings: Settings, frames: usize) -> Result<u64, Error> {
        Ok(self.worker.frames.update(settings, frames)?)
    }

    /// Skip pictures that are like the last one that was drawn: at a cosine from `threshold` on, at most `max_skip` in a row.
    pub fn enable_similar_image_filter(&self, threshold: f64, max_skip: usize) {
        self.worker.frames.set_similarity(Some(Similarity { threshold, max_skip }));
    }

    /// Skip none.
    pub fn disable_similar_image_filter(&self) {
        self.worker.frames.set_similarity(None);
    }

    /// What has happened so far.
    pub fn stats(&self) -> StreamStats {
        self.worker.queue.stats()
    }

    /// Faults of the cores since this was asked last, and what was done about each.
    pub fn take_incidents(&self) -> Vec<Incident> {
        self.worker.queue.take_incidents()
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.worker.queue.stop();
        self.cancel.cancel();
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
